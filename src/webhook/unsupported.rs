//! An unsupported webhook: a newer version wrote it, for example with a new event type or format, and this version
//! can't read it; or its secret is sealed with a key that this process doesn't have.
//!
//! Nothing can be sent to it, and none of its deliveries may be lost. They wait until a process that can read the
//! webhook takes over, or until the webhook is changed or removed. If it is inactive, it misses them, as any other does.

use serde_json::Value;
use url::Url;

use super::WebhookId;
use crate::event::EventType;
use crate::payload::PayloadFormat;

/// The longest problem that is shown, in characters.
const PROBLEM_MAX: usize = 200;
/// The longest time that is read, in characters. RFC 3339 with milliseconds has 24.
const TIME_MAX: usize = 40;

/// The format and the URL, on which the body of a request depends.
pub type Shape = (PayloadFormat, Url);

/// The readable part of an unsupported webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The webhook's identity.
    pub id: WebhookId,
    /// Why the webhook can't be read, for people and without its secret.
    pub problem: String,
    /// The format and the URL, if both can be read.
    pub shape: Option<Shape>,
    /// Whether the webhook is active. It counts as active unless `active` is false.
    pub active: bool,
    /// Whether its deliveries wait while it is inactive.
    pub hold: bool,
    /// When it was last changed, as it is written there.
    pub updated_at: String,
    /// The event types that the webhook subscribes to and this version knows, or `None` if they can't be read.
    events: Option<Vec<EventType>>,
}

impl Unsupported {
    /// Reads the readable part of a webhook. `problem` says why the whole webhook can't be read.
    #[must_use]
    pub fn read(id: WebhookId, json: &[u8], problem: &dyn std::fmt::Display) -> Self {
        let value: Value = serde_json::from_slice(json).unwrap_or_default();
        let format = value.get("format").and_then(|format| serde_json::from_value(format.clone()).ok());
        let url = value.get("url").and_then(|url| serde_json::from_value(url.clone()).ok());
        Self {
            id,
            // Serde repeats the value that it can't read, so the text is bounded. A secret isn't repeated, because any
            // text can be read as a secret.
            problem: problem.to_string().chars().take(PROBLEM_MAX).collect(),
            shape: format.zip(url),
            active: value.get("active") != Some(&Value::Bool(false)),
            hold: value.get("hold") == Some(&Value::Bool(true)),
            updated_at: value.get("updatedAt").and_then(Value::as_str).unwrap_or("").chars().take(TIME_MAX).collect(),
            events: known_events(&value),
        }
    }

    /// Whether its deliveries wait until the webhook can be read. Otherwise it is inactive, and misses them.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.active || self.hold
    }

    /// Whether the webhook may subscribe to `event`.
    #[must_use]
    pub fn may_want(&self, event: EventType) -> bool {
        self.events.as_ref().is_none_or(|events| events.contains(&event))
    }
}

/// Returns the event types that this version knows, or `None` if the list can't be read. In that case the webhook may
/// subscribe to any event. Event types of a newer version are left out, because this version has no such events.
fn known_events(webhook: &Value) -> Option<Vec<EventType>> {
    let events = webhook.get("events")?.as_array()?;
    let names: Option<Vec<&str>> = events.iter().map(Value::as_str).collect();
    Some(names?.into_iter().filter_map(EventType::named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsupported(json: &str) -> Unsupported {
        let id = WebhookId(uuid::Uuid::from_u128(1));
        Unsupported::read(
            id,
            json.as_bytes(),
            &serde_json::from_slice::<super::super::stored::StoredWebhook>(json.as_bytes()).unwrap_err(),
        )
    }

    #[test]
    fn the_readable_part_decides_which_events_a_webhook_may_want() {
        let newer = unsupported(
            r#"{"events":["task.failed","task.archived"],"format":"optio","url":"https://example.com/","active":true}"#,
        );
        assert!(newer.may_want(EventType::TaskFailed) && !newer.may_want(EventType::TaskCompleted));
        assert_eq!(newer.shape.map(|(format, _)| format), Some(PayloadFormat::Optio));
        for any in ["", "{", "[]", "null", r#"{"events":"all"}"#, r#"{"events":[{"type":"task.failed"}]}"#, "{}"] {
            assert!(unsupported(any).may_want(EventType::TaskCompleted), "{any}");
        }
        assert_eq!(unsupported(r#"{"format":"newer"}"#).shape, None);
        assert!(!unsupported(r#"{"active":false,"format":"newer"}"#).waits());
        assert!(unsupported(r#"{"active":false,"hold":true,"format":"newer"}"#).waits());
        assert!(unsupported(r#"{"active":"no","format":"newer"}"#).waits());
        assert!(unsupported(&format!(r#"{{"id":"{}"}}"#, "x".repeat(9_000))).problem.len() <= PROBLEM_MAX);
    }
}
