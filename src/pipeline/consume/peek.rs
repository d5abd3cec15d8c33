//! Looks whether a record can be read at an offset, with a consumer of its own.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::kafka::logging::Logging;

/// The time that a look may take.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// The longest wait of one poll.
const POLL_MAX: Duration = Duration::from_millis(100);

/// The configuration of the consumers that look. They join no group and commit nothing.
pub(super) struct Peek(ClientConfig);

impl Peek {
    /// Uses the configuration of the consumer that is watched.
    pub(super) fn new(mut config: ClientConfig) -> Self {
        // An offset that isn't in the log, because the topic was created again, stands for the oldest record.
        config.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
        Self(config)
    }

    /// Whether there is a record at `offset` or after it, or in a log that doesn't have this offset. Transaction markers
    /// are no records. None if it can't be known now.
    pub(super) fn has_record(&self, topic: &str, partition: i32, offset: i64) -> Option<bool> {
        let look = || {
            let consumer: BaseConsumer<Logging> = self.0.create_with_context(Logging).ok()?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).ok()?;
            consumer.assign(&list).ok()?;
            let deadline = Instant::now() + LOOK_MAX;
            while Instant::now() < deadline {
                match consumer.poll(POLL_MAX) {
                    Some(Ok(_)) => return Some(true),
                    Some(Err(KafkaError::PartitionEOF(_))) => return Some(false),
                    Some(Err(_)) | None => {}
                }
            }
            None
        };
        let found = look();
        tracing::debug!(topic, partition, offset, ?found, "looked for a record that is not read");
        found
    }
}
