//! The attempts of all webhooks, and the page of one event: every webhook that it went to, and each attempt in order.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use maud::{Markup, html};

use super::deliveries::{LogQuery, duration, pretty, result, toolbar};
use super::elements::time;
use super::form::Form;
use super::layout::{NavItem, layout};
use crate::admin::problem::{Problem, Refusal};
use crate::admin::search::Found;
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::store::log::{Filter, LogEntry};
use crate::webhook::Webhook;

/// The most attempts on the page.
const PAGE_LEN: usize = 100;
/// The most attempts of an event.
const OF_EVENT_MAX: usize = 1_000;

/// `GET /deliveries`
pub async fn list(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Refusal> {
    let query: LogQuery = Form::of_query(query.as_deref())?;
    let filter = query.filter()?;
    let found = admin.search(&filter, PAGE_LEN).await?;
    let content = html! {
        h1 { "Search deliveries" }
        p .hint { "The newest attempts of all webhooks. Search for a task, an event, a delivery or a status." }
        (toolbar(&query, false))
        (incomplete(&found))
        @if found.attempts.is_empty() {
            p .empty { (if filter == Filter::default() { "Nothing has been sent recently." } else { "No delivery matches." }) }
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Deliveries" {
                table {
                    thead { tr { th scope="col" { "Result" } th scope="col" { "Webhook" } th scope="col" { "Event" } th scope="col" { "Attempt" } th scope="col" { "Duration" } th scope="col" { "Time" } } }
                    tbody { @for (webhook, entry) in &found.attempts { (row(webhook, entry)) } }
                }
            }
        }
    };
    Ok(layout("Deliveries", Some(&session), Some(NavItem::Search), &content))
}

fn row(webhook: &Webhook, entry: &LogEntry<'_>) -> Markup {
    let logged = &entry.logged;
    html! {
        tr {
            td data-label="Result" { a href={ "/settings/webhooks/" (webhook.id) "/deliveries/" (entry.id) } { (result(entry)) span .visually-hidden { ": details of attempt " (logged.attempt) " at " (logged.delivered_at) } } }
            td data-label="Webhook" { a href={ "/settings/webhooks/" (webhook.id) } { (name(webhook)) } }
            td data-label="Event" { a href={ "/events/" (encoded(&logged.event_id)) } { (logged.event.as_str()) } }
            td data-label="Attempt" { (logged.attempt) @if logged.replays > 0 { span .hint { " of replay " (logged.replays) } } }
            td data-label="Duration" { (duration(logged.duration_ms)) }
            td data-label="Time" { (time(&logged.delivered_at)) }
        }
    }
}

fn name(webhook: &Webhook) -> String {
    webhook.description.clone().unwrap_or_else(|| webhook.url.to_string())
}

/// An event's id as a part of a path.
pub fn encoded(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
}

fn incomplete(found: &Found) -> Markup {
    html! {
        @if !found.is_complete() {
            p .flash.warn { "Only the logs of " (found.searched) " of " (found.webhooks) " webhooks could be searched in time. Search on the page of one webhook, or narrow the search with a time." }
        }
    }
}

/// `GET /events/{id}`
pub async fn event(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
) -> Result<Markup, Refusal> {
    let filter = Filter { search: Some(id.clone()), ..Filter::default() };
    let mut found = admin.search(&filter, OF_EVENT_MAX).await?;
    found.attempts.retain(|(_, entry)| entry.logged.event_id == id);
    found.attempts.reverse();
    let Some((_, first)) = found.attempts.first() else {
        let sentence = "No delivery log has an attempt of this event. It may be too old, or no webhook got it.";
        return Err(Refusal(Problem::new(StatusCode::NOT_FOUND, sentence)));
    };
    let mut webhooks: BTreeMap<_, (&Webhook, Vec<&LogEntry<'_>>)> = BTreeMap::new();
    for (webhook, entry) in &found.attempts {
        webhooks.entry(webhook.id).or_insert((webhook, Vec::new())).1.push(entry);
    }
    let content = html! {
        nav .crumbs aria-label="Breadcrumb" { a href="/deliveries" { "Search" } }
        h1 { (first.logged.event.as_str()) }
        dl .facts {
            dt { "Event" } dd { code { (id) } }
            dt { "Task" } dd { code { (first.logged.task_id) } " " a href={ "/deliveries?search=" (encoded(&first.logged.task_id)) } { "all of this task" } }
            dt { "Webhooks" } dd { (webhooks.len()) }
        }
        (incomplete(&found))
        @for (webhook, entries) in webhooks.values() {
            section .card {
                h2 { a href={ "/settings/webhooks/" (webhook.id) } { (name(webhook)) } }
                ol .timeline {
                    @for entry in entries {
                        li {
                            (time(&entry.logged.delivered_at)) " "
                            a href={ "/settings/webhooks/" (webhook.id) "/deliveries/" (entry.id) } { "attempt " (entry.logged.attempt) @if entry.logged.replays > 0 { " of replay " (entry.logged.replays) } } " "
                            (result(entry)) " " span .hint { (duration(entry.logged.duration_ms)) }
                            @if let Some(next) = &entry.logged.next_attempt_at { span .hint { ", next attempt at " (time(next)) } }
                        }
                    }
                }
            }
        }
        details open { summary { "Payload" } pre tabindex="0" { code { (pretty(&first.payload)) } } }
    };
    Ok(layout("Event", Some(&session), Some(NavItem::Search), &content))
}
