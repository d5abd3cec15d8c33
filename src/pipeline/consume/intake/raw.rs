//! A record as it was read.

use rdkafka::Message as _;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage};

use crate::kafka::leader_epoch::leader_epoch;

/// A record that was read.
#[derive(Clone, Copy)]
pub(in crate::pipeline) struct Record<'a> {
    pub(in crate::pipeline) key: Option<&'a [u8]>,
    pub(in crate::pipeline) value: Option<&'a [u8]>,
    pub(in crate::pipeline) headers: Option<&'a BorrowedHeaders>,
    pub(in crate::pipeline) offset: i64,
    pub(in crate::pipeline) timestamp_ms: i64,
    /// The leader epoch, if the broker names it.
    pub(in crate::pipeline) epoch: Option<i32>,
}

impl<'a> Record<'a> {
    /// Borrows the parts of a consumer's message.
    pub(in crate::pipeline::consume) fn of(message: &'a BorrowedMessage<'_>) -> Self {
        Self {
            key: message.key(),
            value: message.payload(),
            headers: message.headers(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            epoch: leader_epoch(message),
        }
    }
}
