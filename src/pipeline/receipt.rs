//! The receipt of a record: it keeps the record's offset open until all of its parts are settled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::partition::Partition;
use crate::position::{Offset, TimestampMs};
use crate::report::Stage;
use crate::traces;
use crate::webhook::WebhookId;

/// The receipt of a record that was read. The offset stays open until every part of the record is settled.
///
/// Dropping a receipt settles nothing: the offset stays open, and the record comes again.
#[derive(Debug)]
pub struct Receipt {
    /// The partition, as it was assigned when the record was read.
    pub partition: Arc<Partition>,
    generation: u64,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp, in Unix milliseconds.
    pub timestamp_ms: i64,
    /// When the record was read, if attempts are traced.
    read_at: Option<SystemTime>,
    /// The number of parts that aren't settled yet. One part stands for the fan-out itself.
    open: AtomicUsize,
    stage: Mutex<(Stage, Option<WebhookId>)>,
}

impl Receipt {
    /// A receipt with one open part: the fan-out.
    pub(super) fn new(
        partition: Arc<Partition>,
        generation: u64,
        Offset(offset): Offset,
        TimestampMs(timestamp_ms): TimestampMs,
    ) -> Self {
        let stage = Mutex::new((Stage::Queued, None));
        let open = AtomicUsize::new(1);
        Self { partition, generation, offset, timestamp_ms, read_at: traces::now(), open, stage }
    }

    /// The record, as its traces name it.
    pub(super) fn traced(&self) -> traces::Record<'_> {
        let Self { partition, offset, read_at, .. } = self;
        traces::Record { topic: &partition.topic, partition: partition.number, offset: *offset, read_at: *read_at }
    }

    /// The generation of the log that the record belongs to.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Notes the stage of one of its deliveries, for reports that say what blocks the watermark.
    pub fn note(&self, stage: Stage, webhook: WebhookId) {
        *self.stage.lock().expect("no code panics while it holds this lock") = (stage, Some(webhook));
    }

    /// The stage that was noted last, and its webhook.
    pub(super) fn stage(&self) -> (Stage, Option<WebhookId>) {
        *self.stage.lock().expect("no code panics while it holds this lock")
    }

    /// Adds a part that has to be settled.
    pub fn add(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Settles one part: its fate is durable.
    pub fn settle(&self) {
        // Acquire and release: the last part must see all others settled.
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.partition.settle(self.generation, self.offset);
        }
    }

    /// Begins work that a drain waits for. Returns None while the partition drains, or if this process may have lost
    /// it: then nothing may be started.
    #[must_use]
    pub fn start(&self) -> Option<InFlight> {
        self.partition.begin_work().then(|| InFlight { partition: self.partition.clone() })
    }
}

/// Work that a drain waits for until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    partition: Arc<Partition>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.partition.end_work();
    }
}
