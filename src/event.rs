//! A task transition as it comes in, named, and the payload that webhooks get of it.

pub mod body;
pub mod sample;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What webhooks subscribe to (the seed page's five event types).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
pub enum EventType {
    /// A task reached `completed`.
    #[serde(rename = "task.completed")]
    #[value(name = "task.completed")]
    TaskCompleted,
    /// A task reached `failed`.
    #[serde(rename = "task.failed")]
    #[value(name = "task.failed")]
    TaskFailed,
    /// A task reached `needs_attention`.
    #[serde(rename = "task.needs_attention")]
    #[value(name = "task.needs_attention")]
    TaskNeedsAttention,
    /// A task's agent opened a pull request.
    #[serde(rename = "task.pr_opened")]
    #[value(name = "task.pr_opened")]
    TaskPrOpened,
    /// A review subtask completed.
    #[serde(rename = "review.completed")]
    #[value(name = "review.completed")]
    ReviewCompleted,
}

impl EventType {
    /// All of them, in the seed page's order.
    pub const ALL: [Self; 5] =
        [Self::TaskCompleted, Self::TaskFailed, Self::TaskNeedsAttention, Self::TaskPrOpened, Self::ReviewCompleted];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskCompleted => "task.completed",
            Self::TaskFailed => "task.failed",
            Self::TaskNeedsAttention => "task.needs_attention",
            Self::TaskPrOpened => "task.pr_opened",
            Self::ReviewCompleted => "review.completed",
        }
    }

    /// When it is told, in the seed page's words.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::TaskCompleted => {
                "Fired when a task reaches the completed state, typically when the agent's pull request is merged."
            }
            Self::TaskFailed => {
                "Fired when a task fails: the agent exits with an error, or the PR is closed without merging."
            }
            Self::TaskNeedsAttention => {
                "Fired when a reviewer has requested changes, or the agent can't resolve an issue by itself."
            }
            Self::TaskPrOpened => "Fired when the agent opens a pull request.",
            Self::ReviewCompleted => "Fired when a code review subtask completes: approved, or changes requested.",
        }
    }

    /// The type with that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }

    /// Contract section 2's table.
    fn of_transition(to_state: &str, task_type: Option<&str>) -> Option<Self> {
        match to_state {
            "completed" if task_type == Some("review") => Some(Self::ReviewCompleted),
            "completed" => Some(Self::TaskCompleted),
            "failed" => Some(Self::TaskFailed),
            "needs_attention" => Some(Self::TaskNeedsAttention),
            "pr_opened" => Some(Self::TaskPrOpened),
            _ => None,
        }
    }
}

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
}

/// What a record turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Something to tell.
    Event(Event),
    /// A tombstone, or a state that nobody subscribes to: counted and committed.
    Nothing,
}

/// Not a message of contract section 2, and why. It goes to the dead-letter topic untouched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// It can't be read as a task transition.
    #[error("{0}")]
    Malformed(String),
    /// Its payload is over `delivery.payload_max`.
    #[error("the payload would have {size} bytes, allowed are {max}")]
    TooLarge {
        /// Bytes it would have.
        size: usize,
        /// `delivery.payload_max`
        max: usize,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transition {
    id: Option<String>,
    task_id: String,
    to_state: String,
    timestamp: Option<String>,
    task: Task,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    id: Option<String>,
    title: String,
    state: Option<String>,
    task_type: Option<String>,
    repo_url: Option<String>,
    pr_url: Option<String>,
    pr_number: Option<u64>,
    agent_type: Option<String>,
    cost_usd: Option<String>,
    error_message: Option<String>,
    created_at: Option<String>,
    completed_at: Option<String>,
}

/// The seed page's payload, its fields in the page's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    event: EventType,
    task_id: &'a str,
    task: PayloadTask<'a>,
    timestamp: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PayloadTask<'a> {
    id: &'a str,
    title: &'a str,
    state: &'a str,
    repo_url: Option<&'a str>,
    pr_url: Option<&'a str>,
    pr_number: Option<u64>,
    agent_type: Option<&'a str>,
    cost_usd: Option<&'a str>,
    created_at: Option<&'a str>,
    completed_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
}

/// Reads one record of `task-events` (contract section 2).
///
/// # Errors
/// [`Undecodable`], with a reason that an operator can act on.
pub fn decode(value: Option<&[u8]>, at: Position<'_>, payload_max: usize) -> Result<Decoded, Undecodable> {
    let Some(value) = value else { return Ok(Decoded::Nothing) };
    let transition: Transition =
        serde_json::from_slice(value).map_err(|error| Undecodable::Malformed(error.to_string()))?;
    let Transition { id, task_id, to_state, timestamp, task } = transition;
    let Some(event_type) = EventType::of_transition(&to_state, task.task_type.as_deref()) else {
        return Ok(Decoded::Nothing);
    };
    let timestamp = timestamp.unwrap_or_else(|| rfc3339(at.timestamp_ms));
    let payload = Payload {
        event: event_type,
        task_id: &task_id,
        task: PayloadTask {
            id: task.id.as_deref().unwrap_or(&task_id),
            title: &task.title,
            state: task.state.as_deref().unwrap_or(&to_state),
            repo_url: task.repo_url.as_deref(),
            pr_url: task.pr_url.as_deref(),
            pr_number: task.pr_number,
            agent_type: task.agent_type.as_deref(),
            cost_usd: task.cost_usd.as_deref(),
            created_at: task.created_at.as_deref(),
            completed_at: task.completed_at.as_deref(),
            error_message: task.error_message.as_deref(),
        },
        timestamp: &timestamp,
    };
    let body = serde_json::to_vec(&payload).expect("strings and numbers always serialize");
    if body.len() > payload_max {
        return Err(Undecodable::TooLarge { size: body.len(), max: payload_max });
    }
    let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| derived_id(at).to_string());
    Ok(Decoded::Event(Event { id, task_id, event_type, body: body.into() }))
}

/// The identity of an event that brought none: always the same for the same record.
fn derived_id(at: Position<'_>) -> Uuid {
    let name = format!("{}/{}/{}", at.topic, at.partition, at.offset);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// Unix milliseconds as RFC 3339 in UTC.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    let since_epoch = std::time::Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0));
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since_epoch).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position<'static> =
        Position { topic: "task-events", partition: 3, offset: 42, timestamp_ms: 1_742_983_954_000 };
    const PAGE: &str = r#"{"type":"task:state_changed","id":"e1","taskId":"t1","fromState":"pr_opened","toState":"completed",
        "timestamp":"2025-03-26T10:12:34Z","task":{"id":"t1","title":"Fix login","state":"completed","taskType":"coding",
        "repoUrl":"https://github.com/acme/backend","prUrl":"https://github.com/acme/backend/pull/142","prNumber":142,
        "agentType":"claude-code","costUsd":"0.84","errorMessage":null,"createdAt":"2025-03-26T10:00:00Z","completedAt":"2025-03-26T10:12:34Z"}}"#;

    fn event(value: &str) -> Event {
        match decode(Some(value.as_bytes()), AT, 262_144).unwrap() {
            Decoded::Event(event) => event,
            Decoded::Nothing => panic!("nothing to tell"),
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
    fn what_is_no_such_message_is_refused_with_its_reason() {
        let reason = |value: &[u8]| decode(Some(value), AT, 262_144).unwrap_err().to_string();
        assert!(reason(b"{\"toState\":\"failed\",\"task\":{\"title\":\"x\"}}").contains("taskId"));
        assert!(reason(b"\xff\xfe").contains("expected value"));
        assert_eq!(decode(None, AT, 10), Ok(Decoded::Nothing));
        assert!(matches!(decode(Some(PAGE.as_bytes()), AT, 10), Err(Undecodable::TooLarge { .. })));
    }
}
