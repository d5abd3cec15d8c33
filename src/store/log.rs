//! The delivery log: each attempt in its webhook's stream, bounded by count and age.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Keys;
use crate::config;
use crate::delivery::{Attempt, Delivery, DeliveryId, FailureCode, Fate, millis};
use crate::event::{EventType, rfc3339};
use crate::webhook::WebhookId;

/// Characters of an answer's body that the log keeps (contract section 7).
pub const RESPONSE_BODY_MAX: usize = 2_000;
/// How often a webhook's log is cut by age; it lives that much longer.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// One attempt as the log holds it; the payload stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logged<'a> {
    /// The delivery's identity.
    pub delivery_id: DeliveryId,
    /// What it told of.
    pub event: EventType,
    /// The answer's status; None where none came.
    pub status_code: Option<u16>,
    /// The answer's first [`RESPONSE_BODY_MAX`] characters.
    pub response_body: Cow<'a, str>,
    /// Whether the endpoint has it.
    pub success: bool,
    /// From 1; a replay begins anew.
    pub attempt: u32,
    /// How often the delivery was replayed.
    #[serde(default)]
    pub replays: u32,
    /// Why it failed.
    pub error: Option<FailureCode>,
    /// From the request's start to the body's end.
    pub duration_ms: u64,
    /// When it is tried again; None where it isn't.
    pub next_attempt_at: Option<String>,
    /// When the attempt ended.
    pub delivered_at: String,
}

impl<'a> Logged<'a> {
    /// What `attempt` came to.
    #[must_use]
    pub fn new(delivery: &Delivery, attempt: &'a Attempt, fate: Fate) -> Self {
        Self {
            delivery_id: delivery.id,
            event: delivery.event_type,
            status_code: attempt.status,
            response_body: Cow::Borrowed(&attempt.response_body),
            success: attempt.failure.is_none(),
            attempt: delivery.attempts + 1,
            replays: delivery.replays,
            error: attempt.failure,
            duration_ms: attempt.duration.as_millis() as u64,
            next_attempt_at: match fate {
                Fate::Retry { due_at_ms, .. } => Some(rfc3339(due_at_ms)),
                Fate::Delivered | Fate::Dead(_) | Fate::Dropped => None,
            },
            delivered_at: rfc3339(attempt.ended_at_ms),
        }
    }

    /// The entry's `meta` field.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialize")
    }
}

/// Contract section 7's `Delivery`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    /// The log entry's id.
    pub id: String,
    /// Whose log.
    pub webhook_id: WebhookId,
    /// The request's body.
    pub payload: Cow<'a, str>,
    /// The attempt.
    #[serde(flatten)]
    pub logged: Logged<'a>,
}

/// Adds an entry; the answer is its id.
pub fn append(
    pipe: &mut redis::Pipeline,
    keys: &Keys,
    webhook: WebhookId,
    meta: &[u8],
    payload: &[u8],
    log: &config::Log,
) {
    pipe.cmd("XADD").arg(keys.log(webhook)).arg("MAXLEN").arg("~").arg(log.entries_max);
    pipe.arg("*").arg("meta").arg(meta).arg("payload").arg(payload);
}

/// Cuts what is too old, and lets the log go with the last of it. No answer.
pub fn trim(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, now_ms: i64, log: &config::Log) {
    let oldest = now_ms - millis(log.age_max);
    pipe.cmd("XTRIM").arg(keys.log(webhook)).arg("MINID").arg("~").arg(oldest.max(0)).ignore();
    pipe.cmd("PEXPIRE").arg(keys.log(webhook)).arg(millis(log.age_max + TRIM_INTERVAL)).ignore();
}
