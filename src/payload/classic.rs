//! Renders the payload as Optio's built-in worker sends it, for receivers that have not moved yet.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::event::Event;

/// The parts of Optio's own payload that the classic one shares.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Payload {
    task: Task,
    timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Task {
    title: Option<String>,
    repo_url: Option<String>,
    pr_url: Option<String>,
    error_message: Option<String>,
}

#[derive(Serialize)]
struct Classic<'a> {
    event: &'static str,
    timestamp: Option<String>,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    task_id: &'a str,
    task_title: Option<String>,
    repo_url: Option<String>,
    repo_branch: Option<&'a str>,
    from_state: Option<&'a str>,
    to_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pr_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    task_type: Option<&'a str>,
}

/// Renders the body. The fields are in the order of Optio's built-in worker.
#[must_use]
pub fn body(event: &Event) -> Bytes {
    if event.event_type.is_operational() {
        return operational(event);
    }
    let Payload { task, timestamp } = serde_json::from_slice(&event.body).unwrap_or_default();
    let classic = event.classic.as_deref();
    let body = Classic {
        event: event.event_type.as_str(),
        timestamp,
        data: Data {
            task_id: &event.task_id,
            task_title: task.title,
            repo_url: task.repo_url,
            repo_branch: classic.and_then(|parts| parts.repo_branch.as_deref()),
            from_state: classic.and_then(|parts| parts.from_state.as_deref()),
            to_state: event.event_type.to_state(),
            pr_url: task.pr_url,
            error_message: task.error_message,
            task_type: classic.and_then(|parts| parts.task_type.as_deref()),
        },
    };
    serde_json::to_vec(&body).expect("texts always serialize").into()
}

/// Optio's built-in worker has no operational events. They get its envelope, and their own payload as the data.
fn operational(event: &Event) -> Bytes {
    let data: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    let body = json!({ "event": event.event_type.as_str(), "timestamp": data["timestamp"], "data": data });
    body.to_string().into()
}

#[cfg(test)]
mod tests {
    use crate::event::{Decoded, Limits, decode};
    use crate::position::{RecordPosition, TimestampMs};

    fn body(message: &str) -> String {
        let at = RecordPosition { topic: "t".into(), partition: 0, offset: 0 };
        match decode(Some(message.as_bytes()), &at, TimestampMs(0), Limits::NONE).unwrap() {
            Decoded::Event(event) => String::from_utf8(super::body(&event).to_vec()).unwrap(),
            Decoded::Nothing(why) => panic!("{why:?}"),
        }
    }

    #[test]
    fn the_body_is_that_of_optios_built_in_worker() {
        assert_eq!(
            body(
                r#"{"taskId":"t1","fromState":"running","toState":"failed","timestamp":"2025-03-26T10:12:34Z","task":{"title":"Fix \"it\"","repoUrl":"https://github.com/acme/backend","repoBranch":"main","errorMessage":"exit 1","taskType":"coding"}}"#
            ),
            r#"{"event":"task.failed","timestamp":"2025-03-26T10:12:34Z","data":{"taskId":"t1","taskTitle":"Fix \"it\"","repoUrl":"https://github.com/acme/backend","repoBranch":"main","fromState":"running","toState":"failed","errorMessage":"exit 1","taskType":"coding"}}"#
        );
        assert_eq!(
            body(r#"{"taskId":"t1","toState":"completed","task":{"taskType":"review","prUrl":"https://x/1"}}"#),
            r#"{"event":"review.completed","timestamp":"1970-01-01T00:00:00.000Z","data":{"taskId":"t1","taskTitle":null,"repoUrl":null,"repoBranch":null,"fromState":null,"toState":"completed","prUrl":"https://x/1","taskType":"review"}}"#
        );
    }
}
