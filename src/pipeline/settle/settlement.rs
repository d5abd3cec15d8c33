//! One part of a record whose fate is decided, on its way into Redis.

use std::time::Duration;

use crate::delivery::{Attempt, Delivery, DeliveryId, Fate};
use crate::pipeline::handling::Handling;
use crate::position::{Offset, TimestampMs};
use crate::store::log::Logged;
use crate::store::marks::{Mark, Settled};
use crate::store::missed::MissedEvent;
use crate::traces::AttemptTrace;
use crate::webhook::WebhookId;

/// The approximate bytes of a settlement without its log entry.
const SETTLEMENT_BYTES: usize = 128;
/// The approximate bytes of an event that a webhook missed.
const MISSED_BYTES: usize = 160;

/// An attempt on its way into the log.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) webhook: WebhookId,
    pub(super) packed: Vec<u8>,
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
    /// The events that webhooks missed, each with the mark of the delivery that there would have been.
    pub(super) missed: Vec<(Mark, MissedEvent)>,
    pub(super) trace: Option<Box<AttemptTrace>>,
    pub(super) handling: Handling,
}

impl Settlement {
    /// A settlement after an attempt, which goes into the log.
    #[must_use]
    pub fn attempted(delivery: &Delivery, attempt: &Attempt, fate: Fate, handling: Handling) -> Self {
        let line = Line {
            webhook: delivery.webhook_id,
            packed: Logged::new(delivery, attempt, fate.due_at_ms()).packed(&delivery.body),
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
            missed: Vec::new(),
            trace: None,
            handling,
        }
    }

    /// The same settlement with the trace of its attempt, which ends when it is recorded.
    #[must_use]
    pub fn traced(self, trace: Option<Box<AttemptTrace>>) -> Self {
        Self { trace, ..self }
    }

    /// The same settlement, which also records that its webhook missed the event.
    #[must_use]
    pub fn missed(mut self, missed: Option<MissedEvent>) -> Self {
        self.missed.extend(missed.map(|missed| (self.mark, missed)));
        self
    }

    /// A settlement of the event for every webhook that missed it. There must be at least one.
    #[must_use]
    pub fn missed_by_all(missed: Vec<(DeliveryId, MissedEvent)>, handling: Handling) -> Self {
        let receipt = &handling.receipt;
        let (offset, timestamp) = (Offset(receipt.offset), TimestampMs(receipt.timestamp_ms));
        let marked = |(id, missed)| (Mark::of(Settled::Delivery(id), offset, timestamp), missed);
        let missed: Vec<(Mark, MissedEvent)> = missed.into_iter().map(marked).collect();
        let mark = missed.first().map_or_else(|| Mark::of(Settled::Record, offset, timestamp), |(mark, _)| *mark);
        Self { number: 0, mark, log: None, missed, trace: None, handling }
    }

    /// The approximate size in bytes.
    pub(super) fn bytes(&self) -> usize {
        let line = self.log.as_ref().map_or(0, |line| line.packed.len());
        SETTLEMENT_BYTES + line + self.missed.len() * MISSED_BYTES
    }
}
