//! One event for one webhook, the outcome of an attempt, and the fate of a delivery.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Event, EventType};
use crate::position::RecordPosition;
use crate::traceparent::TraceParent;
use crate::webhook::WebhookId;

pub use attempt::{Attempt, FailureCode, Outcome};
pub use deferral::Deferral;
pub use fate::{DeadReason, Dropped, Fate, FatePolicy, GONE};

mod attempt;
mod deferral;
mod fate;

/// The identity of a delivery. It is the same after a crash, a retry or a replay, because it depends only on the event
/// and the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct DeliveryId(pub Uuid);

impl DeliveryId {
    /// Derives the identity: the UUID version 5 (RFC 9562) of the event's id, with the webhook's id as its namespace.
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
    /// The delivery's identity. Receivers deduplicate on it.
    pub id: DeliveryId,
    /// The webhook that gets the event.
    pub webhook_id: WebhookId,
    /// The event type.
    pub event_type: EventType,
    /// The event's identity.
    pub event_id: Arc<str>,
    /// The id of the task.
    pub task_id: Arc<str>,
    /// The body of the request. Every attempt sends the same bytes.
    pub body: Bytes,
    /// The number of attempts made so far.
    pub attempts: u32,
    /// The number of deferrals so far.
    pub deferrals: u32,
    /// When the event was first seen, in Unix milliseconds. `delivery.age_max` counts from here, and a replay, a rewind
    /// or a redelivery sets it anew.
    pub first_seen_at_ms: i64,
    /// The position of the record that the event was first read from.
    pub source: RecordPosition,
    /// The number of replays and redeliveries so far.
    pub replays: u32,
    /// The W3C trace context of the event, if it carried one.
    pub traceparent: Option<TraceParent>,
    /// Whether this is a redelivery that has not been attempted yet.
    pub by_hand: bool,
}

/// The data that all first deliveries of an event share, apart from the event itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstRead {
    /// The position of the record that the event was first read from.
    pub source: RecordPosition,
    /// When the event was first seen, in Unix milliseconds.
    pub first_seen_at_ms: i64,
    /// How often the event was replayed.
    pub replays: u32,
    /// The W3C trace context of the record, if it carried one.
    pub traceparent: Option<TraceParent>,
}

impl Delivery {
    /// Creates the delivery of `event` to `webhook`, before any attempt.
    #[must_use]
    pub fn first(event: &Event, webhook: WebhookId, body: Bytes, read: FirstRead) -> Self {
        Self::identified(DeliveryId::of(&event.id, webhook), event, webhook, body, read)
    }

    /// Creates the delivery like [`Delivery::first`], if its `id` is known already.
    #[must_use]
    pub fn identified(id: DeliveryId, event: &Event, webhook: WebhookId, body: Bytes, read: FirstRead) -> Self {
        let FirstRead { source, first_seen_at_ms, replays, traceparent } = read;
        debug_assert_eq!(id, DeliveryId::of(&event.id, webhook));
        Self {
            id,
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
    fn the_delivery_id_depends_only_on_event_and_webhook() {
        let (one, other) = (WebhookId(Uuid::from_u128(1)), WebhookId(Uuid::from_u128(2)));
        assert_eq!(DeliveryId::of("e", one), DeliveryId::of("e", one));
        assert_ne!(DeliveryId::of("e", one), DeliveryId::of("e", other));
    }
}
