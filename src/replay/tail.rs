//! Reads the events topic from its end on, as events are written.

use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::event::{Decoded, Event, Limits, decode};
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::position::{RecordPosition, TimestampMs};
use crate::topics::Names;

/// How long the broker may take to say which partitions there are.
const BROKER_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest wait for a record, and so the longest time until a stop is noticed.
const POLL_MAX: Duration = Duration::from_millis(100);

/// A reader at the end of the events topic. Partitions that are added later are not read.
pub struct Tail {
    consumer: BaseConsumer<Logging>,
    limits: Limits,
}

impl Tail {
    /// Begins at the ends of all partitions. Blocks on the network.
    ///
    /// # Errors
    /// If the topic does not exist, or the broker does not answer.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let names = Names::new(config);
        let topic = names.events();
        let consumer: BaseConsumer<Logging> = clients::consumer(config, &names.replay_group())
            .set("queued.max.messages.kbytes", "1024")
            .create_with_context(Logging)
            .context("kafka consumer")?;
        let unreachable = || format!("kafka.brokers = {} don't answer", config.kafka.brokers);
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT).with_context(unreachable)?;
        let found = metadata.topics().first().filter(|topic| topic.error().is_none());
        let partitions = found.map(rdkafka::metadata::MetadataTopic::partitions).unwrap_or_default();
        anyhow::ensure!(!partitions.is_empty(), "topic {topic} is missing");
        let mut assignment = TopicPartitionList::new();
        for partition in partitions.iter().map(rdkafka::metadata::MetadataPartition::id) {
            // The end of now, and not of the first read: what is written in between must arrive.
            let (_, high) = consumer.fetch_watermarks(topic, partition, BROKER_TIMEOUT).with_context(unreachable)?;
            assignment.add_partition_offset(topic, partition, Offset::Offset(high)).context("an offset")?;
        }
        consumer.assign(&assignment).context("kafka consumer: assign")?;
        Ok(Self { consumer, limits: Limits::new(config) })
    }

    /// Passes each event to `take`, until that returns false or `stop` is cancelled. Blocks.
    pub fn read(&self, stop: &CancellationToken, mut take: impl FnMut(Event) -> bool) {
        while !stop.is_cancelled() {
            let record = match self.consumer.poll(POLL_MAX) {
                None => continue,
                Some(Ok(record)) => record,
                Some(Err(error)) => {
                    tracing::debug!(%error, "kafka is unavailable; reading goes on when it is back");
                    continue;
                }
            };
            let (partition, offset) = (record.partition(), record.offset());
            let at = RecordPosition { topic: record.topic().into(), partition, offset };
            let written = TimestampMs(record.timestamp().to_millis().unwrap_or(0));
            if let Ok(Decoded::Event(event)) = decode(record.payload(), &at, written, self.limits)
                && !take(event)
            {
                return;
            }
        }
    }
}
