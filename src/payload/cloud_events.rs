//! Renders the payload as a CloudEvent in the structured JSON format.
//!
//! Source: CloudEvents 1.0.2, "Context Attributes", and its JSON event format.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::Event;

/// The media type of a CloudEvent in JSON.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// The sources of events about tasks and about webhooks, if `webhooks.public_url` is empty. They are URI references.
const TASKS: &str = "/optio/tasks";
const WEBHOOKS: &str = "/optio/webhooks";

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

/// Renders an event. `id` and `source` together are the same for every delivery and attempt of the event.
#[must_use]
pub fn body(event: &Event, public_url: &str) -> Bytes {
    #[derive(serde::Deserialize)]
    struct Timed {
        timestamp: Option<String>,
    }
    let timestamp = serde_json::from_slice::<Timed>(&event.body).ok().and_then(|timed| timed.timestamp);
    let data = serde_json::from_slice::<&RawValue>(&event.body).unwrap_or(RawValue::NULL);
    let body = CloudEvent {
        specversion: "1.0",
        id: &event.id,
        source: match public_url {
            "" if event.event_type.is_operational() => WEBHOOKS,
            "" => TASKS,
            url => url,
        },
        r#type: format!("dev.optio.{}", event.event_type.as_str()),
        // An attribute that is present must not be empty.
        subject: Some(&*event.task_id).filter(|id| !id.is_empty()),
        time: timestamp.as_deref().filter(|time| humantime::parse_rfc3339(time).is_ok()),
        datacontenttype: "application/json",
        data,
    };
    serde_json::to_vec(&body).expect("texts always serialize").into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::message::tests::{hostile, payload};
    use super::*;
    use crate::event::EventType;

    fn event(id: &str, task_id: &str, body: Vec<u8>) -> Event {
        Event {
            id: id.into(),
            task_id: task_id.into(),
            event_type: EventType::TaskFailed,
            body: body.into(),
            classic: None,
            not_understood: vec![],
        }
    }

    #[test]
    fn the_attributes_name_the_event_and_data_is_the_payload() {
        let payload = br#"{"event":"task.failed","taskId":"t1","task":null,"timestamp":"2025-03-26T10:12:34Z"}"#;
        let body = body(&event("e1", "t1", payload.to_vec()), "");
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({
                "specversion": "1.0", "id": "e1", "source": "/optio/tasks", "type": "dev.optio.task.failed",
                "subject": "t1", "time": "2025-03-26T10:12:34Z", "datacontenttype": "application/json",
                "data": serde_json::from_slice::<Value>(payload).unwrap(),
            })
        );
    }

    /// The constraints of CloudEvents' JSON schema on the attributes that are used.
    fn schema() -> Value {
        let text = json!({ "type": "string", "minLength": 1 });
        json!({
            "type": "object", "required": ["id", "source", "specversion", "type"], "additionalProperties": false,
            "properties": {
                "id": text, "source": { "type": "string", "minLength": 1, "format": "uri-reference" },
                "specversion": { "const": "1.0" }, "type": text, "subject": text, "datacontenttype": text,
                "time": { "type": "string", "format": "date-time" }, "data": { "type": "object" },
            },
        })
    }

    #[test]
    fn every_event_is_a_valid_cloud_event() {
        let schema = jsonschema::draft202012::options().should_validate_formats(true).build(&schema()).unwrap();
        for text in hostile() {
            for public_url in ["", "https://optio.example.com/"] {
                let body = body(&event("e1", &text, payload(&text)), public_url);
                let value = serde_json::from_slice(&body).unwrap();
                let errors: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{errors:?}");
            }
        }
    }
}
