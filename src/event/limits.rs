//! How large an event may be.

use crate::config::Config;

/// The limits of a record, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The limit of the record's value: `events.bytes_max`.
    pub record_max: usize,
    /// The limit of the payload that is made from the record: `delivery.payload_max`.
    pub payload_max: usize,
}

impl Limits {
    /// No limits, for records that this program writes itself.
    pub const NONE: Self = Self { record_max: usize::MAX, payload_max: usize::MAX };

    /// Reads the limits from the settings. If `events.bytes_max` is 0, a record has no limit here, because the topic
    /// already limits what can be written to it.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let record_max = match config.events.bytes_max {
            0 => usize::MAX,
            bytes => bytes,
        };
        Self { record_max, payload_max: config.delivery.payload_max }
    }

    /// The limit of the value of a record that waits in a retry tier or the replay topic, in bytes. This program writes
    /// payloads there, so the limit is at least that of a payload.
    #[must_use]
    pub fn waiting_max(&self) -> usize {
        self.record_max.max(self.payload_max)
    }
}
