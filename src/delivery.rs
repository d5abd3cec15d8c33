//! One event for one webhook; beside it what an attempt came to, and what becomes of it then.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Event, EventType};
use crate::position::RecordPosition;
use crate::webhook::WebhookId;

pub use attempt::{Attempt, FailureCode, Outcome};
pub use deferral::Deferral;
pub use fate::{DeadReason, Dropped, Fate, FatePolicy, GONE};

mod attempt;
mod deferral;
mod fate;

/// Identity of a delivery: one per event and webhook, the same after a crash, a retry, a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct DeliveryId(pub Uuid);

impl DeliveryId {
    /// Derived, never drawn: UUID version 5 (RFC 9562) of the event's id in the webhook's namespace.
    #[must_use]
    pub fn of(event_id: &str, webhook: WebhookId) -> Self {
        Self(Uuid::new_v5(&webhook.0, event_id.as_bytes()))
    }
}

impl std::str::FromStr for DeliveryId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One event for one webhook, as it travels through topics and the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Receivers deduplicate on it.
    pub id: DeliveryId,
    /// Whom to tell.
    pub webhook_id: WebhookId,
    /// What of.
    pub event_type: EventType,
    /// The event's identity.
    pub event_id: String,
    /// Whose transition it was.
    pub task_id: String,
    /// The same bytes on every attempt.
    pub body: Bytes,
    /// Attempts made so far.
    pub attempts: u32,
    /// Times it was put off without an attempt.
    pub deferrals: u32,
    /// When the event was first seen, Unix milliseconds.
    pub first_seen_at_ms: i64,
    /// Where the event came from.
    pub source: RecordPosition,
    /// Times it was replayed from the dead-letter topic.
    pub replays: u32,
    /// W3C trace context, where the event carried one.
    pub traceparent: Option<String>,
    /// A person asked for it to be sent now, and it hasn't been since.
    pub by_hand: bool,
}

/// How an event was read: what all of its first deliveries have in common beside the event itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstRead {
    /// The position of the record that the event was first read from.
    pub source: RecordPosition,
    /// When the event was first seen, in Unix milliseconds.
    pub first_seen_at_ms: i64,
    /// How often the event was replayed.
    pub replays: u32,
    /// The W3C trace context of the record.
    pub traceparent: Option<String>,
}

impl Delivery {
    /// The delivery of `event` to `webhook`, before any attempt.
    #[must_use]
    pub fn first(event: &Event, webhook: WebhookId, body: Bytes, read: FirstRead) -> Self {
        let FirstRead { source, first_seen_at_ms, replays, traceparent } = read;
        Self {
            id: DeliveryId::of(&event.id, webhook),
            webhook_id: webhook,
            event_type: event.event_type,
            event_id: event.id.clone(),
            task_id: event.task_id.clone(),
            body,
            attempts: 0,
            deferrals: 0,
            first_seen_at_ms,
            source,
            replays,
            traceparent,
            by_hand: false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Delivery {
        let webhook_id = WebhookId(Uuid::from_u128(7));
        Delivery {
            id: DeliveryId::of("e1", webhook_id),
            webhook_id,
            event_type: EventType::TaskFailed,
            event_id: "e1".into(),
            task_id: "t1".into(),
            body: Bytes::from_static(b"{}"),
            attempts: 0,
            deferrals: 0,
            first_seen_at_ms: 1_000,
            source: RecordPosition { topic: "task-events".into(), partition: 2, offset: 9 },
            replays: 0,
            traceparent: None,
            by_hand: false,
        }
    }

    #[test]
    fn the_delivery_id_is_the_same_each_time_and_differs_by_webhook() {
        let (one, other) = (WebhookId(Uuid::from_u128(1)), WebhookId(Uuid::from_u128(2)));
        assert_eq!(DeliveryId::of("e", one), DeliveryId::of("e", one));
        assert_ne!(DeliveryId::of("e", one), DeliveryId::of("e", other));
    }
}
