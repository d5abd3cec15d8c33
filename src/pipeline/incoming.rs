//! Decoded records, and the batches in which they go to the fan-out.

use std::sync::Arc;

use rdkafka::message::OwnedHeaders;

use super::receipt::Receipt;
use crate::delivery::{DeadReason, Delivery};
use crate::detail::Detail;
use crate::event::{Event, Nothing};
use crate::kafka::headers;
use crate::record::{LastError, UnreadOrigin};
use crate::traceparent::TraceParent;

/// The decoded content of one record.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// An event that webhooks may subscribe to.
    Event {
        /// The event and its payload.
        event: Arc<Event>,
        /// The W3C trace context of the record.
        traceparent: Option<TraceParent>,
        /// The position of the record that the event was first read from.
        source: crate::position::RecordPosition,
        /// The number of times that the event was replayed.
        replays: u32,
    },
    /// A delivery whose wait is over.
    Due {
        /// The delivery.
        delivery: Arc<Delivery>,
        /// Why its last attempt failed.
        last: LastError,
    },
    /// A delivery that is due much later, so that it is handed off to a retry tier again.
    DueLater {
        /// The delivery.
        delivery: Arc<Delivery>,
        /// Why its last attempt failed.
        last: LastError,
        /// When it is due, in Unix milliseconds.
        due_at_ms: i64,
    },
    /// A record that is not what its topic holds.
    Unreadable(Arc<Unreadable>),
    /// A record that no webhook can subscribe to.
    Nothing(Nothing),
}

impl Incoming {
    /// The approximate memory that it takes, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Event { event, .. } => event.body.len(),
            Self::Due { delivery, .. } | Self::DueLater { delivery, .. } => delivery.body.len(),
            Self::Unreadable(record) => record.bytes(),
            Self::Nothing(_) => 0,
        }
    }
}

/// A record that can't be decoded. It goes to the dead-letter topic unchanged, together with the reason.
#[derive(Debug)]
pub struct Unreadable {
    /// The record's key, unchanged.
    pub key: Option<Vec<u8>>,
    /// The record's value, unchanged.
    pub value: Option<Vec<u8>>,
    /// The record's headers, unchanged.
    pub headers: OwnedHeaders,
    /// The record's position.
    pub origin: UnreadOrigin,
    /// `malformed` or `too_large`.
    pub reason: DeadReason,
    /// A sentence for people that says what is wrong.
    pub detail: Detail,
}

impl Unreadable {
    fn bytes(&self) -> usize {
        let own: usize = [&self.key, &self.value].into_iter().flatten().map(Vec::len).sum();
        own + headers::bytes(Some(self.headers.as_borrowed()))
    }
}

/// The most records of one batch: a wake-up for each record would cost more than the record.
pub const BATCH_MAX: usize = 64;
/// The most bytes of one batch.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A batch of records from one consumer, each with its receipt.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records, in the order of their partitions.
    pub records: Vec<(Incoming, Arc<Receipt>)>,
    bytes: usize,
}

impl Batch {
    /// Adds a record.
    pub fn push(&mut self, incoming: Incoming, receipt: Arc<Receipt>) {
        self.bytes += incoming.bytes();
        self.records.push((incoming, receipt));
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the batch has no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether the batch has no room for another record.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.records.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}
