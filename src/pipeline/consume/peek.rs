//! Looks whether records can be read at given offsets, with a consumer of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use crate::kafka::logging::Logging;
use crate::pipeline::partition::Partition;

/// The time that a look at all partitions together may take.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// The longest wait of one poll.
const POLL_MAX: Duration = Duration::from_millis(100);

/// Partitions, each with the offset at which to look.
pub(super) type Suspects = [(Arc<Partition>, i64)];
/// Whether there is a record, by topic and partition. What can't be known now is left out.
pub(super) type Found = HashMap<(Arc<str>, i32), bool>;

/// The configuration of the consumers that look. They join no group and commit nothing.
pub(super) struct Peek(ClientConfig);

impl Peek {
    /// Uses the configuration of the consumer that is watched.
    pub(super) fn new(mut config: ClientConfig) -> Self {
        // An offset that isn't in the log, because the topic was created again, stands for the oldest record.
        config.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
        Self(config)
    }

    /// Looks for a record at the offset of each partition or after it, or in a log that doesn't have this offset.
    /// Transaction markers are no records.
    pub(super) fn records(&self, suspects: &Suspects) -> Found {
        let mut found = Found::new();
        if let Err(error) = self.look(suspects, &mut found) {
            tracing::debug!(%error, "records that nobody reads can't be looked for");
        }
        found
    }

    fn look(&self, suspects: &Suspects, found: &mut Found) -> KafkaResult<()> {
        let consumer: BaseConsumer<Logging> = self.0.create_with_context(Logging)?;
        let deadline = Instant::now() + LOOK_MAX;
        let mut by_topic: HashMap<&Arc<str>, TopicPartitionList> = HashMap::new();
        for (partition, offset) in suspects {
            let list = by_topic.entry(&partition.topic).or_default();
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*offset))?;
        }
        // One topic after another, because rdkafka names only the partition whose end is reached.
        for (topic, list) in by_topic {
            consumer.assign(&list)?;
            let mut unknown = list.count();
            while unknown > 0 && Instant::now() < deadline {
                let (number, is_record) = match consumer.poll(POLL_MAX) {
                    Some(Ok(record)) => (record.partition(), true),
                    Some(Err(KafkaError::PartitionEOF(number))) => (number, false),
                    Some(Err(_)) | None => continue,
                };
                // The first finding counts, because the end is also reached after the last record.
                if let std::collections::hash_map::Entry::Vacant(first) = found.entry((topic.clone(), number)) {
                    first.insert(is_record);
                    unknown -= 1;
                }
            }
        }
        Ok(())
    }
}
