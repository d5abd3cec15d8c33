//! The delivery log: each attempt in its webhook's stream, bounded by count and age.

use serde::Serialize;

use crate::delivery::{Attempt, Delivery, Fate};
use crate::event::{EventType, rfc3339};

/// Characters of an answer's body that the log keeps (contract section 7).
pub const RESPONSE_BODY_MAX: usize = 2_000;

/// One attempt, as the log holds it; the payload stands beside it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    delivery_id: crate::delivery::DeliveryId,
    event: EventType,
    status_code: Option<u16>,
    response_body: &'a str,
    success: bool,
    attempt: u32,
    error: Option<&'static str>,
    duration_ms: u64,
    next_attempt_at: Option<String>,
    delivered_at: String,
}

/// The entry's `meta` field.
#[must_use]
pub fn meta(delivery: &Delivery, attempt: &Attempt, fate: Fate) -> Vec<u8> {
    let next_attempt_at = match fate {
        Fate::Retry { due_at_ms, .. } => Some(rfc3339(due_at_ms)),
        Fate::Delivered | Fate::Dead(_) => None,
    };
    let meta = Meta {
        delivery_id: delivery.id,
        event: delivery.event_type,
        status_code: attempt.status,
        response_body: &attempt.response_body,
        success: attempt.failure.is_none(),
        attempt: delivery.attempts + 1,
        error: attempt.failure.map(crate::delivery::FailureCode::as_str),
        duration_ms: attempt.duration.as_millis() as u64,
        next_attempt_at,
        delivered_at: rfc3339(attempt.ended_at_ms),
    };
    serde_json::to_vec(&meta).expect("strings and numbers always serialize")
}
