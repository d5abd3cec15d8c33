//! The delivery log of one webhook, and the page of each attempt in it.

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::curl;
use super::elements::{csrf, option, time};
use super::form::Form;
use super::layout::{NavItem, flash, layout};
use super::webhook::{Tab, head};
use crate::admin::problem::{Problem, Refusal};
use crate::admin::replays::moment;
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::event::EventType;
use crate::store::audit::Author;
use crate::store::log::{EntryId, Filter, LogEntry};

/// The number of attempts on a page.
const PAGE_LEN: usize = 50;

/// The query of the log's pages. A form sends an empty string for a filter that isn't set.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct LogQuery {
    success: String,
    event: String,
    search: String,
    since: String,
    before: String,
    after: String,
    /// What was just done. The page confirms it.
    done: Option<String>,
}

impl LogQuery {
    /// The filter of the log.
    ///
    /// # Errors
    /// 400: a field can't be read.
    pub fn filter(&self) -> Result<Filter, Problem> {
        let success = match self.success.as_str() {
            "" => None,
            "true" => Some(true),
            "false" => Some(false),
            other => {
                return Err(Problem::field("success", format!("{other:?} isn't allowed; it must be true or false")));
            }
        };
        let event = match self.event.as_str() {
            "" => None,
            name => Some(
                EventType::named(name)
                    .ok_or_else(|| Problem::field("event", format!("{name:?} isn't an event type")))?,
            ),
        };
        let since = Some(self.since.trim()).filter(|text| !text.is_empty());
        let search = Some(self.search.trim().to_owned()).filter(|text| !text.is_empty());
        Ok(Filter { success, event, search, since_ms: moment("since", since)?, until_ms: None })
    }

    /// The newest attempt that the page already shows.
    pub fn seen(&self) -> Option<EntryId> {
        self.after.parse().ok()
    }

    fn before(&self) -> Result<Option<EntryId>, Problem> {
        if self.before.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.before.parse().map_err(|error| Problem::field("before", error))?))
    }

    /// The query that keeps the filter and sets the parameter `name` to an entry.
    fn url_query(&self, name: &str, entry: EntryId) -> String {
        let entry = entry.to_string();
        let fields = [
            ("success", &self.success),
            ("event", &self.event),
            ("search", &self.search),
            ("since", &self.since),
            (name, &entry),
        ];
        serde_html_form::to_string(fields).unwrap_or_default()
    }
}

/// `GET /settings/webhooks/{id}/deliveries`
pub async fn list(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Refusal> {
    let query: LogQuery = Form::of_query(query.as_deref())?;
    let webhook = admin.find(&id).await?;
    let (filter, before) = (query.filter()?, query.before()?);
    let page = admin.log.page(webhook.id, filter.clone(), before, PAGE_LEN).await?;
    let base = format!("/settings/webhooks/{}/deliveries", webhook.id);
    // Only the newest page gets new attempts.
    let newest = page.entries.first().map(|entry| entry.id).unwrap_or_default();
    let live = before.is_none().then(|| format!("{base}/live?{}", query.url_query("after", newest)));
    let content = html! {
        (flash(query.done.as_deref()))
        (head(&webhook, Tab::Deliveries))
        (toolbar(&query, before.is_some()))
        div .scroll tabindex="0" role="region" aria-label="Deliveries" {
            table {
                thead { tr { th scope="col" { "Result" } th scope="col" { "Event" } th scope="col" { "Attempt" } th scope="col" { "Duration" } th scope="col" { "Time" } th scope="col" { span .visually-hidden { "Details" } } } }
                tbody data-live=[live] data-max="200" {
                    @for entry in &page.entries { (row(entry)) }
                    @if page.entries.is_empty() {
                        tr .empty-row { td colspan="6" { p .empty { (if filter == Filter::default() { "Nothing has been sent to this webhook recently." } else { "No delivery matches this filter." }) } } }
                    }
                }
            }
        }
        @if let Some(next) = page.next {
            nav .pager aria-label="Pages" { a href={ (base) "?" (query.url_query("before", next)) } rel="next" { "Older" } }
        }
        p .hint { "The newest " (admin.config.log.entries_max) " attempts of the last " (spaced(admin.config.log.age_max)) " are kept." }
    };
    Ok(layout("Deliveries", Some(&session), Some(NavItem::Webhooks), &content))
}

/// The filters of a log.
pub fn toolbar(query: &LogQuery, is_older: bool) -> Markup {
    html! {
        form .toolbar method="get" {
            div .field {
                label for="success" { "Result" }
                select #success name="success" {
                    (option("", "All", &query.success)) (option("true", "Delivered", &query.success)) (option("false", "Failed", &query.success))
                }
            }
            div .field {
                label for="event" { "Event" }
                select #event name="event" {
                    (option("", "All", &query.event))
                    @for event in EventType::ALL { (option(event.as_str(), event.as_str(), &query.event)) }
                }
            }
            div .field {
                label for="search" { "Search" }
                input #search name="search" maxlength="1024" value=(query.search) placeholder="task, delivery or status";
            }
            div .field {
                label for="since" { "Since" }
                input #since name="since" maxlength="40" value=(query.since) placeholder="2h or 2026-11-24";
            }
            button .quiet { "Filter" }
            @if is_older { a href="?" { "Newest" } } @else { span #live-state .hint aria-live="polite" {} }
        }
    }
}

/// An attempt as a row of the table, also for the live view.
pub fn row(entry: &LogEntry<'_>) -> Markup {
    let logged = &entry.logged;
    let address = format!("/settings/webhooks/{}/deliveries/{}", entry.webhook_id, entry.id);
    html! {
        tr id={ "entry-" (entry.id) } {
            td data-label="Result" { (result(entry)) }
            td data-label="Event" { (logged.event.as_str()) }
            td data-label="Attempt" { (logged.attempt) @if logged.replays > 0 { span .hint { " of replay " (logged.replays) } } }
            td data-label="Duration" { (duration(logged.duration_ms)) }
            td data-label="Time" { (time(&logged.delivered_at)) }
            td data-label="" { a href=(address) aria-label={ "Details of attempt " (logged.attempt) " at " (logged.delivered_at) } { "Details" } }
        }
    }
}

/// The outcome of an attempt.
pub fn result(entry: &LogEntry<'_>) -> Markup {
    let logged = &entry.logged;
    html! {
        @match (logged.success, logged.status_code) {
            (true, Some(status)) => span .badge.ok { "Delivered " (status) },
            (false, Some(status)) => span .badge.bad { "Failed " (status) },
            (_, None) => span .badge.bad { "Failed" },
        }
        @if let Some(code) = logged.error.filter(|_| logged.status_code.is_none()) { span .hint { " " (code.as_str()) } }
    }
}

/// `GET /settings/webhooks/{id}/deliveries/{entry}`
pub async fn show(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path((id, entry)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Refusal> {
    let query: LogQuery = Form::of_query(query.as_deref())?;
    let webhook = admin.find(&id).await?;
    let entry = admin.entry(webhook.id, &entry).await?;
    let logged = &entry.logged;
    let base = format!("/settings/webhooks/{}/deliveries", webhook.id);
    let content = html! {
        (flash(query.done.as_deref()))
        nav .crumbs aria-label="Breadcrumb" { a href="/settings/webhooks" { "Webhooks" } " / " a href=(base) { "Deliveries" } }
        div .row { h1 { (logged.event.as_str()) } (result(&entry)) }
        dl .facts {
            dt { "Delivery" } dd { code { (logged.delivery_id) } " " a href={ (base) "?search=" (logged.delivery_id) } { "all attempts" } }
            dt { "Task" } dd { code { (logged.task_id) } " " a href={ (base) "?" (search(&logged.task_id)) } { "all of this task" } }
            @if !logged.event_id.is_empty() { dt { "Event" } dd { code { (logged.event_id) } " " a href={ "/events/" (super::search::encoded(&logged.event_id)) } { "all webhooks" } } }
            dt { "Attempt" } dd { (logged.attempt) @if logged.replays > 0 { " of replay " (logged.replays) } }
            dt { "Time" } dd { (time(&logged.delivered_at)) }
            dt { "Duration" } dd { (duration(logged.duration_ms)) }
            @if let Some(code) = logged.error { dt { "Error" } dd { code { (code.as_str()) } ": " (code.explanation()) } }
            @if let Some(detail) = &logged.error_detail { dt { "Why" } dd { (detail) } }
            @if let Some(next) = &logged.next_attempt_at { dt { "Next attempt" } dd { (time(next)) } }
        }
        form method="post" action={ (base) "/" (entry.id) "/redeliver" } {
            (csrf(&session))
            button disabled[!webhook.active || !session.may_change()] { "Redeliver" }
            span .hint { (if !session.may_change() { " Your token may only read." } else if webhook.active { " The delivery is sent again under the same id, and replaces a waiting retry." } else { " The webhook is inactive." }) }
        }
        h2 { "Request" }
        p .hint { "POST " span .url { (webhook.url) } }
        @if logged.not_sent { p { "The attempt ended before the request was sent." } }
        @else { details open { summary { "Headers" } pre tabindex="0" { code { @for (name, value) in logged.request_headers() { (name) ": " (value) "\n" } } } } }
        @if !logged.not_sent {
            details {
                summary { "As a curl command" }
                div .row { button .quiet type="button" data-copy="curl" { "Copy" } }
                pre tabindex="0" { code #curl { (curl::command(webhook.url.as_str(), logged, &entry.payload)) } }
            }
        }
        details open { summary { "Payload" } pre tabindex="0" { code { (pretty(&entry.payload)) } } }
        h2 { "Response" }
        @match logged.status_code {
            Some(status) => p { "Status " (status) },
            None => p { "There was no response." },
        }
        @if !logged.response_body.is_empty() {
            details open { summary { "Body" } pre tabindex="0" { code { (logged.response_body) } } }
        }
    };
    Ok(layout("Delivery", Some(&session), Some(NavItem::Webhooks), &content))
}

/// `text` with line breaks and indentation if it is JSON, else unchanged.
pub fn pretty(text: &str) -> String {
    let value = serde_json::from_str::<serde_json::Value>(text);
    value.and_then(|value| serde_json::to_string_pretty(&value)).unwrap_or_else(|_| text.to_owned())
}

/// `POST /settings/webhooks/{id}/deliveries/{entry}/redeliver`
pub async fn redeliver(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path((id, entry)): Path<(String, String)>,
    Form(_): Form<serde::de::IgnoredAny>,
) -> Result<Redirect, Refusal> {
    let webhook = admin.find(&id).await?;
    admin.redeliver(&webhook, &entry, &who).await?;
    Ok(Redirect::to(&format!("/settings/webhooks/{}/deliveries?done=redelivered", webhook.id)))
}

/// A time in words, such as `3 days`.
fn spaced(time: std::time::Duration) -> String {
    let text = humantime::format_duration(time).to_string();
    let mut spaced = String::with_capacity(text.len() + 4);
    for (before, c) in std::iter::once(' ').chain(text.chars()).zip(text.chars()) {
        if before.is_ascii_digit() && c.is_ascii_alphabetic() {
            spaced.push(' ');
        }
        spaced.push(c);
    }
    spaced
}

/// The query that finds a task in the log.
fn search(task: &str) -> String {
    serde_html_form::to_string([("search", task)]).unwrap_or_default()
}

/// A duration. The log has whole milliseconds.
pub fn duration(ms: u64) -> String {
    if ms == 0 { "under 1 ms".to_owned() } else { format!("{ms} ms") }
}
