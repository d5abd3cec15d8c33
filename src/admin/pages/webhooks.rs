//! Settings → Webhooks: the list of webhooks, and the form for a new one.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::chart::spark;
use super::elements::{csrf, time};
use super::form::Form;
use super::layout::{NavItem, flash, layout};
use super::webhook_form::{Entered, fields};
use crate::admin::actions::Saved;
use crate::admin::entrance::read_only;
use crate::admin::number::Count;
use crate::admin::problem::{Problem, Refusal};
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::clock::now_ms;
use crate::store::audit::Author;
use crate::store::success::{self, Counts};
use crate::webhook::Webhook;

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
    let hours = success::by_hour(&mut admin.redis.clone(), &admin.keys, &ids, success::DAY, now_ms()).await?;
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
                    tbody { @for (webhook, hours) in page.iter().zip(&hours) { (row(webhook, hours)) } }
                }
            }
            (pager(page_number, webhooks.len()))
        }
    };
    Ok(layout("Webhooks", Some(&session), Some(NavItem::Webhooks), &content))
}

fn row(webhook: &Webhook, hours: &[Counts]) -> Markup {
    let counts: Counts = hours.iter().sum();
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
                    Some(percent) => { div { (spark(hours)) } (percent) " %" span .hint { " of " (counts.succeeded + counts.failed) } }
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
        Ok(Saved { webhook, unresolved, .. }) => {
            let done = if unresolved.is_some() { "added-unresolved" } else { "added" };
            Ok(Redirect::to(&format!("/settings/webhooks/{}?done={done}", webhook.id)).into_response())
        }
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
