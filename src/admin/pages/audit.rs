//! The audit log: who changed what, when and from where.

use axum::Extension;
use axum::extract::{RawQuery, State};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::elements::time;
use super::form::Form;
use super::layout::{NavItem, layout};
use crate::admin::problem::{Problem, Refusal};
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::store::audit::{Action, Author, Entry, Via};
use crate::store::log::EntryId;

/// The number of entries on a page.
const PAGE_LEN: usize = 50;

/// The query of the page.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct AuditQuery {
    before: String,
}

/// `GET /audit`
pub async fn list(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Refusal> {
    let AuditQuery { before } = Form::of_query(query.as_deref())?;
    let before = Some(before).filter(|before| !before.is_empty()).map(|before| before.parse::<EntryId>());
    let before = before.transpose().map_err(|error| Problem::field("before", error))?;
    let page = admin.audit.page(before, PAGE_LEN).await?;
    let content = html! {
        h1 { "Audit" }
        p .hint { "About the newest " (admin.config.admin.audit_entries_max) " actions are kept. Secrets are masked." }
        @if page.entries.is_empty() {
            p .empty { "Nothing has been recorded yet." }
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Audit log" {
                table {
                    thead { tr { th scope="col" { "Time" } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "To what" } th scope="col" { "Values" } } }
                    tbody { @for entry in &page.entries { (row(entry)) } }
                }
            }
        }
        @if let Some(next) = &page.next {
            nav .pager aria-label="Pages" { a href={ "?before=" (next) } rel="next" { "Older" } }
        }
    };
    Ok(layout("Audit", Some(&session), Some(NavItem::Audit), &content))
}

fn row(entry: &Entry) -> Markup {
    let record = &entry.record;
    let values = values(record.old.as_ref(), record.new.as_ref());
    html! {
        tr {
            td data-label="Time" { (time(&entry.at)) }
            td data-label="Who" { (who(&record.who)) }
            td data-label="What" { (what(record.what)) }
            td data-label="To what" { @match &record.target { Some(target) => code { (target) }, None => "–" } }
            td data-label="Values" {
                @for (name, old, new) in &values { div .hint { (name) ": " (old) @if let Some(new) = new { " → " (new) } } }
                @if values.is_empty() { "–" }
            }
        }
    }
}

fn who(author: &Author) -> Markup {
    html! {
        (author.name.as_deref().unwrap_or("unknown"))
        div .hint {
            (match author.via {
                Via::Session => "page",
                Via::Bearer => "API",
                Via::CommandLine => "command line",
            })
            @if let Some(address) = &author.address { ", " (address) }
        }
    }
}

fn what(action: Action) -> &'static str {
    match action {
        Action::WebhookAdded => "webhook added",
        Action::WebhookChanged => "webhook changed",
        Action::WebhookRemoved => "webhook removed",
        Action::SecretRotated => "secret rotated",
        Action::SecretsResealed => "secrets sealed again",
        Action::WebhooksDeclared => "webhooks declared complete",
        Action::TestSent => "test event sent",
        Action::Redelivered => "redelivered",
        Action::ReplayStarted => "replay started",
        Action::ReplayStopped => "replay stopped",
        Action::SignedIn => "signed in",
        Action::SignInFailed => "sign-in failed",
        Action::SignedOut => "signed out",
        Action::SessionsRevoked => "all sessions ended",
    }
}

/// The fields that differ, with their old and new values. If there is only one side, its fields that are set.
fn values(old: Option<&Value>, new: Option<&Value>) -> Vec<(String, String, Option<String>)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let is_set = |value: &Value| !value.is_null() && *value != Value::Bool(false);
    let fields = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    match (old, new) {
        (Some(_), Some(_)) => {
            let (old, mut new) = (fields(old), fields(new));
            let changed = old.into_iter().filter_map(|(name, old)| {
                let new = new.remove(&name).unwrap_or(Value::Null);
                (old != new && name != "updatedAt").then(|| (name, text(&old), Some(text(&new))))
            });
            let mut changed: Vec<_> = changed.collect();
            // Fields that are left out if they aren't set.
            let added = new.into_iter().filter(|(_, value)| is_set(value));
            changed.extend(added.map(|(name, value)| (name, text(&Value::Null), Some(text(&value)))));
            changed
        }
        (one, other) => {
            let fields = fields(one.or(other)).into_iter().filter(|(_, value)| is_set(value));
            fields.map(|(name, value)| (name, text(&value), None)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_shown_of_a_change() {
        let (old, new) = (json!({ "url": "a", "active": true }), json!({ "url": "a", "active": false }));
        let changed = ("active".to_owned(), "true".to_owned(), Some("false".to_owned()));
        assert_eq!(values(Some(&old), Some(&new)), [changed]);
        let held = json!({ "url": "a", "active": true, "hold": true });
        let hold = ("hold".to_owned(), "null".to_owned(), Some("true".to_owned()));
        assert_eq!(values(Some(&old), Some(&held)), [hold]);
        let added = [("url".to_owned(), "a".to_owned(), None)];
        assert_eq!(values(None, Some(&new)), added);
    }
}
