//! Settings → Webhooks: the list of webhooks, and the form for a new one.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::elements::{csrf, option, time};
use super::form::Form;
use super::layout::{NavItem, flash, layout};
use crate::admin::entrance::read_only;
use crate::admin::number::Count;
use crate::admin::problem::{Problem, Refusal};
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::clock::now_ms;
use crate::event::EventType;
use crate::payload::PayloadFormat;
use crate::secret::Secret;
use crate::signature::Signing;
use crate::store::audit::Author;
use crate::store::success::{self, Counts};
use crate::webhook::Webhook;
use crate::webhook::draft::Draft;

/// The number of webhooks on a page.
const PAGE_LEN: usize = 50;

/// The query of the list.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct WebhooksQuery {
    /// The action that led to the page.
    done: Option<String>,
    /// The number of the page, from 0. A number beyond the last page is that of the last page.
    page: Option<Count<0, { u64::MAX }>>,
}

/// The fields of a webhook's form, as a person entered them.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Entered {
    pub url: String,
    pub description: String,
    /// It is never written into a page, not even into a form that is shown again.
    pub secret: Secret,
    pub signing: String,
    pub events: Vec<String>,
    pub format: Option<String>,
    pub rate_per_second: String,
}

impl Entered {
    /// The draft, as the API would receive it. It has a secret only if one was entered.
    ///
    /// # Errors
    /// 400: the rate is not a whole number.
    pub fn draft(&self) -> Result<Draft, Problem> {
        let rate = match self.rate_per_second.trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                Problem::field(
                    "ratePerSecond",
                    format!("{text:?} isn't allowed; enter a whole number, or leave it empty"),
                )
            })?),
        };
        let format = self.format.as_deref().and_then(PayloadFormat::named);
        Ok(Draft {
            url: Some(self.url.clone()),
            events: Some(self.events.clone()),
            secret: Some(self.secret.clone()).filter(|secret| !secret.is_empty()).map(Some),
            // A shared secret may be left empty, for unsigned requests.
            signing: signing(&self.signing).filter(|signing| *signing == Signing::Ed25519),
            description: Some(Some(self.description.clone())),
            active: None,
            format,
            rate_per_second: Some(rate),
        })
    }

    /// The form of an existing webhook, without its secret.
    pub fn of(webhook: &Webhook) -> Self {
        Self {
            url: webhook.url.to_string(),
            description: webhook.description.clone().unwrap_or_default(),
            secret: Secret::default(),
            signing: String::new(),
            events: webhook.events.iter().map(|event| event.as_str().to_owned()).collect(),
            format: Some(webhook.format.as_str().to_owned()),
            rate_per_second: webhook.rate_per_second.map_or(String::new(), |rate| rate.to_string()),
        }
    }
}

/// `GET /settings/webhooks`
pub async fn list(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Refusal> {
    let query: WebhooksQuery = Form::of_query(query.as_deref())?;
    let all = admin.store.listing().await?;
    let webhooks = all.webhooks;
    let last_page = webhooks.len().saturating_sub(1) / PAGE_LEN;
    let page_number = query.page.and_then(|page| usize::try_from(page.get()).ok()).unwrap_or(0).min(last_page);
    let page: Vec<&Webhook> = webhooks.iter().skip(page_number * PAGE_LEN).take(PAGE_LEN).collect();
    let ids: Vec<_> = page.iter().map(|webhook| webhook.id).collect();
    let counts = success::of_last_day(&mut admin.redis.clone(), &admin.keys, &ids, now_ms()).await?;
    let content = html! {
        (flash(query.done.as_deref()))
        div .row {
            h1 { "Webhooks" }
            @if session.may_change() { a .button href="/settings/webhooks/new" { "Add webhook" } }
        }
        p .hint { "Optio sends an HTTP request to each of these URLs when a task changes state." }
        @if let Some(warning) = admin.webhooks_warning() { p .flash.bad role="alert" { "Redis: " (warning) } }
        @for unsupported in &all.unsupported {
            p .flash.bad role="alert" { "Webhook " (unsupported.id) " can't be read (" (unsupported.problem) "). Its deliveries wait." }
        }
        @if webhooks.is_empty() {
            p .empty { "No webhooks yet. Add one to get a request when a task completes, fails or needs attention." }
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Webhooks" {
                table {
                    thead { tr { th scope="col" { "URL" } th scope="col" { "Events" } th scope="col" { "Status" } th scope="col" { "Success, 24 h" } th scope="col" { "Created" } } }
                    tbody { @for (webhook, counts) in page.iter().zip(&counts) { (row(webhook, *counts)) } }
                }
            }
            (pager(page_number, webhooks.len()))
        }
    };
    Ok(layout("Webhooks", Some(&session), Some(NavItem::Webhooks), &content))
}

fn row(webhook: &Webhook, counts: Counts) -> Markup {
    let path = format!("/settings/webhooks/{}", webhook.id);
    html! {
        tr {
            td data-label="URL" {
                a .url href=(path) { (webhook.url) }
                @if let Some(description) = &webhook.description { div .hint { (description) } }
            }
            td data-label="Events" { @for event in &webhook.events { span .tag { (event.as_str()) } " " } }
            td data-label="Status" { (state(webhook)) }
            td data-label="Success, 24 h" {
                @match counts.percent() {
                    Some(percent) => { (percent) " %" span .hint { " of " (counts.succeeded + counts.failed) } }
                    None => { span .hint { "no attempts" } }
                }
            }
            td data-label="Created" { (time(&webhook.created_at)) }
        }
    }
}

/// The state of a webhook: active, paused or disabled.
pub fn state(webhook: &Webhook) -> Markup {
    html! {
        @match (webhook.active, &webhook.disabled_reason) {
            (true, _) => span .badge.ok { "Active" },
            (false, Some(reason)) => { span .badge.bad { "Disabled" } div .hint { (reason) } }
            (false, None) => span .badge.idle { "Paused" },
        }
    }
}

fn pager(page: usize, count: usize) -> Markup {
    html! {
        @if count > PAGE_LEN {
            nav .pager aria-label="Pages" {
                @if page > 0 { a href={ "?page=" (page - 1) } rel="prev" { "Previous" } }
                span { (page * PAGE_LEN + 1) " to " (count.min((page + 1) * PAGE_LEN)) " of " (count) }
                @if (page + 1) * PAGE_LEN < count { a href={ "?page=" (page + 1) } rel="next" { "Next" } }
            }
        }
    }
}

/// `GET /settings/webhooks/new`
pub async fn new(Extension(session): Extension<Session>) -> Result<Markup, Refusal> {
    if !session.may_change() {
        return Err(read_only(&session.name).into());
    }
    let entered = Entered { events: vec!["task.completed".to_owned(), "task.failed".to_owned()], ..Entered::default() };
    Ok(new_page(&session, &entered, None))
}

/// `POST /settings/webhooks`
pub async fn add(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Extension(session): Extension<Session>,
    Form(entered): Form<Entered>,
) -> Result<Response, Refusal> {
    let added = match entered.draft() {
        Ok(draft) => admin.add(&draft, &who).await,
        Err(problem) => Err(problem),
    };
    match added {
        Ok((webhook, _)) => Ok(Redirect::to(&format!("/settings/webhooks/{}?done=added", webhook.id)).into_response()),
        // The form is shown again with everything that was entered.
        Err(problem) if problem.status == StatusCode::BAD_REQUEST => {
            Ok((problem.status, new_page(&session, &entered, Some(&problem))).into_response())
        }
        Err(problem) => Err(problem.into()),
    }
}

fn new_page(session: &Session, entered: &Entered, problem: Option<&Problem>) -> Markup {
    let content = html! {
        nav .crumbs aria-label="Breadcrumb" { a href="/settings/webhooks" { "Webhooks" } }
        h1 { "Add webhook" }
        form .card method="post" action="/settings/webhooks" {
            (csrf(session))
            (fields(entered, problem, true))
            div .row { button { "Save" } a href="/settings/webhooks" { "Cancel" } }
        }
    };
    layout("Add webhook", Some(session), Some(NavItem::Webhooks), &content)
}

/// The fields of a webhook's form. Only the form of a new webhook has a field for the secret.
pub fn fields(entered: &Entered, problem: Option<&Problem>, is_new: bool) -> Markup {
    html! {
        @if let Some(problem) = problem { p #problem .flash.bad role="alert" { (problem.sentence) } }
        div .field {
            label for="url" { "Endpoint URL" }
            input #url name="url" type="url" required maxlength="2048" value=(entered.url) placeholder="https://example.com/hooks"
                data-format-preset aria-describedby=(if problem.is_some() { "problem url-hint" } else { "url-hint" });
            p #url-hint .hint { "The HTTPS URL that receives the events. Each arrives as JSON in a POST request." }
        }
        div .field {
            label for="description" { "Description " span .hint { "(optional)" } }
            input #description name="description" maxlength="500" value=(entered.description);
        }
        fieldset {
            legend { "Events" }
            @for event in EventType::ALL {
                div .choice {
                    input type="checkbox" name="events" id=(event.as_str()) value=(event.as_str())
                        checked[entered.events.iter().any(|name| name == event.as_str())] aria-describedby={ (event.as_str()) "-hint" };
                    label for=(event.as_str()) { (event.as_str()) }
                    p .hint id={ (event.as_str()) "-hint" } { (event.explanation()) }
                }
            }
        }
        @if is_new {
            (signing_field(signing(&entered.signing)))
            (secret_field("Signing secret (recommended)", if entered.secret.is_empty() { "Each request carries an X-Optio-Signature that is made with the secret, so that your endpoint can verify that Optio sent it. The secret isn't shown again. Leave it empty for unsigned requests, or for a key pair, which is generated." } else { "Enter the secret again: it isn't sent back in a page." }))
        }
        div .field {
            label for="format" { "Format" }
            select #format name="format" {
                @let selected = entered.format.as_deref().unwrap_or_default();
                @if is_new { (option("", "Determined by the URL", selected)) }
                @for format in PayloadFormat::ALL {
                    option value=(format.as_str()) data-hosts=(format.hosts().join(" ")) selected[format.as_str() == selected] {
                        (format.label())
                    }
                }
            }
            p .hint { "Slack's incoming webhooks (hooks.slack.com) accept only Slack messages. Slack workflow triggers get the same content as variables. If you don't choose a format, the URL determines it." }
        }
        div .field {
            label for="rate" { "Requests per second " span .hint { "(optional)" } }
            input #rate name="rate_per_second" inputmode="numeric" pattern="[0-9]*" value=(entered.rate_per_second);
            p .hint { "The highest rate. If you leave it empty, only the endpoint's own pace limits the requests." }
        }
    }
}

/// Reads the choice of `signing_field`.
pub fn signing(text: &str) -> Option<Signing> {
    match text {
        "hmac" => Some(Signing::Hmac),
        "ed25519" => Some(Signing::Ed25519),
        _ => None,
    }
}

/// The field that chooses how requests are signed.
pub fn signing_field(current: Option<Signing>) -> Markup {
    let selected = if current == Some(Signing::Ed25519) { "ed25519" } else { "hmac" };
    html! {
        div .field {
            label for="signing" { "Signature" }
            select #signing name="signing" aria-describedby="signing-hint" {
                (option("hmac", "Shared secret (HMAC-SHA256)", selected))
                (option("ed25519", "Key pair (Ed25519)", selected))
            }
            p #signing-hint .hint { "With a shared secret, your endpoint needs the same secret. With a key pair, Optio keeps the private key and your endpoint needs only the public key; the signature is " code { "v1a" } " of Standard Webhooks." }
        }
    }
}

/// The field for a secret, with a button that generates one.
pub fn secret_field(label: &str, hint: &str) -> Markup {
    html! {
        div .field {
            label for="secret" { (label) }
            div .row {
                input #secret name="secret" type="password" maxlength="512" autocomplete="off" aria-describedby="secret-hint";
                button .quiet type="button" data-generate="secret" { "Generate" }
            }
            p #secret-hint .hint { (hint) }
        }
    }
}
