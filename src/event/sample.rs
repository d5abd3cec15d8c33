//! Sample task transitions for `emit`, `dev` and `webhooks test`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::EventType;
use crate::clock::rfc3339;

/// Builds a message of an event type of tasks (`docs/reference.md`, section "The incoming message") that is decoded as an `event`.
#[must_use]
pub fn transition(event: EventType, task_id: Uuid, title: &str, now_ms: i64) -> Value {
    let (from, to, task_type) = match event {
        EventType::TaskCompleted => ("pr_opened", "completed", "coding"),
        EventType::TaskFailed => ("running", "failed", "coding"),
        EventType::TaskNeedsAttention => ("pr_opened", "needs_attention", "coding"),
        EventType::TaskPrOpened => ("running", "pr_opened", "coding"),
        EventType::ReviewCompleted => ("running", "completed", "review"),
        EventType::WebhookDisabled
        | EventType::WebhookFailing
        | EventType::WebhookRecovered
        | EventType::DeliveryExhausted => unreachable!("no transition of a task leads to an event about a webhook"),
    };
    let failed = event == EventType::TaskFailed;
    let pr_number = (!failed).then_some(142);
    json!({
        "type": "task:state_changed",
        "id": Uuid::now_v7(),
        "taskId": task_id,
        "fromState": from,
        "toState": to,
        "timestamp": rfc3339(now_ms),
        "task": {
            "id": task_id,
            "title": title,
            "state": to,
            "taskType": task_type,
            "repoUrl": "https://github.com/acme/backend",
            "prUrl": pr_number.map(|number| format!("https://github.com/acme/backend/pull/{number}")),
            "prNumber": pr_number,
            "agentType": "claude-code",
            "costUsd": "0.84",
            "errorMessage": failed.then_some("the agent exited with code 1"),
            "createdAt": rfc3339(now_ms - 754_000),
            "completedAt": (to == "completed").then(|| rfc3339(now_ms)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Decoded, Limits, decode};
    use super::*;
    use crate::position::{RecordPosition, TimestampMs};

    #[test]
    fn every_sample_is_decoded_as_its_event_type() {
        for event in EventType::TASKS {
            let value = transition(event, Uuid::from_u128(7), "Fix it", 1_700_000_000_000).to_string();
            let at = RecordPosition { topic: "t".into(), partition: 0, offset: 0 };
            let Ok(Decoded::Event(read)) = decode(Some(value.as_bytes()), &at, TimestampMs(0), Limits::NONE) else {
                panic!("{event:?}")
            };
            assert_eq!((read.event_type, &*read.task_id), (event, &*Uuid::from_u128(7).to_string()));
        }
    }
}
