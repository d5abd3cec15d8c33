//! The banner of a webhook that is disabled, fails, or lost deliveries.

use maud::{Markup, html};

use super::elements::{csrf, time};
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::clock::{now_ms, rfc3339};
use crate::webhook::Webhook;

/// How long the banner shows deliveries that became dead letters.
const DEATHS_SHOWN_MS: i64 = 86_400_000;

/// The banner, which is empty if all is well or if Redis doesn't answer.
pub async fn banner(admin: &Shared, session: &Session, webhook: &Webhook) -> Markup {
    let told = admin.notices.told(webhook.id).await.unwrap_or_default();
    let since = |at_ms: Option<i64>| html! { @if let Some(at_ms) = at_ms { " since " (time(&rfc3339(at_ms))) } };
    let shown = |at_ms: &i64| now_ms().saturating_sub(*at_ms) < DEATHS_SHOWN_MS;
    let (missed, missed_since) = admin.missed.count(webhook.id).await.unwrap_or_default();
    let died = told.exhausted_at_ms.filter(shown).and(told.died);
    html! {
        @if let Some(reason) = webhook.disabled_reason.as_ref().filter(|_| !webhook.active) {
            p .flash.bad #trouble { strong { "Disabled" } (since(told.trouble_since_ms)) ": " (reason) ". Correct the endpoint, then resume the webhook below." }
        } @else if told.is_failing {
            p .flash.bad #trouble { strong { "Failing" } (since(told.trouble_since_ms)) ": no attempt has succeeded. New events wait and are tried again." }
        }
        @if let Some(died) = died {
            p .flash.warn #died {
                (died.count) (if died.count == 1 { " delivery has" } else { " deliveries have" }) " failed for good since "
                (time(&rfc3339(died.since_ms))) ". They are kept as "
                a href={ "/dead-letters?webhook=" (webhook.id) } { "dead letters" } "."
            }
        }
        @if missed > 0 || died.is_some() || told.is_failing {
            form .flash.warn #missed method="post" action="/dead-letters/replay" {
                (csrf(session))
                input type="hidden" name="webhook" value=(webhook.id);
                input type="hidden" name="missed" value="true";
                @if missed > 0 {
                    p { "It missed " (missed) (if missed == 1 { " event" } else { " events" }) " while it was paused or disabled" (since(missed_since)) "." }
                }
                @if !webhook.active {
                    p { "Resume the webhook to send them." }
                } @else if session.may_change() {
                    p { "What it missed is sent from the dead letters and from the events topic, each event once, in order for each task." }
                    button { "Send what it missed" }
                }
            }
        }
    }
}
