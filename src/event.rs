//! Decodes a task transition into an event, with its event type and the payload that webhooks get.

mod event_type;
mod fields;
mod limits;
pub mod sample;
pub mod schema;
mod tidy;
mod time;
mod transition;
mod undecodable;
pub mod validation;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use serde::Serialize;
use uuid::Uuid;

use crate::clock::rfc3339_exact;
use crate::detail::Detail;
use crate::position::{RecordPosition, TimestampMs};
pub use event_type::EventType;
use fields::Fields;
pub use fields::OPTIONAL_FIELDS;
pub use limits::Limits;
use tidy::{NESTING_MAX, is_too_deep, tidy};
use transition::{Value, values};
pub use undecodable::{Undecodable, check_waiting};
use undecodable::{malformed, not_json, within};

/// One task transition that webhooks can subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's identity.
    pub id: Arc<str>,
    /// The id of the task. Producers use it as the record's key.
    pub task_id: Arc<str>,
    /// The event type that webhooks subscribe to.
    pub event_type: EventType,
    /// The payload in Optio's own format. Its bytes are the same for each webhook and attempt.
    pub body: Bytes,
    /// What only the format `optio-classic` has; `None` if the record has none of it.
    pub classic: Option<Box<ClassicParts>>,
    /// Optional fields whose values can't be understood. They are null in the payload.
    pub not_understood: Vec<&'static str>,
}

/// The parts of a transition that only the format `optio-classic` has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassicParts {
    /// The state before the transition.
    pub from_state: Option<CompactString>,
    /// The branch.
    pub repo_branch: Option<CompactString>,
    /// The type of the task.
    pub task_type: Option<CompactString>,
}

impl ClassicParts {
    /// About how many bytes the parts take in JSON. Each byte that must be escaped takes up to six.
    fn json_len(&self) -> usize {
        let texts = [&self.from_state, &self.repo_branch, &self.task_type].into_iter().flatten();
        let len = |byte: u8| if byte < b' ' || byte == b'"' || byte == b'\\' { 6 } else { 1 };
        texts.map(|text| text.bytes().map(len).sum::<usize>()).sum()
    }
}

/// A decoded record.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// An event that webhooks may subscribe to.
    Event(Event),
    /// A record that no webhook can subscribe to. It is counted and settled.
    Nothing(Nothing),
}

/// Why no webhook can subscribe to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// A null value.
    Tombstone,
    /// A state without an event type.
    OtherState,
}

impl Nothing {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::Tombstone, Self::OtherState];

    /// The value of the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::OtherState => "other_state",
        }
    }
}

/// The largest task id, in bytes. The task id travels in a header of every retry.
pub const TASK_ID_MAX: usize = 1_024;
/// The largest event id that is used unchanged, in bytes. A longer one is replaced by a UUID derived from it.
pub const EVENT_ID_MAX: usize = 256;

/// The bytes that are allocated for a payload before its length is known.
const PAYLOAD_ROOM: usize = 1_024;

/// The payload that webhooks get. The fields are in the documented order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    event: EventType,
    task_id: &'a str,
    task: PayloadTask<'a>,
    timestamp: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PayloadTask<'a> {
    id: Cow<'a, str>,
    title: Option<Cow<'a, str>>,
    state: Cow<'a, str>,
    repo_url: Option<Cow<'a, str>>,
    pr_url: Option<Cow<'a, str>>,
    pr_number: Option<u64>,
    agent_type: Option<Cow<'a, str>>,
    cost_usd: Option<Cow<'a, str>>,
    created_at: Option<Cow<'a, str>>,
    completed_at: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<Cow<'a, str>>,
}

/// Decodes one record of `task-events`.
///
/// The checks come in this order: the size of the record, its JSON, `toState`, `taskId`, the size of the payload. A
/// state without an event type becomes [`Nothing`] before `taskId` is checked.
///
/// # Errors
/// Returns [`Undecodable`] with a reason that an operator can act on. The reason never repeats a value of the record.
pub fn decode(
    value: Option<&[u8]>,
    at: &RecordPosition,
    written: TimestampMs,
    limits: Limits,
) -> Result<Decoded, Undecodable> {
    let Some(value) = value else { return Ok(Decoded::Nothing(Nothing::Tombstone)) };
    within("the record", value.len(), limits.record_max, "events.bytes_max")?;
    let text = tidy(value);
    if is_too_deep(&text) {
        return Err(malformed(Detail::new("objects and arrays are nested deeper than ").size(NESTING_MAX)));
    }
    let [id, task_id, from_state, to_state, timestamp, task] =
        values(&text, ["id", "taskId", "fromState", "toState", "timestamp", "task"]).map_err(not_json)?;
    let to_state = required("toState", Value::of(to_state))?;
    let mut fields = Fields::default();
    let [
        nested_id,
        title,
        state,
        task_type,
        repo_url,
        branch,
        pr_url,
        pr_number,
        agent,
        cost_usd,
        error,
        created,
        completed,
    ] = fields.task(task);
    let task_type = fields.text("task.taskType", task_type);
    let Some(event_type) = EventType::of_transition(&to_state, task_type.as_deref()) else {
        return Ok(Decoded::Nothing(Nothing::OtherState));
    };
    let task_id = required("taskId", Value::of(task_id))?;
    if task_id.is_empty() {
        return Err(malformed(Detail::new("taskId is empty; the task's id is needed")));
    }
    within("taskId", task_id.len(), TASK_ID_MAX, "the limit of a task id")?;
    let record_time = || rfc3339_exact(written.0).map(Cow::Owned);
    let timestamp = fields.time("timestamp", timestamp).or_else(record_time);
    let payload = Payload {
        event: event_type,
        task_id: &task_id,
        task: PayloadTask {
            id: fields.text("task.id", nested_id).unwrap_or(Cow::Borrowed(&task_id)),
            title: fields.text("task.title", title),
            state: fields.text("task.state", state).unwrap_or(Cow::Borrowed(&to_state)),
            repo_url: fields.text("task.repoUrl", repo_url),
            pr_url: fields.text("task.prUrl", pr_url),
            pr_number: fields.whole_number("task.prNumber", pr_number),
            agent_type: fields.text("task.agentType", agent),
            cost_usd: fields.text("task.costUsd", cost_usd),
            created_at: fields.time("task.createdAt", created),
            completed_at: fields.time("task.completedAt", completed),
            error_message: fields.text("task.errorMessage", error),
        },
        timestamp,
    };
    // Most payloads fit, so they are written without growing. The room stays allocated as long as the payload.
    let mut body = Vec::with_capacity(text.len().min(PAYLOAD_ROOM));
    serde_json::to_writer(&mut body, &payload).expect("strings and numbers always serialize");
    let classic = ClassicParts {
        from_state: fields.text("fromState", from_state).map(CompactString::from),
        repo_branch: fields.text("task.repoBranch", branch).map(CompactString::from),
        task_type: task_type.map(CompactString::from),
    };
    // The format optio-classic also sends these parts.
    within("the payload", body.len() + classic.json_len(), limits.payload_max, "delivery.payload_max")?;
    let classic = (classic != ClassicParts::default()).then(|| Box::new(classic));
    let id = fields.text("id", id).filter(|id| !id.is_empty());
    let id = id.map_or_else(|| derived_id(at).to_string().into(), |id| bounded_id(&id));
    let task_id = task_id.into();
    Ok(Decoded::Event(Event {
        id,
        task_id,
        event_type,
        body: body.into(),
        classic,
        not_understood: fields.not_understood,
    }))
}

/// Reads a time in RFC 3339 with any offset, and returns it in UTC.
#[must_use]
pub fn utc(text: &str) -> Option<String> {
    time::read_text(text).map(Cow::into_owned)
}

/// Reads a required field. The error doesn't repeat the value, which may be long.
fn required<'a>(field: &'static str, value: Value<'a>) -> Result<Cow<'a, str>, Undecodable> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Null => Err(malformed(Detail::new(field).text(" is missing or null; text is needed"))),
        other => Err(malformed(Detail::new(field).text(" is ").text(other.kind()).text("; text is needed"))),
    }
}

/// Derives the identity of an event without an id. It is always the same for the same record.
fn derived_id(at: &RecordPosition) -> Uuid {
    let name = format!("{}/{}/{}", at.topic, at.partition, at.offset);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// Returns the id unchanged, or a UUID derived from it if it is too long to travel in headers.
fn bounded_id(id: &str) -> Arc<str> {
    if id.len() <= EVENT_ID_MAX {
        id.into()
    } else {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITTEN: TimestampMs = TimestampMs(1_742_983_954_000);

    fn at(offset: i64) -> RecordPosition {
        RecordPosition { topic: "task-events".into(), partition: 3, offset }
    }

    const LIMITS: Limits = Limits { record_max: 1 << 20, payload_max: 262_144 };
    const FULL_MESSAGE: &str = r#"{"type":"task:state_changed","id":"e1","taskId":"t1","fromState":"pr_opened","toState":"completed",
        "timestamp":"2025-03-26T10:12:34Z","task":{"id":"t1","title":"Fix login","state":"completed","taskType":"coding",
        "repoUrl":"https://github.com/acme/backend","prUrl":"https://github.com/acme/backend/pull/142","prNumber":142,
        "agentType":"claude-code","costUsd":"0.84","errorMessage":null,"createdAt":"2025-03-26T10:00:00Z","completedAt":"2025-03-26T10:12:34Z"}}"#;

    fn event(value: &str) -> Event {
        match decode(Some(value.as_bytes()), &at(42), WRITTEN, LIMITS).unwrap() {
            Decoded::Event(event) => event,
            Decoded::Nothing(nothing) => panic!("{nothing:?}"),
        }
    }

    #[test]
    fn the_payload_has_the_documented_fields_in_order() {
        let event = event(FULL_MESSAGE);
        assert_eq!(&*event.id, "e1");
        assert_eq!(
            std::str::from_utf8(&event.body).unwrap(),
            r#"{"event":"task.completed","taskId":"t1","task":{"id":"t1","title":"Fix login","state":"completed","repoUrl":"https://github.com/acme/backend","prUrl":"https://github.com/acme/backend/pull/142","prNumber":142,"agentType":"claude-code","costUsd":"0.84","createdAt":"2025-03-26T10:00:00Z","completedAt":"2025-03-26T10:12:34Z"},"timestamp":"2025-03-26T10:12:34Z"}"#
        );
    }

    #[test]
    fn unknown_values_are_null_and_an_error_message_is_included() {
        let event = event(r#"{"taskId":"t1","toState":"failed","task":{"title":"x","errorMessage":"boom"},"new":1}"#);
        assert_eq!(
            std::str::from_utf8(&event.body).unwrap(),
            r#"{"event":"task.failed","taskId":"t1","task":{"id":"t1","title":"x","state":"failed","repoUrl":null,"prUrl":null,"prNumber":null,"agentType":null,"costUsd":null,"createdAt":null,"completedAt":null,"errorMessage":"boom"},"timestamp":"2025-03-26T10:12:34.000Z"}"#
        );
    }

    #[test]
    fn an_event_without_an_id_gets_the_same_id_on_each_read() {
        let value = r#"{"taskId":"t1","toState":"failed","task":{"title":"x"}}"#;
        assert_eq!(event(value).id, event(value).id);
    }

    #[test]
    fn the_state_and_the_task_type_decide_the_event_type() {
        let of = |state: &str, kind: &str| EventType::of_transition(state, Some(kind));
        assert_eq!(of("completed", "review"), Some(EventType::ReviewCompleted));
        assert_eq!(of("completed", "coding"), Some(EventType::TaskCompleted));
        assert_eq!(of("running", "coding"), None);
        assert_eq!(of("failed", "review"), Some(EventType::TaskFailed));
    }

    #[test]
    fn only_the_task_id_and_the_state_are_required() {
        let event = event(r#"{"taskId":"t1","toState":"completed"}"#);
        assert_eq!(
            std::str::from_utf8(&event.body).unwrap(),
            r#"{"event":"task.completed","taskId":"t1","task":{"id":"t1","title":null,"state":"completed","repoUrl":null,"prUrl":null,"prNumber":null,"agentType":null,"costUsd":null,"createdAt":null,"completedAt":null},"timestamp":"2025-03-26T10:12:34.000Z"}"#
        );
        assert!(event.not_understood.is_empty());
    }

    #[test]
    fn an_optional_field_of_another_type_never_loses_the_event() {
        let event = event(
            r#"{"taskId":"t1","toState":"completed","id":17,"timestamp":1742983954,"task":{"title":{"a":[1]},"costUsd":0.84,
            "prNumber":"142","repoUrl":true,"createdAt":"2025-03-26T12:00:00+02:00","completedAt":"never","agentType":1e999}}"#,
        );
        assert_eq!(&*event.id, "17");
        assert_eq!(event.not_understood, ["task.title", "task.repoUrl", "task.completedAt"]);
        let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(body["timestamp"], "2025-03-26T10:12:34.000Z");
        assert_eq!((&body["task"]["costUsd"], &body["task"]["prNumber"]), (&"0.84".into(), &142.into()));
        assert_eq!(body["task"]["createdAt"], "2025-03-26T10:00:00.000Z");
        assert_eq!(body["task"]["agentType"], "1e999");
        assert!(body["task"]["title"].is_null() && body["task"]["repoUrl"].is_null());
        for task in ["null", "[]", "\"x\"", "7", "false"] {
            let value = format!(r#"{{"taskId":"t1","toState":"completed","task":{task}}}"#);
            assert_eq!(self::event(&value).not_understood.len(), usize::from(task != "null"), "{task}");
        }
    }

    #[test]
    fn a_state_without_an_event_type_is_accepted_before_the_task_id_is_checked() {
        for value in [r#"{"toState":"running"}"#, r#"{"toState":"queued","taskId":7,"task":[]}"#] {
            assert_eq!(
                decode(Some(value.as_bytes()), &at(42), WRITTEN, LIMITS),
                Ok(Decoded::Nothing(Nothing::OtherState)),
                "{value}"
            );
        }
        assert_eq!(decode(None, &at(42), WRITTEN, LIMITS), Ok(Decoded::Nothing(Nothing::Tombstone)));
    }

    #[test]
    fn a_record_that_is_not_a_transition_is_refused_with_a_reason() {
        let reason = |value: &[u8]| decode(Some(value), &at(42), WRITTEN, LIMITS).unwrap_err().to_string();
        assert_eq!(reason(br#"{"toState":"failed"}"#), "taskId is missing or null; text is needed");
        assert_eq!(reason(br#"{"toState":"failed","taskId":7}"#), "taskId is a number; text is needed");
        assert_eq!(reason(br#"{"toState":"failed","taskId":""}"#), "taskId is empty; the task's id is needed");
        assert_eq!(reason(br#"{"taskId":"t","toState":["failed"]}"#), "toState is an array; text is needed");
        assert!(reason(br#"["e","t","failed",null,null]"#).contains("not a JSON object"));
        assert!(reason(b"\xff\xfe").contains("expected value"));
        assert!(reason(b"").contains("EOF"));
        let deep = format!(r#"{{"taskId":"t","toState":"failed","x":{}{}}}"#, "[".repeat(64), "]".repeat(64));
        assert!(reason(deep.as_bytes()).contains("nested deeper than 64"));
        let too_large = |limits| decode(Some(FULL_MESSAGE.as_bytes()), &at(42), WRITTEN, limits).unwrap_err();
        assert!(matches!(too_large(Limits { payload_max: 10, ..LIMITS }), Undecodable::TooLarge { .. }));
        let record = too_large(Limits { record_max: 10, ..LIMITS }).to_string();
        assert!(record.starts_with("the record has") && record.contains("events.bytes_max"), "{record}");
    }

    #[test]
    fn ids_are_bounded_and_stay_distinct() {
        let long = "x".repeat(100_000);
        let value = |id: &str, task: &str| format!(r#"{{"id":"{id}","taskId":"{task}","toState":"failed"}}"#);
        assert_eq!(event(&value(&long, "t")).id, event(&value(&long, "t")).id);
        assert!(event(&value(&long, "t")).id.len() < EVENT_ID_MAX);
        assert_ne!(event(&value(&long, "t")).id, event(&value(&format!("{long}y"), "t")).id);
    }

    #[test]
    fn a_reason_repeats_no_value_of_the_record() {
        let long = "x".repeat(100_000);
        let message = format!(r#"{{"id":"e","taskId":"{long}","toState":"failed"}}"#);
        let error = decode(Some(message.as_bytes()), &at(42), WRITTEN, LIMITS).unwrap_err().to_string();
        assert!(error.len() < 100, "{error}");
        let number = format!(r#"{{"taskId":{},"toState":"failed"}}"#, "9".repeat(100_000));
        assert!(decode(Some(number.as_bytes()), &at(42), WRITTEN, LIMITS).unwrap_err().to_string().len() < 100);
    }

    #[test]
    fn a_record_time_that_rfc_3339_cannot_express_becomes_null() {
        let decoded =
            decode(Some(br#"{"taskId":"t","toState":"failed"}"#), &at(42), TimestampMs(1_742_983_954_000_000), LIMITS)
                .unwrap();
        let Decoded::Event(event) = decoded else { panic!("{decoded:?}") };
        assert!(std::str::from_utf8(&event.body).unwrap().ends_with(r#""timestamp":null}"#));
    }

    /// Generates messages with the known keys and JSON values of any type.
    fn message() -> impl Strategy<Value = String> {
        let scalar = prop::sample::select(vec![
            "null",
            "true",
            "-0",
            "1e999",
            "142",
            "\"142\"",
            "\"\"",
            "\"\\ud83d\"",
            "\"x\"",
            "{}",
            "[[]]",
            "1742983954000",
            "\"completed\"",
            "\"failed\"",
            "\"2025-03-26T10:12:34+02:00\"",
            "99999999999999999999999999",
        ]);
        let key = prop::sample::select(vec![
            "id",
            "taskId",
            "toState",
            "timestamp",
            "task",
            "title",
            "state",
            "taskType",
            "prNumber",
            "costUsd",
            "createdAt",
            "x\\ud83d",
        ]);
        prop::collection::vec((key, scalar), 0..12).prop_map(|fields| {
            let object: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{0},\"task\":{{{0}}}}}", object.join(",")).replace("{,", "{")
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300), timestamp_ms in any::<i64>(), offset in any::<i64>(),
        ) {
            if let Err(error) = decode(Some(&bytes), &at(offset), TimestampMs(timestamp_ms), LIMITS) {
                prop_assert!(error.to_string().chars().count() <= 300);
            }
        }

        #[test]
        fn any_decoded_message_has_a_json_payload(message in message(), timestamp_ms in any::<i64>()) {
            match decode(Some(message.as_bytes()), &at(42), TimestampMs(timestamp_ms), LIMITS) {
                Ok(Decoded::Event(event)) => {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&event.body).is_ok());
                }
                Ok(Decoded::Nothing(_)) => {}
                Err(error) => prop_assert!(error.to_string().chars().count() <= 300, "{error}"),
            }
        }
    }
}
