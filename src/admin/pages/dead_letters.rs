//! The pages of dead letters and of their replays.

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::deliveries::pretty;
use super::elements::{csrf, only_reads, option, time};
use super::form::Form;
use super::layout::{NavItem, flash, layout};
use super::webhook::WebhookQuery;
use crate::admin::problem::{Problem, Refusal};
use crate::admin::replays::{ReplayRequest, ReplayState, ReplayStatus, place};
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::delivery::DeadReason;
use crate::event::EventType;
use crate::replay::browse::{Cursor, ListedDeadLetter};
use crate::store::audit::Author;

/// The number of dead letters on a page.
const PAGE_LEN: usize = 50;

/// The filters of the list, and the choices of the replay form. A form sends an empty text for a filter that isn't set.
#[derive(Deserialize, Default, Clone)]
#[serde(default)]
pub struct FilterForm {
    webhook: String,
    event: String,
    reason: String,
    delivery: String,
    since: String,
    until: String,
    cursor: String,
    /// Replay only the dead letter with this id.
    letter: String,
    /// Replay every dead letter.
    all: bool,
    /// Also replay what was replayed before.
    again: bool,
    /// Send what the webhook missed.
    missed: bool,
}

impl FilterForm {
    fn request(&self) -> Result<ReplayRequest, Problem> {
        fn read<T: serde::de::DeserializeOwned>(field: &str, text: &str) -> Result<Option<T>, Problem> {
            if text.trim().is_empty() {
                return Ok(None);
            }
            let value = serde_json::Value::from(text.trim());
            serde_json::from_value(value).map(Some).map_err(|error| Problem::field(field, error))
        }
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Ok(ReplayRequest {
            webhook: read("webhook", &self.webhook)?,
            event: read("event", &self.event)?,
            reason: read("reason", &self.reason)?,
            delivery: read("delivery", &self.delivery)?,
            letter: text(&self.letter),
            since: text(&self.since),
            until: text(&self.until),
            all: self.all,
            again: self.again,
            missed: self.missed,
            ..ReplayRequest::default()
        })
    }

    fn fields(&self) -> [(&'static str, &str); 6] {
        [
            ("webhook", &self.webhook),
            ("event", &self.event),
            ("reason", &self.reason),
            ("delivery", &self.delivery),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    fn next_page(&self, cursor: &Cursor) -> String {
        let cursor = cursor.to_string();
        let fields = self.fields().into_iter().chain([("cursor", cursor.as_str())]);
        serde_html_form::to_string(fields.collect::<Vec<_>>()).unwrap_or_default()
    }
}

/// `GET /dead-letters`
pub async fn list(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Refusal> {
    let query: FilterForm = Form::of_query(query.as_deref())?;
    let choice = query.request()?.choice()?;
    let is_everything = choice.is_everything();
    let cursor = Some(query.cursor.as_str()).filter(|cursor| !cursor.is_empty());
    let page = admin.dead_letters(choice, cursor, PAGE_LEN).await?;
    let content = html! {
        h1 { "Dead letters" }
        p .hint { "Nothing here is tried again by itself: deliveries whose attempts are used up or that are too old, and records that couldn't be read." }
        (toolbar(&query))
        @if page.dead_letters.is_empty() {
            p .empty { (if page.next.is_some() { "No dead letter matches so far. The next page continues the search." } else if is_everything { "There are no dead letters: every event was delivered or is still being tried." } else { "No dead letter matches this filter." }) }
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Dead letters" {
                table {
                    thead { tr { th scope="col" { "Reason" } th scope="col" { "Event" } th scope="col" { "Webhook" } th scope="col" { "Died" } th scope="col" { "Replays" } th scope="col" { span .visually-hidden { "Details" } } } }
                    tbody { @for letter in &page.dead_letters { (row(letter)) } }
                }
            }
        }
        @if let Some(next) = &page.next {
            nav .pager aria-label="Pages" { a href={ "?" (query.next_page(next)) } rel="next" { "More" } }
        }
        @if session.may_change() { (replay_form(&session, &query, is_everything)) } @else { (only_reads(&session)) }
        (replay_list(&admin.replays.all()))
    };
    Ok(layout("Dead letters", Some(&session), Some(NavItem::DeadLetters), &content))
}

fn toolbar(query: &FilterForm) -> Markup {
    html! {
        form .toolbar method="get" {
            div .field {
                label for="reason" { "Reason" }
                select #reason name="reason" {
                    (option("", "All", &query.reason))
                    @for reason in DeadReason::ALL { (option(reason.as_str(), reason.as_str(), &query.reason)) }
                }
            }
            div .field {
                label for="event" { "Event" }
                select #event name="event" {
                    (option("", "All", &query.event))
                    @for event in EventType::ALL { (option(event.as_str(), event.as_str(), &query.event)) }
                }
            }
            div .field { label for="webhook" { "Webhook id" } input #webhook name="webhook" value=(query.webhook); }
            div .field { label for="since" { "Since" } input #since name="since" value=(query.since) placeholder="2h or 2026-11-24T10:00:00Z"; }
            div .field { label for="until" { "Until" } input #until name="until" value=(query.until); }
            button .quiet { "Filter" }
        }
    }
}

fn row(letter: &ListedDeadLetter) -> Markup {
    html! {
        tr {
            td data-label="Reason" { span .badge.bad { (letter.reason.map_or("unknown", DeadReason::as_str)) } @if let Some(detail) = &letter.detail { div .hint { (detail) } } }
            td data-label="Event" { (letter.event.map_or("–", EventType::as_str)) }
            td data-label="Webhook" { @match letter.webhook_id { Some(id) => a href={ "/settings/webhooks/" (id) } { code { (id) } }, None => "–" } }
            td data-label="Died" { (time(&letter.died_at)) }
            td data-label="Replays" { (letter.replays) }
            td data-label="" { a href={ "/dead-letters/" (letter.id) } aria-label={ "Details of dead letter " (letter.id) } { "Details" } }
        }
    }
}

fn replay_form(session: &Session, query: &FilterForm, is_everything: bool) -> Markup {
    html! {
        form .card method="post" action="/dead-letters/replay" data-confirm=(if is_everything { "Replay every dead letter?" } else { "Replay every dead letter that matches this filter?" }) {
            (csrf(session))
            h2 { "Replay" }
            p { (if is_everything { "Sends every dead letter again" } else { "Sends every dead letter that matches this filter again" })
                ", beginning with attempt 1, at the pace of each endpoint. Those that were replayed before are skipped." }
            @for (name, value) in query.fields() { input type="hidden" name=(name) value=(value); }
            @if is_everything { input type="hidden" name="all" value="true"; }
            div .choice {
                input type="checkbox" id="again" name="again" value="true";
                label for="again" { "Also those that were replayed before" }
            }
            button { (if is_everything { "Replay all" } else { "Replay matching" }) }
        }
    }
}

fn replay_list(replays: &[ReplayStatus]) -> Markup {
    html! {
        @if !replays.is_empty() {
            h2 { "Replays" }
            ul {
                @for replay in replays {
                    li { a href={ "/dead-letters/replays/" (replay.id) } { (time(&replay.started_at)) } ": " (state_name(replay.state)) ", " (replay.replayed) " replayed" }
                }
            }
        }
    }
}

fn state_name(state: ReplayState) -> &'static str {
    match state {
        ReplayState::Running => "running",
        ReplayState::Done => "done",
        ReplayState::Interrupted => "interrupted",
    }
}

/// `GET /dead-letters/{partition}/{offset}`
pub async fn show(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path((partition, offset)): Path<(String, String)>,
) -> Result<Markup, Refusal> {
    let (partition, offset) = place(&partition, &offset).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "There is no such dead letter: its address has a partition and an offset.")
    })?;
    let letter = admin.dead_letter(partition, offset).await?;
    let content = html! {
        nav .crumbs aria-label="Breadcrumb" { a href="/dead-letters" { "Dead letters" } }
        div .row { h1 { (letter.event.map_or("Unreadable record", EventType::as_str)) } span .badge.bad { (letter.reason.map_or("unknown", DeadReason::as_str)) } }
        dl .facts {
            @if let Some(detail) = &letter.detail { dt { "Why" } dd { (detail) } }
            dt { "Died" } dd { (time(&letter.died_at)) }
            @if let Some(webhook) = letter.webhook_id { dt { "Webhook" } dd { a href={ "/settings/webhooks/" (webhook) } { code { (webhook) } } } }
            @if let Some(delivery) = letter.delivery_id { dt { "Delivery" } dd { code { (delivery) } } }
            dt { "Replays" } dd { (letter.replays) }
        }
        @if letter.reason.is_some() && session.may_change() {
            form method="post" action="/dead-letters/replay" {
                (csrf(&session))
                input type="hidden" name="letter" value=(letter.id);
                div .choice {
                    input type="checkbox" id="again" name="again" value="true";
                    label for="again" { "Even if it was replayed before" }
                }
                button { "Replay this one" }
            }
        }
        h2 { "Payload" }
        pre tabindex="0" { code { (pretty(&letter.payload)) } }
        h2 { "Headers" }
        pre tabindex="0" { code { @for (name, value) in &letter.headers { (name) ": " (value) "\n" } } }
    };
    Ok(layout("Dead letter", Some(&session), Some(NavItem::DeadLetters), &content))
}

/// `POST /dead-letters/replay`
pub async fn replay(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Form(form): Form<FilterForm>,
) -> Result<Redirect, Refusal> {
    let replay = admin.replay(form.request()?, &who).await?;
    Ok(Redirect::to(&format!("/dead-letters/replays/{}", replay.id)))
}

/// `GET /dead-letters/replays/{id}`
pub async fn progress(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Refusal> {
    let WebhookQuery { done } = Form::of_query(query.as_deref())?;
    let replay = admin.replays.get(&id)?;
    let is_running = replay.state == ReplayState::Running;
    let content = html! {
        nav .crumbs aria-label="Breadcrumb" { a href="/dead-letters" { "Dead letters" } }
        (flash(done.as_deref()))
        section #replay .card data-refresh=[is_running.then_some("1")] aria-live="polite" {
            h1 { "Replay " (state_name(replay.state)) }
            @if let Some(error) = &replay.error { p .flash.bad { (error) } }
            progress .meter max=(replay.total.max(1)) value=(if is_running { replay.looked_at } else { replay.total.max(1) }) aria-label="Records looked at" {}
            dl .facts {
                dt { "Replayed" } dd { (replay.replayed) }
                dt { "Looked at" } dd { (replay.looked_at) " of " (replay.total) }
                dt { "Skipped" } dd { (replay.replayed_before) " replayed before, " (replay.webhook_gone) " of webhooks that are deleted or inactive" }
                dt { "Began" } dd { (time(&replay.started_at)) }
            }
            @if is_running {
                @if session.may_change() {
                    form method="post" action={ "/dead-letters/replays/" (replay.id) "/stop" } { (csrf(&session)) button .quiet { "Stop" } }
                }
                p .hint { "You can start the same replay again at any time. Nothing is replayed twice." }
            }
        }
    };
    Ok(layout("Replay", Some(&session), Some(NavItem::DeadLetters), &content))
}

/// `POST /dead-letters/replays/{id}/stop`
pub async fn stop(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    Form(_): Form<serde::de::IgnoredAny>,
) -> Result<Redirect, Refusal> {
    admin.stop_replay(&id, &who).await?;
    Ok(Redirect::to(&format!("/dead-letters/replays/{id}?done=stopped")))
}
