//! The requests that webhooks get, as the `webhooks` section of the API's description (OpenAPI 3.1).

use serde_json::{Value, json};

use super::idempotency;
use crate::event::EventType;

/// Adds the `webhooks` section to a description, and the schemas that it refers to.
pub fn describe(mut document: Value) -> Value {
    let webhooks: serde_json::Map<String, Value> =
        EventType::ALL.into_iter().map(|event| (event.as_str().to_owned(), operation(event))).collect();
    document["webhooks"] = webhooks.into();
    for (name, schema) in schemas() {
        document["components"]["schemas"][name] = schema;
    }
    idempotency::describe(&mut document);
    document
}

/// The schema of the format cloudevents, which has a media type of its own.
const CLOUD_EVENT: &str = "CloudEvent";
/// The variable of a Slack workflow that is there only if an address is set.
const TASK_URL: &str = "task_url";
/// The schemas that only events about tasks have, and those that only operational events have.
const OF_TASKS: [&str; 2] = ["OptioPayload", "OptioClassicPayload"];
const OF_WEBHOOKS: [&str; 2] = ["OperationalPayload", "OperationalClassicPayload"];

fn operation(event: EventType) -> Value {
    // `task.completed` becomes `onTaskCompleted`.
    let words = event.as_str().split(['.', '_']);
    let capitalised = words.map(|word| word[..1].to_uppercase() + &word[1..]);
    let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let names = schemas().map(|(name, _)| name);
    let other = if event.is_operational() { OF_TASKS } else { OF_WEBHOOKS };
    let is_body = |name: &&str| *name != CLOUD_EVENT && !other.contains(name);
    let one_of: Vec<Value> = names.into_iter().filter(is_body).map(schema).collect();
    json!({ "post": {
        "operationId": format!("on{}", capitalised.collect::<String>()),
        "summary": event.explanation(),
        "description": "Sent to each webhook that subscribes to this event type. The format of the webhook decides which body it gets. Docs: reference.md, section The webhook request.",
        "parameters": headers(),
        "requestBody": { "required": true, "content": {
            "application/json": { "schema": { "oneOf": one_of } },
            "application/cloudevents+json": { "schema": schema(CLOUD_EVENT) }
        } },
        "responses": {
            "2XX": { "description": "The delivery has arrived." },
            "410": { "description": "The endpoint is gone for good: the webhook is disabled." },
            "default": { "description": "The delivery is tried again later." }
        }
    } })
}

fn headers() -> Value {
    let header = |name: &str, required: bool, description: &str| json!({ "name": name, "in": "header", "required": required, "description": description, "schema": { "type": "string" } });
    json!([
        header("X-Optio-Event", true, "The event type."),
        header(
            "X-Optio-Delivery",
            true,
            "The delivery id, a UUID: the same on every attempt and replay. Receivers deduplicate on it."
        ),
        header("X-Optio-Attempt", true, "The number of the attempt, from 1."),
        header(
            "X-Optio-Signature",
            false,
            "sha256= and the hex of HMAC-SHA256 over the body, if the webhook has a shared secret. With the format optio-classic, the hex alone."
        ),
        header("webhook-id", false, "The delivery id, if the webhook has a secret (Standard Webhooks)."),
        header("webhook-timestamp", false, "When the attempt began, in Unix seconds, if the webhook has a secret."),
        header(
            "webhook-signature",
            false,
            "The signatures of Standard Webhooks, separated by spaces, if the webhook has a secret."
        ),
        header("traceparent", false, "The W3C trace context of the event, if it carried one."),
    ])
}

/// The schemas of all bodies, one for each format and shape.
fn schemas() -> [(&'static str, Value); 9] {
    let text = || json!({ "type": ["string", "null"] });
    let events = EventType::TASKS.map(EventType::as_str);
    let operational_events = EventType::OPERATIONAL.map(EventType::as_str);
    let object = |description: &str, properties: Value, optional: &[&str]| {
        let names = properties.as_object().expect("it is an object").keys();
        let required: Vec<&String> = names.filter(|name| !optional.contains(&name.as_str())).collect();
        json!({ "type": "object", "description": description, "required": required, "properties": properties })
    };
    let task = object(
        "The task after the transition. Unknown values are null.",
        json!({
            "id": { "type": "string" }, "title": text(), "state": { "type": "string" }, "repoUrl": text(),
            "prUrl": text(), "prNumber": { "type": ["integer", "null"], "minimum": 0 }, "agentType": text(),
            "costUsd": text(), "createdAt": text(), "completedAt": text(), "errorMessage": { "type": "string" },
        }),
        &["errorMessage"],
    );
    let optio = object(
        "The body of format optio.",
        json!({ "event": { "enum": events }, "taskId": { "type": "string" }, "task": task, "timestamp": text() }),
        &[],
    );
    let classic_data = object(
        "The transition, as Optio's built-in worker describes it.",
        json!({
            "taskId": { "type": "string" }, "taskTitle": text(), "repoUrl": text(), "repoBranch": text(),
            "fromState": text(), "toState": { "type": "string" }, "prUrl": { "type": "string" },
            "errorMessage": { "type": "string" }, "taskType": text(),
        }),
        &["prUrl", "errorMessage"],
    );
    let classic = object(
        "The body of format optio-classic.",
        json!({ "event": { "enum": events }, "timestamp": text(), "data": classic_data }),
        &[],
    );
    let subject = object(
        "The webhook that the event is about.",
        json!({ "id": { "type": "string", "format": "uuid" }, "description": text(), "host": text() }),
        &[],
    );
    let operational = object(
        "The body of format optio for an event about a webhook.",
        json!({
            "event": { "enum": operational_events }, "webhook": subject, "reason": { "type": "string" },
            "since": { "type": "string" }, "affected": { "type": "integer", "minimum": 0 }, "url": text(),
            "timestamp": { "type": "string" },
        }),
        &[],
    );
    let operational_classic = object(
        "The body of format optio-classic for an event about a webhook.",
        json!({
            "event": { "enum": operational_events }, "timestamp": { "type": "string" },
            "data": { "$ref": "#/components/schemas/OperationalPayload" },
        }),
        &[],
    );
    let slack = object(
        "The body of format slack: a message made of blocks.",
        json!({ "text": { "type": "string" }, "blocks": { "type": "array", "items": { "type": "object" } } }),
        &[],
    );
    let variables = [
        "event",
        "text",
        "task_id",
        "title",
        "state",
        "repo_url",
        "pr_url",
        "pr_number",
        "agent_type",
        "cost_usd",
        "error_message",
        "timestamp",
    ];
    let variables = variables.into_iter().chain([TASK_URL]);
    let variables = variables.map(|name| (name.to_owned(), json!({ "type": "string" })));
    let slack_variables = object(
        "The body of format slack for a workflow's URL: flat variables, all of them text.",
        Value::Object(variables.collect()),
        &[TASK_URL],
    );
    let discord = object(
        "The body of format discord: a message with one embed.",
        json!({ "embeds": { "type": "array", "items": { "type": "object" } }, "allowed_mentions": { "type": "object" } }),
        &[],
    );
    let teams = object(
        "The body of format teams: a message with one Adaptive Card.",
        json!({ "type": { "const": "message" }, "attachments": { "type": "array", "items": { "type": "object" } } }),
        &[],
    );
    let cloud_event = object(
        "The body of format cloudevents: a CloudEvent 1.0. Its data is the body of format optio.",
        json!({
            "specversion": { "const": "1.0" }, "id": { "type": "string" }, "source": { "type": "string" },
            "type": { "type": "string" }, "subject": { "type": "string" }, "time": { "type": "string" },
            "datacontenttype": { "const": "application/json" }, "data": { "oneOf": [{ "$ref": "#/components/schemas/OptioPayload" }, { "$ref": "#/components/schemas/OperationalPayload" }] },
        }),
        &["subject", "time"],
    );
    [
        ("OptioPayload", optio),
        ("OptioClassicPayload", classic),
        ("OperationalPayload", operational),
        ("OperationalClassicPayload", operational_classic),
        ("SlackMessage", slack),
        ("SlackWorkflowVariables", slack_variables),
        ("DiscordMessage", discord),
        ("TeamsMessage", teams),
        (CLOUD_EVENT, cloud_event),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Decoded, Event, Limits, decode, sample};
    use crate::operational;
    use crate::payload::{Bodies, PayloadFormat};
    use crate::position::{RecordPosition, TimestampMs};
    use crate::webhook::Webhook;

    fn sample_event(event_type: EventType) -> Event {
        if event_type.is_operational() {
            let webhook = Webhook::new("https://example.com/".parse().unwrap(), vec![event_type], 0);
            return operational::sample(event_type, &webhook, "https://example.org/hooks", 0);
        }
        let message = sample::transition(event_type, uuid::Uuid::nil(), "title", 0).to_string();
        let at = RecordPosition { topic: "t".into(), partition: 0, offset: 0 };
        let decoded = decode(Some(message.as_bytes()), &at, TimestampMs(0), Limits::NONE).unwrap();
        let Decoded::Event(event) = decoded else { panic!("it is an event") };
        event
    }

    #[test]
    fn every_body_fits_the_schema_of_its_format_and_no_other() {
        let formats = [
            (PayloadFormat::Optio, "https://example.com/", "OptioPayload"),
            (PayloadFormat::OptioClassic, "https://example.com/", "OptioClassicPayload"),
            (PayloadFormat::Slack, "https://hooks.slack.com/services/x", "SlackMessage"),
            (PayloadFormat::Slack, "https://hooks.slack.com/triggers/x", "SlackWorkflowVariables"),
            (PayloadFormat::Discord, "https://example.com/", "DiscordMessage"),
            (PayloadFormat::Teams, "https://example.com/", "TeamsMessage"),
            (PayloadFormat::CloudEvents, "https://example.com/", "CloudEvent"),
        ];
        for event_type in EventType::ALL {
            let event = sample_event(event_type);
            for (format, url, expected) in formats {
                let expected = match expected.strip_prefix("Optio").filter(|_| event_type.is_operational()) {
                    Some(rest) => format!("Operational{rest}"),
                    None => expected.to_owned(),
                };
                let body = Bodies::default().of(&event, format, &url.parse().unwrap());
                let body: Value = serde_json::from_slice(&body).unwrap();
                let fits = schemas().into_iter().filter(|(_, schema)| {
                    // A schema that allowed more than a format has would fit others as well.
                    let mut strict = schema.clone();
                    strict["additionalProperties"] = false.into();
                    strict["components"] = json!({ "schemas": schemas().into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect::<serde_json::Map<_, _>>() });
                    jsonschema::draft202012::new(&strict).unwrap().is_valid(&body)
                });
                assert_eq!(fits.map(|(name, _)| name).collect::<Vec<_>>(), [expected], "{body}");
            }
        }
    }

    #[test]
    fn every_operation_has_an_id_of_its_own() {
        let document = describe(serde_json::to_value(super::super::document()).unwrap());
        let mut ids = Vec::new();
        for section in ["paths", "webhooks"] {
            for (path, methods) in document[section].as_object().unwrap() {
                for (method, operation) in methods.as_object().unwrap() {
                    let id = operation["operationId"].as_str();
                    ids.push(id.unwrap_or_else(|| panic!("{method} {path} has no id")).to_owned());
                }
            }
        }
        assert_eq!(ids.len(), 22 + EventType::ALL.len());
        let all = ids.iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(all.len(), ids.len(), "client generators need unique ids: {ids:?}");
    }
}
