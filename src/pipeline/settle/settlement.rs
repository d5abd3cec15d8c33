//! One part of a record whose fate is decided, on its way into Redis.

use std::time::Duration;

use bytes::Bytes;

use crate::delivery::{Attempt, Delivery, Fate};
use crate::pipeline::handling::Handling;
use crate::position::{Offset, TimestampMs};
use crate::store::log::Logged;
use crate::store::marks::{Mark, Settled};
use crate::store::missed::MissedEvent;
use crate::traces::AttemptTrace;
use crate::webhook::WebhookId;

/// The approximate bytes of a settlement without its log entry.
const SETTLEMENT_BYTES: usize = 128;

/// An attempt on its way into the log.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) webhook: WebhookId,
    pub(super) meta: Vec<u8>,
    pub(super) body: Bytes,
    pub(super) succeeded: bool,
    pub(super) duration: Duration,
}

/// One part of a record, usually a delivery. The fate of this part is decided.
#[derive(Debug)]
pub struct Settlement {
    /// Grows with each settlement of this process. It is assigned when the settlement is taken into a batch.
    pub(super) number: u64,
    pub(super) mark: Mark,
    pub(super) log: Option<Line>,
    pub(super) missed: Option<Box<MissedEvent>>,
    pub(super) trace: Option<Box<AttemptTrace>>,
    pub(super) handling: Handling,
}

impl Settlement {
    /// A settlement after an attempt, which goes into the log.
    #[must_use]
    pub fn attempted(delivery: &Delivery, attempt: &Attempt, fate: Fate, handling: Handling) -> Self {
        let line = Line {
            webhook: delivery.webhook_id,
            meta: Logged::new(delivery, attempt, fate.due_at_ms()).to_json(),
            body: delivery.body.clone(),
            succeeded: attempt.failure.is_none(),
            duration: attempt.duration,
        };
        Self { log: Some(line), ..Self::silent(Settled::Delivery(delivery.id), handling) }
    }

    /// A settlement without an attempt.
    #[must_use]
    pub fn silent(what: Settled, handling: Handling) -> Self {
        let receipt = &handling.receipt;
        Self {
            number: 0,
            mark: Mark::of(what, Offset(receipt.offset), TimestampMs(receipt.timestamp_ms)),
            log: None,
            missed: None,
            trace: None,
            handling,
        }
    }

    /// The same settlement with the trace of its attempt, which ends when it is recorded.
    #[must_use]
    pub fn traced(self, trace: Option<Box<AttemptTrace>>) -> Self {
        Self { trace, ..self }
    }

    /// The same settlement, which also records that a webhook missed the event.
    #[must_use]
    pub fn missed(self, missed: Option<MissedEvent>) -> Self {
        Self { missed: missed.map(Box::new), ..self }
    }

    /// The approximate size in bytes.
    pub(super) fn bytes(&self) -> usize {
        SETTLEMENT_BYTES + self.log.as_ref().map_or(0, |line| line.meta.len() + line.body.len())
    }
}
