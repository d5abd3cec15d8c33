//! The page of one webhook: its settings and actions.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::chart;
use super::elements::{csrf, only_reads, option, time};
use super::form::Form;
use super::layout::{NavItem, flash, layout};
use super::trouble;
use super::webhook_form::{Entered, fields, secret_field, signing, signing_field};
use super::webhooks::state;
use crate::admin::actions::{Rotation, Saved};
use crate::admin::problem::{Problem, Refusal};
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::clock::now_ms;
use crate::clock::rfc3339;
use crate::event::EventType;
use crate::secret::Secret;
use crate::store::audit::Author;
use crate::webhook::Webhook;
use crate::webhook::draft::Draft;

/// The query of the page.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct WebhookQuery {
    /// The action that led to the page.
    pub done: Option<String>,
}

/// The form that pauses and resumes a webhook.
#[derive(Deserialize)]
pub struct Active {
    active: bool,
}

/// The form that replaces the secret. An empty secret asks for a generated one.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct NewSecret {
    secret: Secret,
    signing: String,
    overlap: String,
}

/// The form that sends a test event.
#[derive(Deserialize)]
pub struct Test {
    event: EventType,
}

/// The pages of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    Settings,
    Deliveries,
    Verify,
}

/// The heading and the tabs of a webhook's pages.
pub fn head(webhook: &Webhook, current: Tab) -> Markup {
    let base = format!("/settings/webhooks/{}", webhook.id);
    let aria_current = |tab| (tab == current).then_some("page");
    html! {
        nav .crumbs aria-label="Breadcrumb" { a href="/settings/webhooks" { "Webhooks" } }
        div .row { h1 .url { (webhook.url) } (state(webhook)) }
        @if let Some(description) = &webhook.description { p .hint { (description) } }
        nav .tabs aria-label="Webhook" {
            a href=(base) aria-current=[aria_current(Tab::Settings)] { "Settings" }
            a href={ (base) "/deliveries" } aria-current=[aria_current(Tab::Deliveries)] { "Deliveries" }
            a href={ (base) "/verify" } aria-current=[aria_current(Tab::Verify)] { "Verify signatures" }
        }
    }
}

/// `GET /settings/webhooks/{id}`
pub async fn show(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Refusal> {
    let WebhookQuery { done } = Form::of_query(query.as_deref())?;
    let webhook = admin.find(&id).await?;
    let above = html! { (trouble::banner(&admin, &webhook).await) (chart::of_webhook(&admin, &webhook).await) };
    Ok(page(&session, &webhook, &Entered::of(&webhook), None, &flash(done.as_deref()), &above))
}

/// `POST /settings/webhooks/{id}`
pub async fn change(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
    Form(entered): Form<Entered>,
) -> Result<Response, Refusal> {
    let webhook = admin.find(&id).await?;
    let changed = match entered.draft() {
        Ok(mut draft) => {
            // The form always sends a format. One that is unchanged wasn't chosen, so it still follows a changed URL.
            draft.format = draft.format.filter(|format| *format != webhook.format);
            admin.change(&webhook, &draft, &who).await
        }
        Err(problem) => Err(problem),
    };
    match changed {
        Ok(Saved { webhook, unresolved, .. }) => {
            Ok(back(&webhook, if unresolved.is_some() { "changed-unresolved" } else { "changed" }))
        }
        Err(problem) if problem.status == StatusCode::BAD_REQUEST => {
            let page = page(&session, &webhook, &entered, Some(&problem), &Markup::default(), &Markup::default());
            Ok((problem.status, page).into_response())
        }
        Err(problem) => Err(problem.into()),
    }
}

/// `POST /settings/webhooks/{id}/active`
pub async fn activate(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    Form(Active { active }): Form<Active>,
) -> Result<Response, Refusal> {
    let webhook = admin.find(&id).await?;
    let Saved { webhook, .. } =
        admin.change(&webhook, &Draft { active: Some(active), ..Draft::default() }, &who).await?;
    Ok(back(&webhook, if active { "resumed" } else { "paused" }))
}

/// `POST /settings/webhooks/{id}/rotate-secret`
pub async fn rotate(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
    Form(entered): Form<NewSecret>,
) -> Result<Response, Refusal> {
    let webhook = admin.find(&id).await?;
    let overlap = match entered.overlap.as_str() {
        "" => Duration::ZERO,
        text => humantime::parse_duration(text).map_err(|error| Problem::field("overlap", error))?,
    };
    let rotation = Rotation {
        signing: signing(&entered.signing),
        secret: Some(entered.secret).filter(|secret| !secret.is_empty()),
        overlap,
    };
    let (webhook, generated) = admin.rotate(&webhook, rotation, &who).await?;
    let Some(secret) = generated else { return Ok(back(&webhook, "rotated")) };
    // A generated secret must be shown now, because it can't be read later.
    let message = html! {
        div .flash.ok role="status" {
            p { "Secret rotated. This is the new secret; copy it now, because it isn't shown again:" }
            div .row { code #new-secret { (secret.expose()) } button .quiet type="button" data-copy="new-secret" { "Copy" } }
        }
    };
    Ok(page(&session, &webhook, &Entered::of(&webhook), None, &message, &Markup::default()).into_response())
}

/// `POST /settings/webhooks/{id}/test`
pub async fn test(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    Form(Test { event }): Form<Test>,
) -> Result<Response, Refusal> {
    let webhook = admin.find(&id).await?;
    let trial = admin.test(&webhook, event, &who).await?;
    let entry = trial.entry().id;
    Ok(Redirect::to(&format!("/settings/webhooks/{}/deliveries/{entry}?done=tested", webhook.id)).into_response())
}

fn back(webhook: &Webhook, done: &str) -> Response {
    Redirect::to(&format!("/settings/webhooks/{}?done={done}", webhook.id)).into_response()
}

fn page(
    session: &Session,
    webhook: &Webhook,
    entered: &Entered,
    problem: Option<&Problem>,
    message: &Markup,
    above: &Markup,
) -> Markup {
    let content = html! {
        (message)
        (head(webhook, Tab::Settings))
        (above)
        @if session.may_change() {
            (forms(session, webhook, entered, problem))
        } @else {
            (only_reads(session))
            // A disabled fieldset shows the settings, and no browser sends them.
            form .card { h2 { "Settings" } fieldset disabled { (fields(entered, None, false)) } }
        }
        dl .facts {
            dt { "Id" } dd { code { (webhook.id) } }
            dt { "Created" } dd { (time(&webhook.created_at)) }
            dt { "Changed" } dd { (time(&webhook.updated_at)) }
        }
    };
    layout("Webhook", Some(session), Some(NavItem::Webhooks), &content)
}

fn forms(session: &Session, webhook: &Webhook, entered: &Entered, problem: Option<&Problem>) -> Markup {
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
                p { "The previous secret also signs " code { "webhook-signature" } " until " (time(&rfc3339(until_ms))) "." }
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
                    p .hint { code { "X-Optio-Signature" } " has room for only one signature, which is made with the new shared secret at once." }
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
                p { "While the webhook is paused, nothing is sent to it, and each delivery that waits is dropped when its turn comes. The events of that time can be sent later with a replay from the log." }
                button .quiet { "Pause" }
            } @else {
                h2 { "Resume" }
                @if let Some(reason) = &webhook.disabled_reason { p { "It was disabled: " (reason) "." } }
                button { "Resume" }
            }
        }
    }
}
