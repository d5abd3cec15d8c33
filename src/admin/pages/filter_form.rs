//! The filter of a webhook's form: three fields for the common conditions, one for JSON, and the page that tries it.

use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::elements::time;
use super::form::Form;
use super::layout::{NavItem, layout};
use super::webhook_form::Entered;
use crate::admin::problem::{Problem, Refusal};
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::event::EventType;
use crate::webhook::Webhook;

/// The simple conditions: the field of the event, its operator, and the id and label of its input.
const SIMPLE: [(&str, &str, &str, &str); 3] = [
    ("task.repoUrl", "glob", "filter_repo", "Repository"),
    ("task.agentType", "equals", "filter_agent", "Agent type"),
    ("task.taskType", "equals", "filter_task_type", "Task type"),
];

/// The filter as a person entered it.
#[derive(Default)]
pub struct EnteredFilter {
    pub filter_repo: String,
    pub filter_agent: String,
    pub filter_task_type: String,
    /// Any other condition, as JSON.
    pub filter: String,
}

impl EnteredFilter {
    fn simple(&self) -> [&str; 3] {
        [&self.filter_repo, &self.filter_agent, &self.filter_task_type]
    }

    /// The filter of all that was entered together, or `None` if nothing was.
    ///
    /// # Errors
    /// 400: the JSON can't be read.
    pub fn json(&self) -> Result<Option<Value>, Problem> {
        let simple = SIMPLE.iter().zip(self.simple()).filter(|(_, text)| !text.trim().is_empty());
        let mut all: Vec<Value> =
            simple.map(|((field, operator, ..), text)| condition(field, operator, text.trim())).collect();
        if !self.filter.trim().is_empty() {
            let json = serde_json::from_str(&self.filter).map_err(|error| {
                Problem::field("filter", format!("isn't JSON: {error}; leave it empty if the fields above are enough"))
            })?;
            all.push(json);
        }
        Ok(match all.len() {
            0 => None,
            1 => all.pop(),
            _ => Some(json!({ "all": all })),
        })
    }

    /// The fields for the filter of a webhook.
    pub fn of(webhook: &Webhook) -> Self {
        let Some(json) = webhook.filter.as_ref().map(|filter| filter.json()) else { return Self::default() };
        let conditions = match json.get("all") {
            Some(Value::Array(all)) => all.clone(),
            _ => vec![json.clone()],
        };
        let mut texts = [const { String::new() }; 3];
        let mut rest = Vec::new();
        for one in conditions {
            let simple = SIMPLE.iter().enumerate().find_map(|(index, (field, operator, ..))| {
                let text = one.get(*operator)?.as_str()?;
                // The fields take no empty text, no line breaks, and no spaces at the ends.
                let fits = !text.is_empty() && text == text.trim() && !text.contains(['\r', '\n']);
                let is_simple = fits && texts[index].is_empty() && one == condition(field, operator, text);
                is_simple.then(|| (index, text.to_owned()))
            });
            match simple {
                Some((index, text)) => texts[index] = text,
                None => rest.push(one),
            }
        }
        let rest = match rest.len() {
            0 => None,
            1 => rest.pop(),
            _ => Some(json!({ "all": rest })),
        };
        let filter = rest.and_then(|rest| serde_json::to_string_pretty(&rest).ok()).unwrap_or_default();
        let [filter_repo, filter_agent, filter_task_type] = texts;
        Self { filter_repo, filter_agent, filter_task_type, filter }
    }
}

fn condition(field: &str, operator: &str, text: &str) -> Value {
    Value::Object(Map::from_iter([("field".to_owned(), field.into()), (operator.to_owned(), text.into())]))
}

/// The fields for the filter, with a button that tries it.
pub fn filter_fields(entered: &EnteredFilter) -> Markup {
    html! {
        fieldset {
            legend { "Only some events " span .hint { "(optional)" } }
            p .hint { "The webhook gets an event only if all of these match. Empty fields match everything." }
            @for ((_, operator, id, label), text) in SIMPLE.iter().zip(entered.simple()) {
                div .field {
                    label for=(id) { (label) }
                    input id=(id) name=(id) maxlength="1024" value=(text)
                        placeholder=[(*operator == "glob").then_some("https://github.com/acme/*")];
                }
            }
            details open[!entered.filter.is_empty()] {
                summary { "Other conditions" }
                div .field {
                    label for="filter" { "Filter as JSON" }
                    textarea #filter name="filter" rows="4" spellcheck="false" aria-describedby="filter-hint"
                        placeholder=r#"{"field": "task.costUsd", "atLeast": 1}"# { (entered.filter) }
                    p #filter-hint .hint {
                        "A condition has a field and one of equals, oneOf, glob, exists, greaterThan, atLeast, lessThan and atMost. "
                        code { r#"{"all": […]}"# } " and " code { r#"{"any": […]}"# } " combine conditions."
                    }
                }
            }
            button .quiet type="submit" formaction="/settings/webhooks/try-filter" formtarget="_blank" formnovalidate {
                "Try it on the last 100 events"
            }
        }
    }
}

/// `POST /settings/webhooks/try-filter`: which of the newest events the filter would have let through.
pub async fn try_filter(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Form(entered): Form<Entered>,
) -> Result<Markup, Refusal> {
    let filter = entered.filter().json()?;
    let events: Vec<EventType> = entered.events.iter().filter_map(|name| EventType::named(name)).collect();
    let tried = admin.try_filter(filter.clone(), events).await?;
    let content = html! {
        h1 { "Filter on the last events" }
        p role="status" { (tried.matching) " of the last " (tried.events.len()) " events would have been sent. Nothing was saved or sent." }
        @if let Some(filter) = filter { pre { code { (serde_json::to_string_pretty(&filter).unwrap_or_default()) } } }
        @if tried.events.is_empty() {
            p { "The topic has no events yet, or the newest are none that webhooks can subscribe to." }
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Events" {
                table {
                    thead { tr { th { "Sent" } th { "Event" } th { "Task" } th { "Repository" } th { "Agent" } th { "Time" } } }
                    tbody {
                        @for event in &tried.events {
                            tr {
                                td { @if event.matches { span .badge.ok { "Yes" } } @else { span .badge.idle { "No" } } }
                                td { (event.event.as_str()) }
                                td { (event.title.as_deref().unwrap_or(&event.task_id)) }
                                td { (event.repo_url.as_deref().unwrap_or_default()) }
                                td { (event.agent_type.as_deref().unwrap_or_default()) }
                                td { (time(&event.written_at)) }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(layout("Filter", Some(&session), Some(NavItem::Webhooks), &content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::filter::Filter;

    #[test]
    fn a_filter_survives_its_form() {
        for filter in [
            json!({ "field": "task.repoUrl", "glob": "*acme*" }),
            json!({ "all": [{ "field": "task.agentType", "equals": "codex" }, { "field": "task.costUsd", "atLeast": 1 }] }),
            json!({ "any": [{ "field": "task.repoUrl", "glob": "*" }, { "field": "event", "exists": true }] }),
            json!({ "field": "task.prNumber", "equals": 7 }),
            json!({ "field": "task.agentType", "equals": "" }),
            json!({ "all": [{ "field": "task.agentType", "equals": " codex " }, { "field": "task.taskType", "equals": "a\nb" }] }),
        ] {
            let mut webhook = Webhook::new("https://example.com/".parse().unwrap(), vec![EventType::TaskFailed], 0);
            webhook.filter = Some(Filter::read(filter.clone()).unwrap());
            assert_eq!(EnteredFilter::of(&webhook).json().unwrap(), Some(filter));
        }
        assert_eq!(EnteredFilter::default().json().unwrap(), None);
    }
}
