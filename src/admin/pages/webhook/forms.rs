//! The forms of a webhook's page.

use maud::{Markup, html};

use super::super::elements::{csrf, option, time};
use super::super::webhook_form::{Entered, fields, secret_field, signing_field};
use crate::admin::problem::Problem;
use crate::admin::sessions::Session;
use crate::clock::{now_ms, rfc3339};
use crate::event::EventType;
use crate::webhook::Webhook;

/// All forms of a person who may change the webhook.
pub fn forms(session: &Session, webhook: &Webhook, entered: &Entered, problem: Option<&Problem>) -> Markup {
    let base = format!("/settings/webhooks/{}", webhook.id);
    html! {
        form .card method="post" action=(base) {
            (csrf(session))
            h2 { "Settings" }
            (fields(entered, problem, false))
            button { "Save changes" }
        }
        (test_form(session, webhook, &base))
        (secret_form(session, webhook, &base))
        (active_form(session, webhook, &base))
        section .card {
            h2 { "Delete" }
            p { "Nothing more is sent to it, not even pending retries." }
            a .button.danger href={ (base) "/delete" } { "Delete webhook…" }
        }
    }
}

fn test_form(session: &Session, webhook: &Webhook, base: &str) -> Markup {
    html! {
        form .card method="post" action={ (base) "/test" } {
            (csrf(session))
            h2 { "Send a test event" }
            div .field {
                label for="event" { "Event" }
                select #event name="event" {
                    @let first = webhook.events.first().map_or("", |event| event.as_str());
                    @for event in EventType::ALL { (option(event.as_str(), event.as_str(), first)) }
                }
                p .hint { "A sample event is sent at once, past the queue, and you see the answer. It isn't retried." }
            }
            button { "Send test event" }
        }
    }
}

fn secret_form(session: &Session, webhook: &Webhook, base: &str) -> Markup {
    let has_one = webhook.secret.is_some();
    html! {
        form .card method="post" action={ (base) "/rotate-secret" } {
            (csrf(session))
            h2 { (if has_one { "Rotate the signing secret" } else { "Sign requests" }) }
            @if let Some(until_ms) = webhook.overlap_until_ms(now_ms()) {
                p { "Earlier secrets also sign " code { "webhook-signature" } ", the last of them until " (time(&rfc3339(until_ms))) "." }
            }
            @if let Some(warning) = webhook.secret_warning() { p .flash.warn { (warning) } }
            @if let Some(key) = webhook.secret.as_ref().and_then(|secret| secret.public_key()) {
                p { "Receivers verify the signatures with this public key:" }
                div .row { code #public-key { (key) } button .quiet type="button" data-copy="public-key" { "Copy" } }
            }
            (signing_field(webhook.secret.as_ref().map(|secret| secret.signing())))
            (secret_field("New secret", "If you leave it empty, a secret is generated: a shared secret is shown once, and of a key pair the public key is shown."))
            @if has_one {
                div .field {
                    label for="overlap" { "The old secret also signs webhook-signature for" }
                    select #overlap name="overlap" {
                        (option("0s", "no longer", "24h")) (option("1h", "an hour", "24h"))
                        (option("24h", "a day", "24h")) (option("7days", "a week", "24h"))
                    }
                    p .hint { "“No longer” also ends all earlier secrets. " code { "X-Optio-Signature" } " has room for only one signature, which is made with the new shared secret at once." }
                }
            }
            button { (if has_one { "Rotate secret" } else { "Set secret" }) }
        }
    }
}

fn active_form(session: &Session, webhook: &Webhook, base: &str) -> Markup {
    html! {
        form .card method="post" action={ (base) "/active" } {
            (csrf(session))
            input type="hidden" name="active" value=(if webhook.active { "false" } else { "true" });
            @if webhook.active {
                h2 { "Pause" }
                p { "While the webhook is paused, nothing is sent to it." }
                fieldset {
                    legend { "Its deliveries" }
                    div .choice { input type="radio" name="hold" id="hold-no" value="false" checked; label for="hold-no" { "Drop what waits" }
                        p .hint { "Nothing is sent by itself later. This page counts the events, and one button sends them." } }
                    div .choice { input type="radio" name="hold" id="hold-yes" value="true"; label for="hold-yes" { "Hold what waits" }
                        p .hint { "Deliveries wait until the webhook is resumed, but for no longer than delivery.age_max. They then arrive within delivery.breaker.open_max." } }
                }
                button .quiet { "Pause" }
            } @else {
                h2 { "Resume" }
                @if webhook.hold { p { "It is paused, and its deliveries wait." } }
                @if let Some(reason) = &webhook.disabled_reason { p { "It was disabled: " (reason) "." } }
                button { "Resume" }
            }
        }
    }
}
