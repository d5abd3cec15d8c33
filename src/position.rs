//! Where a record stands, and the numbers that must not be swapped.

use std::sync::Arc;

/// The offset of a record within its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// A record's timestamp, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub i64);

/// The position of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPosition {
    /// The record's topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}
