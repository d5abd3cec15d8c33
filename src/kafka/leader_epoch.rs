//! The leader epoch under which a record was written.

#![expect(unsafe_code, reason = "rdkafka doesn't show the leader epoch of a record")]

use rdkafka::bindings::rd_kafka_message_leader_epoch;
use rdkafka::message::BorrowedMessage;

/// The epoch of the leader that wrote the record, or `None` if the broker doesn't say. Each election of a leader raises it,
/// so a record that was written after the end of the log was lost has a higher epoch than all that were there before
/// (KIP-101, KIP-320).
#[must_use]
pub fn leader_epoch(message: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: librdkafka only reads the message, which lives as long as the borrow.
    let epoch = unsafe { rd_kafka_message_leader_epoch(message.ptr()) };
    (epoch >= 0).then_some(epoch)
}
