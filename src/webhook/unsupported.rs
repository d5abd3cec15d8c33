//! A webhook that this version can't read: a newer one wrote it, with an event type or a format of its own.
//!
//! Nothing can be sent to it, and nothing of it may be lost: its deliveries wait until a version that can read it
//! takes over, or until it is changed or removed.

use serde_json::Value;
use url::Url;

use super::WebhookId;
use crate::event::EventType;
use crate::payload::PayloadFormat;

/// Characters of what is wrong that are shown.
const PROBLEM_MAX: usize = 200;

/// What a body looks like depends on these.
pub type Shape = (PayloadFormat, Url);

/// What can be told of such a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Its identity.
    pub id: WebhookId,
    /// What can't be read, for people; without its secret.
    pub problem: String,
    /// What its body looks like and where it goes, if both can be read.
    pub shape: Option<Shape>,
    /// Whether it is active, as far as can be told.
    pub active: bool,
    /// Those of its events that this version knows; None where it may want any.
    events: Option<Vec<EventType>>,
}

impl Unsupported {
    /// Reads what can be read of it. `problem` is why the whole can't be.
    #[must_use]
    pub fn read(id: WebhookId, json: &[u8], problem: &serde_json::Error) -> Self {
        let value: Value = serde_json::from_slice(json).unwrap_or_default();
        let format = value.get("format").and_then(|format| serde_json::from_value(format.clone()).ok());
        let url = value.get("url").and_then(|url| serde_json::from_value(url.clone()).ok());
        Self {
            id,
            // Serde echoes the value that it can't read: bounded, and never the secret's, which is any text.
            problem: problem.to_string().chars().take(PROBLEM_MAX).collect(),
            shape: format.zip(url),
            active: value.get("active") != Some(&Value::Bool(false)),
            events: known_events(&value),
        }
    }

    /// Whether it may want to be told of `event`.
    #[must_use]
    pub fn may_want(&self, event: EventType) -> bool {
        self.active && self.events.as_ref().is_none_or(|events| events.contains(&event))
    }
}

/// None where the list can't be read: then any event may be wanted. A type of a newer version has no events here.
fn known_events(webhook: &Value) -> Option<Vec<EventType>> {
    let events = webhook.get("events")?.as_array()?;
    let names: Option<Vec<&str>> = events.iter().map(Value::as_str).collect();
    Some(names?.into_iter().filter_map(EventType::named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(json: &str) -> Unsupported {
        let id = WebhookId(uuid::Uuid::from_u128(1));
        Unsupported::read(
            id,
            json.as_bytes(),
            &serde_json::from_slice::<super::super::Webhook>(json.as_bytes()).unwrap_err(),
        )
    }

    #[test]
    fn what_can_be_read_of_it_says_which_events_it_may_want() {
        let newer = held(
            r#"{"events":["task.failed","task.archived"],"format":"optio","url":"https://example.com/","active":true}"#,
        );
        assert!(newer.may_want(EventType::TaskFailed) && !newer.may_want(EventType::TaskCompleted));
        assert_eq!(newer.shape.map(|(format, _)| format), Some(PayloadFormat::Optio));
        for any in ["", "{", "[]", "null", r#"{"events":"all"}"#, r#"{"events":[{"type":"task.failed"}]}"#, "{}"] {
            assert!(held(any).may_want(EventType::TaskCompleted), "{any}");
        }
        assert_eq!(held(r#"{"format":"teams"}"#).shape, None);
        assert!(!held(r#"{"active":false,"format":"teams"}"#).may_want(EventType::TaskFailed));
        assert!(held(&format!(r#"{{"id":"{}"}}"#, "x".repeat(9_000))).problem.len() <= PROBLEM_MAX);
    }
}
