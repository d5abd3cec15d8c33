//! The decoder of task transitions, and the headers in which an event travels on.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use optio_webhooks::delivery::{Delivery, FirstRead};
use optio_webhooks::detail::DETAIL_MAX;
use optio_webhooks::event::{Decoded, EVENT_ID_MAX, Event, EventType, Limits, OPTIONAL_FIELDS, TASK_ID_MAX, decode};
use optio_webhooks::position::{RecordPosition, TimestampMs};
use optio_webhooks::record::{self, LastError};
use optio_webhooks::webhook::WebhookId;

const LIMITS: Limits = Limits { record_max: 65_536, payload_max: 16_384 };

fuzz_target!(|input: (i64, &[u8])| {
    let (written_ms, value) = input;
    let at = RecordPosition { topic: "task-events".into(), partition: 3, offset: 42 };
    let decoded = decode(Some(value), &at, TimestampMs(written_ms), LIMITS);
    assert_eq!(decoded, decode(Some(value), &at, TimestampMs(written_ms), LIMITS), "a record always means the same");
    match decoded {
        Ok(Decoded::Event(event)) => check(&event, at),
        Ok(Decoded::Nothing(_)) => {}
        Err(problem) => assert!(problem.to_string().chars().count() <= DETAIL_MAX, "{problem}"),
    }
});

fn check(event: &Event, source: RecordPosition) {
    assert!((1..=EVENT_ID_MAX).contains(&event.id.len()) && (1..=TASK_ID_MAX).contains(&event.task_id.len()));
    assert!(event.body.len() <= LIMITS.payload_max);
    let body: serde_json::Value = serde_json::from_slice(&event.body).expect("the payload is JSON");
    assert_eq!(body["event"], event.event_type.as_str());
    assert_eq!(body["taskId"], event.task_id);
    assert!(body["task"]["id"].is_string() && body["task"]["state"].is_string());
    let distinct: HashSet<_> = event.not_understood.iter().collect();
    assert!(distinct.len() == event.not_understood.len());
    assert!(event.not_understood.iter().all(|field| OPTIONAL_FIELDS.contains(field)));
    assert!(EventType::TASKS.contains(&event.event_type));
    let read = FirstRead { source, first_seen_at_ms: 5, replays: 0, traceparent: None };
    let delivery = Delivery::first(event, WebhookId(uuid::Uuid::nil()), event.body.clone(), read);
    let headers = record::headers(&delivery, Some(7), LastError::default());
    let read = record::read(Some(&delivery.body), Some(headers.as_borrowed()));
    assert_eq!(read, Ok((delivery, 7, LastError::default())), "an event survives its way through a retry tier");
}
