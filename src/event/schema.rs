//! The fields of the incoming message: one table, from which `config/task-event.schema.json` is made and with which
//! `emit --validate` checks messages.

use serde_json::{Map, Value, json};

use super::TASK_ID_MAX;
use super::transition::Value as Read;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text that must be there.
    RequiredText,
    /// Text. A number is accepted too and keeps its spelling.
    Text,
    /// A whole number that isn't negative, or its text.
    WholeNumber,
    /// A time: RFC 3339, or Unix seconds or milliseconds, as a number or as text.
    Time,
    /// An object.
    Object,
}

/// A field of the message.
#[derive(Debug)]
pub struct Field {
    /// The path from the message's root, with `.` between the keys.
    pub path: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it is, and what happens without it.
    pub description: &'static str,
}

/// Every field that is read. Fields of `task` follow `task`.
pub const FIELDS: [Field; 19] = [
    field(
        "taskId",
        Kind::RequiredText,
        "The id of the task, 1 to 1,024 bytes. Use it as the record's key as well, so that the transitions of one task keep their order.",
    ),
    field(
        "toState",
        Kind::RequiredText,
        "The state that the task has reached. completed, failed, needs_attention and pr_opened become events; a message with any other state is counted, and nothing is sent.",
    ),
    field(
        "id",
        Kind::Text,
        "The identity of this transition. Write the same id when you write the same transition again, and receivers get the same delivery id. Without one it is derived from the record's position, so that a second write becomes a second event.",
    ),
    field("timestamp", Kind::Time, "When the task changed its state. Without it the timestamp of the record counts."),
    field("fromState", Kind::Text, "The state before. Only webhooks with the format optio-classic get it."),
    field("task", Kind::Object, "The task after the change. Without it the payload has only the id and the state."),
    field("task.id", Kind::Text, "The id of the task, if it differs from taskId."),
    field("task.title", Kind::Text, "The title. Without it the payload has null."),
    field("task.state", Kind::Text, "The state, if it differs from toState."),
    field(
        "task.taskType",
        Kind::Text,
        "review makes review.completed of a completed task. Without it the task is no review.",
    ),
    field("task.repoUrl", Kind::Text, "The URL of the repository. Without it the payload has null."),
    field("task.repoBranch", Kind::Text, "The branch. Only webhooks with the format optio-classic get it."),
    field("task.prUrl", Kind::Text, "The URL of the pull request. Without it the payload has null."),
    field("task.prNumber", Kind::WholeNumber, "The number of the pull request. Without it the payload has null."),
    field("task.agentType", Kind::Text, "The agent, such as claude-code. Without it the payload has null."),
    field(
        "task.costUsd",
        Kind::Text,
        "What the task has cost, in US dollars, as text. Without it the payload has null.",
    ),
    field("task.errorMessage", Kind::Text, "Why the task failed. Without it the payload lacks the field."),
    field("task.createdAt", Kind::Time, "When the task was created. Without it the payload has null."),
    field("task.completedAt", Kind::Time, "When the task was completed. Without it the payload has null."),
];

const fn field(path: &'static str, kind: Kind, description: &'static str) -> Field {
    Field { path, kind, description }
}

/// The longest whole number that every JSON parser reads exactly.
const WHOLE_MAX: u64 = 9_007_199_254_740_992;

impl Kind {
    /// What is allowed, for people.
    #[must_use]
    pub fn allowed(self) -> &'static str {
        match self {
            Self::RequiredText => "text is needed",
            Self::Text => "text, a number or null is allowed",
            Self::WholeNumber => "a whole number that isn't negative, its text or null is allowed",
            Self::Time => "RFC 3339 such as 2025-03-26T10:12:34Z, Unix seconds or milliseconds, or null is allowed",
            Self::Object => "an object or null is allowed",
        }
    }

    /// Whether the decoder understands `value` as this kind.
    #[must_use]
    pub(super) fn is_understood(self, value: Read<'_>) -> bool {
        match self {
            Self::RequiredText => matches!(value, Read::Text(_)),
            Self::Text => value.text().is_ok(),
            Self::WholeNumber => value.whole_number().is_ok(),
            Self::Time => value.time().is_ok(),
            Self::Object => matches!(value, Read::Null | Read::Other("an object")),
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::RequiredText => json!({ "type": "string" }),
            Self::Text => json!({ "type": ["string", "number", "null"] }),
            Self::WholeNumber => json!({ "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": WHOLE_MAX },
                { "type": "string", "pattern": r"^\s*[0-9]+\s*$" },
                { "type": "null" },
            ] }),
            Self::Time => json!({ "anyOf": [
                { "type": "string", "format": "date-time", "pattern": r"^\s*\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\s*$" },
                { "type": "string", "pattern": r"^\s*\d{1,13}(\.\d+)?\s*$" },
                { "type": "number", "minimum": 0, "maximum": 253_402_300_799_999_u64 },
                { "type": "null" },
            ] }),
            Self::Object => json!({ "type": ["object", "null"] }),
        }
    }
}

/// The JSON Schema (2020-12) of the message.
#[must_use]
pub fn schema() -> Value {
    let mut properties = Map::new();
    for field in &FIELDS {
        let mut schema = field.kind.schema();
        schema["description"] = field.description.into();
        if field.path == "taskId" {
            schema["minLength"] = 1.into();
            schema["maxLength"] = TASK_ID_MAX.into();
        }
        match field.path.split_once('.') {
            None => _ = properties.insert(field.path.to_owned(), schema),
            Some((parent, name)) => properties[parent]["properties"][name] = schema,
        }
    }
    let required: Vec<&str> =
        FIELDS.iter().filter(|field| field.kind == Kind::RequiredText).map(|field| field.path).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Task transition",
        "description": "The value of a record on task-events: a task has changed its state. Fields that are not listed are ignored.",
        "type": "object",
        "properties": properties,
        "required": required,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Decoded, Limits, OPTIONAL_FIELDS, decode};
    use super::*;
    use crate::event::{EventType, sample};
    use crate::position::{RecordPosition, TimestampMs};

    fn published() -> String {
        serde_json::to_string_pretty(&schema()).unwrap() + "\n"
    }

    #[test]
    fn the_published_schema_matches_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/task-event.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, published()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(found, published(), "the fields have changed: `make schema` updates the schema");
    }

    #[test]
    fn the_table_has_every_field_that_the_decoder_reads_and_the_reference_names_it() {
        let mut optional: Vec<&str> =
            FIELDS.iter().filter(|field| field.kind != Kind::RequiredText).map(|field| field.path).collect();
        let mut read = OPTIONAL_FIELDS.to_vec();
        optional.sort_unstable();
        read.sort_unstable();
        assert_eq!(optional, read);
        let reference = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md")).unwrap();
        let producing = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/producing.md")).unwrap();
        for field in &FIELDS {
            for (name, text) in [("reference.md", &reference), ("producing.md", &producing)] {
                assert!(text.contains(&format!("`{}`", field.path)), "{} is missing in docs/{name}", field.path);
            }
        }
    }

    /// Whether the decoder takes the message and understands every field.
    fn is_decoded_whole(message: &Value) -> bool {
        let at = RecordPosition { topic: "t".into(), partition: 0, offset: 0 };
        let limits = Limits { record_max: usize::MAX, payload_max: usize::MAX };
        match decode(Some(message.to_string().as_bytes()), &at, TimestampMs(0), limits) {
            Ok(Decoded::Event(event)) => event.not_understood.is_empty(),
            Ok(Decoded::Nothing(_)) => true,
            Err(_) => false,
        }
    }

    /// Values of each type. Which of them a field accepts depends on its kind.
    fn values() -> Vec<Value> {
        let texts = [
            "",
            "x",
            "142",
            " 142 ",
            "-1",
            "1.5",
            "2025-03-26T10:12:34Z",
            "2025-03-26T12:12:34.5+02:00",
            "2025-03-26 10:12:34Z",
            "2025-03-26",
            "1742983954",
            "1742983954000",
            "yesterday",
            "😀",
        ];
        let mut values: Vec<Value> = texts.into_iter().map(Value::from).collect();
        values.extend([json!(null), json!(true), json!(0), json!(142), json!(-1), json!(1.5), json!(1_742_983_954)]);
        values.extend([
            json!(1_742_983_954_000_u64),
            json!(1e300),
            json!([]),
            json!(["x"]),
            json!({}),
            json!({"a": 1}),
        ]);
        values
    }

    #[test]
    fn schema_and_decoder_agree_on_every_field_and_type() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let sample = sample::transition(EventType::TaskCompleted, uuid::Uuid::nil(), "title", 0);
        assert!(validator.is_valid(&sample) && is_decoded_whole(&sample));
        let mut compared = 0;
        for field in &FIELDS {
            let pointer = format!("/{}", field.path.replace('.', "/"));
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            for value in values() {
                let mut message = sample.clone();
                message.pointer_mut(parent).unwrap()[name] = value;
                assert_eq!(validator.is_valid(&message), is_decoded_whole(&message), "{message}");
                compared += 1;
            }
            let mut message = sample.clone();
            message.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
            assert_eq!(validator.is_valid(&message), is_decoded_whole(&message), "without {pointer}: {message}");
        }
        assert!(compared > 400);
        for message in [json!([]), json!("x"), json!(null), json!({"taskId": "t"}), json!({"toState": "failed"})] {
            assert!(!validator.is_valid(&message) && !is_decoded_whole(&message), "{message}");
        }
        let long = json!({"taskId": "x".repeat(TASK_ID_MAX + 1), "toState": "failed"});
        assert!(!validator.is_valid(&long) && !is_decoded_whole(&long));
    }
}
