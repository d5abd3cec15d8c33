//! The record that blocks the watermark of a partition.

use crate::report::Stage;
use crate::webhook::WebhookId;

/// The record that blocks a partition's watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocker {
    /// The lowest offset that isn't settled.
    pub offset: i64,
    /// The timestamp of that record, in Unix milliseconds.
    pub timestamp_ms: i64,
    /// The stage that was noted last for its deliveries.
    pub stage: Stage,
    /// The webhook of that stage.
    pub webhook: Option<WebhookId>,
}
