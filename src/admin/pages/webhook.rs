//! The page of one webhook: its settings and actions.

mod forms;

use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::chart;
use super::elements::{only_reads, time};
use super::form::Form;
use super::layout::{NavItem, flash, layout};
use super::trouble;
use super::webhook_form::{Entered, fields, signing};
use super::webhooks::state;
use crate::admin::actions::{Rotation, Saved};
use crate::admin::problem::{Problem, Refusal};
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
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
    #[serde(default)]
    hold: bool,
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
    let above =
        html! { (trouble::banner(&admin, &session, &webhook).await) (chart::of_webhook(&admin, &webhook).await) };
    Ok(page(&session, &webhook, &Entered::of(&webhook), None, &flash(done.as_deref()), &above))
}

/// `POST /settings/webhooks/{id}`
pub async fn change(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
    Form(mut entered): Form<Entered>,
) -> Result<Response, Refusal> {
    let webhook = admin.find(&id).await?;
    let seen = Some(entered.updated_at.as_str()).filter(|seen| !seen.is_empty());
    let changed = match entered.draft() {
        Ok(mut draft) => {
            // The form always sends a format. One that is unchanged wasn't chosen, so it still follows a changed URL.
            draft.format = draft.format.filter(|format| *format != webhook.format);
            admin.change_from(&webhook, seen, &draft, &who).await
        }
        Err(problem) => Err(problem),
    };
    match changed {
        Ok(Saved { webhook, unresolved, .. }) => {
            Ok(back(&webhook, if unresolved.is_some() { "changed-unresolved" } else { "changed" }))
        }
        Err(problem) if [StatusCode::BAD_REQUEST, StatusCode::CONFLICT].contains(&problem.status) => {
            if problem.status == StatusCode::CONFLICT {
                // The page says that somebody has changed the webhook, so saving again is a decision.
                entered.updated_at = admin.find(&id).await?.updated_at;
            }
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
    Form(Active { active, hold }): Form<Active>,
) -> Result<Response, Refusal> {
    let webhook = admin.find(&id).await?;
    let Saved { webhook, .. } = admin
        .change(&webhook, &Draft { active: Some(active), hold: Some(hold && !active), ..Draft::default() }, &who)
        .await?;
    Ok(back(
        &webhook,
        match (active, hold) {
            (true, _) => "resumed",
            (false, false) => "paused",
            (false, true) => "held",
        },
    ))
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
            (forms::forms(session, webhook, entered, problem))
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
