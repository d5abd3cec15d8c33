//! A task transition as it comes in, named, and the payload that webhooks get of it.

mod event_type;
pub mod sample;
mod tidy;
mod time;
mod transition;

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::rfc3339_exact;
use crate::config::Config;
pub use event_type::EventType;
use tidy::{NESTING_MAX, is_too_deep, tidy};
use transition::{NotUnderstood, Value, values};

/// Where a record stands; an event without an id gets its identity from it.
#[derive(Debug, Clone, Copy)]
pub struct Position<'a> {
    /// The record's topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in Unix milliseconds.
    pub timestamp_ms: i64,
}

/// One task transition that webhooks can be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's identity.
    pub id: String,
    /// Whose transition it is; also the record's key.
    pub task_id: String,
    /// What webhooks subscribe to.
    pub event_type: EventType,
    /// The page's payload, the same bytes for each webhook and attempt.
    pub body: Bytes,
    /// Optional fields whose values couldn't be understood; they are null in the payload.
    pub not_understood: Vec<&'static str>,
}

/// What a record turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Something that webhooks may want.
    Event(Event),
    /// Nothing that a webhook can subscribe to: counted and committed.
    Nothing(Nothing),
}

/// Why a record leads to no delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// A null value.
    Tombstone,
    /// A state without an event type.
    OtherState,
}

impl Nothing {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tombstone, Self::OtherState];

    /// As metrics have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::OtherState => "other_state",
        }
    }
}

/// Not a message that can be read as a task transition, and why. It goes to the dead-letter topic untouched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// It can't be read as a task transition.
    #[error("{0}")]
    Malformed(String),
    /// The record or the payload made of it is over a bound in bytes.
    #[error("{what} has {size} bytes; allowed are {max} ({setting})")]
    TooLarge {
        /// The record's value, a field of it, or the payload.
        what: &'static str,
        /// Its bytes.
        size: usize,
        /// The bound.
        max: usize,
        /// Which setting, or rule, is the bound.
        setting: &'static str,
    },
}

/// Bounds of a record, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the record's value: `events.bytes_max`.
    pub record_max: usize,
    /// Of the payload that is made of it: `delivery.payload_max`.
    pub payload_max: usize,
}

impl Limits {
    /// No bounds, for what this program writes itself.
    pub const NONE: Self = Self { record_max: usize::MAX, payload_max: usize::MAX };

    /// As the settings ask for. Where `events.bytes_max` leaves it to the topic, a record has no bound here: one that was
    /// written is within its topic's limit.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let record_max = match config.events.bytes_max {
            0 => usize::MAX,
            bytes => bytes,
        };
        Self { record_max, payload_max: config.delivery.payload_max }
    }
}

/// Bytes of a task id: it travels in a header of every retry.
pub const TASK_ID_MAX: usize = 1_024;
/// Bytes of an event id as it is; a longer one is replaced by a name that is derived from it.
pub const EVENT_ID_MAX: usize = 256;

/// The payload that webhooks get, its fields in their documented order.
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

/// Reads one record of `task-events`. The size is judged first, then the state: a state that has no event type is
/// settled before anything else of the record is judged.
///
/// # Errors
/// [`Undecodable`], with a reason that an operator can act on and that never repeats a value of the record.
pub fn decode(value: Option<&[u8]>, at: Position<'_>, limits: Limits) -> Result<Decoded, Undecodable> {
    let Some(value) = value else { return Ok(Decoded::Nothing(Nothing::Tombstone)) };
    within("the record", value.len(), limits.record_max, "events.bytes_max")?;
    let text = tidy(value);
    if is_too_deep(&text) {
        return Err(malformed(format!("objects and arrays are nested deeper than {NESTING_MAX}")));
    }
    let [id, task_id, to_state, timestamp, task] =
        values(&text, ["id", "taskId", "toState", "timestamp", "task"]).map_err(not_json)?;
    let to_state = required("toState", Value::of(to_state))?;
    let mut fields = Fields::default();
    let [own_id, title, state, task_type, repo_url, pr_url, pr_number, agent_type, cost_usd, error, created, completed] =
        fields.task(task);
    let task_type = fields.text("task.taskType", task_type);
    let Some(event_type) = EventType::of_transition(&to_state, task_type.as_deref()) else {
        return Ok(Decoded::Nothing(Nothing::OtherState));
    };
    let task_id = required("taskId", Value::of(task_id))?;
    if task_id.is_empty() {
        return Err(malformed("taskId is empty; the task's id is needed"));
    }
    within("taskId", task_id.len(), TASK_ID_MAX, "the most that an id may have")?;
    let record_time = || rfc3339_exact(at.timestamp_ms).map(Cow::Owned);
    let timestamp = fields.time("timestamp", timestamp).or_else(record_time);
    let payload = Payload {
        event: event_type,
        task_id: &task_id,
        task: PayloadTask {
            id: fields.text("task.id", own_id).unwrap_or(Cow::Borrowed(&task_id)),
            title: fields.text("task.title", title),
            state: fields.text("task.state", state).unwrap_or(Cow::Borrowed(&to_state)),
            repo_url: fields.text("task.repoUrl", repo_url),
            pr_url: fields.text("task.prUrl", pr_url),
            pr_number: fields.whole_number("task.prNumber", pr_number),
            agent_type: fields.text("task.agentType", agent_type),
            cost_usd: fields.text("task.costUsd", cost_usd),
            created_at: fields.time("task.createdAt", created),
            completed_at: fields.time("task.completedAt", completed),
            error_message: fields.text("task.errorMessage", error),
        },
        timestamp,
    };
    let body = serde_json::to_vec(&payload).expect("strings and numbers always serialize");
    within("the payload", body.len(), limits.payload_max, "delivery.payload_max")?;
    let id = fields.text("id", id).filter(|id| !id.is_empty());
    let id = id.map_or_else(|| derived_id(at).to_string(), |id| bounded_id(&id));
    let task_id = task_id.into_owned();
    Ok(Decoded::Event(Event { id, task_id, event_type, body: body.into(), not_understood: fields.not_understood }))
}

/// Reads optional fields; what can't be understood becomes null and is noted.
#[derive(Default)]
struct Fields {
    not_understood: Vec<&'static str>,
}

impl Fields {
    fn take<T>(&mut self, field: &'static str, read: Result<Option<T>, NotUnderstood>) -> Option<T> {
        read.unwrap_or_else(|NotUnderstood| {
            self.not_understood.push(field);
            None
        })
    }

    fn text<'a>(&mut self, field: &'static str, raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
        self.take(field, Value::of(raw).text())
    }

    fn whole_number(&mut self, field: &'static str, raw: Option<&RawValue>) -> Option<u64> {
        self.take(field, Value::of(raw).whole_number())
    }

    fn time<'a>(&mut self, field: &'static str, raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
        self.take(field, Value::of(raw).time())
    }

    fn task<'a>(&mut self, raw: Option<&'a RawValue>) -> [Option<&'a RawValue>; TASK_KEYS.len()] {
        let read = match raw.map(RawValue::get) {
            None | Some("null") => Ok(None),
            Some(json) => values(json, TASK_KEYS).map(Some).map_err(|_| NotUnderstood),
        };
        self.take("task", read).unwrap_or_default()
    }
}

/// What is read of a message's task.
const TASK_KEYS: [&str; 12] = [
    "id",
    "title",
    "state",
    "taskType",
    "repoUrl",
    "prUrl",
    "prNumber",
    "agentType",
    "costUsd",
    "errorMessage",
    "createdAt",
    "completedAt",
];

/// The optional fields, as [`Event::not_understood`] names them.
pub const OPTIONAL_FIELDS: [&str; 15] = [
    "id",
    "timestamp",
    "task",
    "task.id",
    "task.title",
    "task.state",
    "task.taskType",
    "task.repoUrl",
    "task.prUrl",
    "task.prNumber",
    "task.agentType",
    "task.costUsd",
    "task.errorMessage",
    "task.createdAt",
    "task.completedAt",
];

/// A field that no event can do without. Its value isn't repeated: it may be long.
fn required<'a>(field: &str, value: Value<'a>) -> Result<Cow<'a, str>, Undecodable> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Null => Err(malformed(format!("{field} is missing or null; text is needed"))),
        other => Err(malformed(format!("{field} is {}; text is needed", other.kind()))),
    }
}

fn within(what: &'static str, size: usize, max: usize, setting: &'static str) -> Result<(), Undecodable> {
    if size <= max { Ok(()) } else { Err(Undecodable::TooLarge { what, size, max, setting }) }
}

fn malformed(why: impl Into<String>) -> Undecodable {
    Undecodable::Malformed(why.into())
}

/// Where the parser stopped, and why. A value of another type is named by its kind alone.
fn not_json(error: serde_json::Error) -> Undecodable {
    if error.is_data() {
        return malformed("the message is not a JSON object; an object with taskId and toState is needed");
    }
    malformed(format!("the message is not JSON: {error}"))
}

/// The identity of an event that brought none: always the same for the same record.
fn derived_id(at: Position<'_>) -> Uuid {
    let name = format!("{}/{}/{}", at.topic, at.partition, at.offset);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// An id as it is, or, where it is too long to travel in headers, a name that is the same for the same id.
fn bounded_id(id: &str) -> String {
    if id.len() <= EVENT_ID_MAX { id.to_owned() } else { Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Position<'static> =
        Position { topic: "task-events", partition: 3, offset: 42, timestamp_ms: 1_742_983_954_000 };
    const LIMITS: Limits = Limits { record_max: 1 << 20, payload_max: 262_144 };
    const PAGE: &str = r#"{"type":"task:state_changed","id":"e1","taskId":"t1","fromState":"pr_opened","toState":"completed",
        "timestamp":"2025-03-26T10:12:34Z","task":{"id":"t1","title":"Fix login","state":"completed","taskType":"coding",
        "repoUrl":"https://github.com/acme/backend","prUrl":"https://github.com/acme/backend/pull/142","prNumber":142,
        "agentType":"claude-code","costUsd":"0.84","errorMessage":null,"createdAt":"2025-03-26T10:00:00Z","completedAt":"2025-03-26T10:12:34Z"}}"#;

    fn event(value: &str) -> Event {
        match decode(Some(value.as_bytes()), AT, LIMITS).unwrap() {
            Decoded::Event(event) => event,
            Decoded::Nothing(nothing) => panic!("{nothing:?}"),
        }
    }

    #[test]
    fn the_payload_is_the_pages() {
        let event = event(PAGE);
        assert_eq!(event.id, "e1");
        assert_eq!(
            std::str::from_utf8(&event.body).unwrap(),
            r#"{"event":"task.completed","taskId":"t1","task":{"id":"t1","title":"Fix login","state":"completed","repoUrl":"https://github.com/acme/backend","prUrl":"https://github.com/acme/backend/pull/142","prNumber":142,"agentType":"claude-code","costUsd":"0.84","createdAt":"2025-03-26T10:00:00Z","completedAt":"2025-03-26T10:12:34Z"},"timestamp":"2025-03-26T10:12:34Z"}"#
        );
    }

    #[test]
    fn unknown_values_are_null_and_an_error_message_is_told() {
        let event = event(r#"{"taskId":"t1","toState":"failed","task":{"title":"x","errorMessage":"boom"},"new":1}"#);
        assert_eq!(
            std::str::from_utf8(&event.body).unwrap(),
            r#"{"event":"task.failed","taskId":"t1","task":{"id":"t1","title":"x","state":"failed","repoUrl":null,"prUrl":null,"prNumber":null,"agentType":null,"costUsd":null,"createdAt":null,"completedAt":null,"errorMessage":"boom"},"timestamp":"2025-03-26T10:12:34.000Z"}"#
        );
    }

    #[test]
    fn an_event_without_an_id_gets_the_same_one_each_time_it_is_read() {
        let value = r#"{"taskId":"t1","toState":"failed","task":{"title":"x"}}"#;
        assert_eq!(event(value).id, event(value).id);
    }

    #[test]
    fn a_completed_review_has_a_type_of_its_own_and_other_states_have_none() {
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
    fn an_optional_field_of_another_type_is_converted_or_null_and_never_costs_the_event() {
        let event = event(
            r#"{"taskId":"t1","toState":"completed","id":17,"timestamp":1742983954,"task":{"title":{"a":[1]},"costUsd":0.84,
            "prNumber":"142","repoUrl":true,"createdAt":"2025-03-26T12:00:00+02:00","completedAt":"never","agentType":1e999}}"#,
        );
        assert_eq!(event.id, "17");
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
    fn a_state_without_an_event_type_is_settled_before_the_rest_is_judged() {
        for value in [r#"{"toState":"running"}"#, r#"{"toState":"queued","taskId":7,"task":[]}"#] {
            assert_eq!(
                decode(Some(value.as_bytes()), AT, LIMITS),
                Ok(Decoded::Nothing(Nothing::OtherState)),
                "{value}"
            );
        }
        assert_eq!(decode(None, AT, LIMITS), Ok(Decoded::Nothing(Nothing::Tombstone)));
    }

    #[test]
    fn what_is_no_such_message_is_refused_with_its_reason() {
        let reason = |value: &[u8]| decode(Some(value), AT, LIMITS).unwrap_err().to_string();
        assert_eq!(reason(br#"{"toState":"failed"}"#), "taskId is missing or null; text is needed");
        assert_eq!(reason(br#"{"toState":"failed","taskId":7}"#), "taskId is a number; text is needed");
        assert_eq!(reason(br#"{"toState":"failed","taskId":""}"#), "taskId is empty; the task's id is needed");
        assert_eq!(reason(br#"{"taskId":"t","toState":["failed"]}"#), "toState is an array; text is needed");
        assert!(reason(br#"["e","t","failed",null,null]"#).contains("not a JSON object"));
        assert!(reason(b"\xff\xfe").contains("expected value"));
        assert!(reason(b"").contains("EOF"));
        let deep = format!(r#"{{"taskId":"t","toState":"failed","x":{}{}}}"#, "[".repeat(64), "]".repeat(64));
        assert!(reason(deep.as_bytes()).contains("nested deeper than 64"));
        let too_large = |limits| decode(Some(PAGE.as_bytes()), AT, limits).unwrap_err();
        assert!(matches!(too_large(Limits { payload_max: 10, ..LIMITS }), Undecodable::TooLarge { .. }));
        let record = too_large(Limits { record_max: 10, ..LIMITS }).to_string();
        assert!(record.starts_with("the record has") && record.contains("events.bytes_max"), "{record}");
    }

    #[test]
    fn ids_are_bounded_and_a_reason_repeats_no_value() {
        let long = "x".repeat(100_000);
        let value = |id: &str, task: &str| format!(r#"{{"id":"{id}","taskId":"{task}","toState":"failed"}}"#);
        assert_eq!(event(&value(&long, "t")).id, event(&value(&long, "t")).id);
        assert!(event(&value(&long, "t")).id.len() < EVENT_ID_MAX);
        assert_ne!(event(&value(&long, "t")).id, event(&value(&format!("{long}y"), "t")).id);
        let error = decode(Some(value("e", &long).as_bytes()), AT, LIMITS).unwrap_err().to_string();
        assert!(error.len() < 100, "{error}");
        let number = format!(r#"{{"taskId":{},"toState":"failed"}}"#, "9".repeat(100_000));
        assert!(decode(Some(number.as_bytes()), AT, LIMITS).unwrap_err().to_string().len() < 100);
    }

    #[test]
    fn a_record_time_that_cannot_be_written_leaves_the_timestamp_null() {
        let at = Position { timestamp_ms: 1_742_983_954_000_000, ..AT };
        let decoded = decode(Some(br#"{"taskId":"t","toState":"failed"}"#), at, LIMITS).unwrap();
        let Decoded::Event(event) = decoded else { panic!("{decoded:?}") };
        assert!(std::str::from_utf8(&event.body).unwrap().ends_with(r#""timestamp":null}"#));
    }

    /// JSON of any shape under the keys of a message.
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
            let at = Position { timestamp_ms, offset, ..AT };
            if let Err(error) = decode(Some(&bytes), at, LIMITS) {
                prop_assert!(error.to_string().chars().count() <= 300);
            }
        }

        #[test]
        fn any_message_is_decoded_without_a_panic_and_its_payload_is_json(message in message(), timestamp_ms in any::<i64>()) {
            let at = Position { timestamp_ms, ..AT };
            match decode(Some(message.as_bytes()), at, LIMITS) {
                Ok(Decoded::Event(event)) => {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&event.body).is_ok());
                }
                Ok(Decoded::Nothing(_)) => {}
                Err(error) => prop_assert!(error.to_string().chars().count() <= 300, "{error}"),
            }
        }
    }
}
