//! A reader of a topic, with bounded memory. It reads from a point in time up to the end that the topic had at the
//! start, or given spans of offsets.

mod starts;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::closing::ClosedInBackground;
use crate::kafka::logging::Logging;
use crate::topics::Names;
use starts::starts;

/// How long to wait for the broker to answer where a topic begins and ends.
const BROKER_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest wait for a record, and so the longest time until a stop is noticed.
const POLL_MAX: Duration = Duration::from_millis(100);

/// Where a scan begins.
#[derive(Debug, Clone)]
pub enum Start {
    /// At the oldest record.
    Oldest,
    /// At the first record written at or after this time, in Unix milliseconds.
    At(i64),
}

/// How much all readers of a topic together read ahead, in KiB.
const READ_AHEAD_KIB: usize = 4_096;
/// How many records all readers of a topic together read ahead.
const READ_AHEAD_RECORDS: usize = 8_000;
/// The largest number of threads that read a topic at once. Parsing the headers takes most of the time for a record.
const READERS_MAX: usize = 4;
/// The interval between progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// The number of records after which a reader updates the shared progress.
pub(super) const COUNT_EVERY: u64 = 256;

/// The share of a reader: each partition whose number modulo `of` is `number`.
#[derive(Debug, Clone, Copy)]
struct Share {
    number: usize,
    of: usize,
}

/// Reads a topic like [`Scan`], with one reader thread for each processor, up to a maximum. Returns the states of the
/// readers.
///
/// Each reader has its own state, which `new` creates and `take` updates with each record. One reader gets all records
/// of a partition, in their order. `progress` receives the number of offsets read and their total. Blocks.
///
/// # Errors
/// The same as [`Scan::open`] and [`Scan::next`], or that a reader panicked.
pub fn read_all<T: Send>(
    config: &Config,
    topic: &str,
    start: &Start,
    stop: &CancellationToken,
    mut progress: impl FnMut(u64, u64),
    new: impl Fn() -> T + Sync,
    take: impl Fn(&mut T, &BorrowedMessage<'_>) + Sync,
) -> anyhow::Result<Vec<T>> {
    let of = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(READERS_MAX);
    let (read, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let reader = |number| -> anyhow::Result<T> {
        let mut scan = Scan::open_share(config, topic, start.clone(), Share { number, of })?;
        total.fetch_add(scan.total(), Ordering::Relaxed);
        let (mut state, mut counted, mut taken) = (new(), 0, 0_u64);
        while let Some(record) = scan.next(stop)? {
            take(&mut state, &record);
            taken += 1;
            if taken % COUNT_EVERY == 0 {
                read.fetch_add(scan.read() - counted, Ordering::Relaxed);
                counted = scan.read();
            }
        }
        read.fetch_add(scan.read() - counted, Ordering::Relaxed);
        Ok(state)
    };
    let left = Left { readers: AtomicUsize::new(of), caller: std::thread::current() };
    std::thread::scope(|scope| {
        let (reader, left) = (&reader, &left);
        let readers: Vec<_> = (0..of)
            .map(|number| {
                scope.spawn(move || {
                    let _ended = Ended(left);
                    reader(number)
                })
            })
            .collect();
        while left.readers.load(Ordering::Acquire) > 0 {
            std::thread::park_timeout(PROGRESS_INTERVAL);
            progress(read.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        }
        readers.into_iter().map(|reader| reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?).collect()
    })
}

/// The number of readers that have not ended, and the thread that waits for them.
struct Left {
    readers: AtomicUsize,
    caller: Thread,
}

/// The end of a reader, even by a panic. The number changes before the caller wakes, so that it doesn't wait once more.
struct Ended<'a>(&'a Left);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Release);
        self.0.caller.unpark();
    }
}

/// A scan of a topic.
pub struct Scan {
    consumer: ClosedInBackground<BaseConsumer<Logging>>,
    topic: String,
    /// The next offset of each partition, and the offset after its last one to read.
    spans: HashMap<i32, (i64, i64)>,
    /// The number of partitions that are not read to their end.
    open: usize,
    /// The number of offsets to read.
    total: u64,
    /// The number of offsets that were read.
    read: u64,
}

impl Scan {
    /// Finds out where `topic` begins and ends, and starts to read all of it from `start` on. Blocks on the network.
    ///
    /// # Errors
    /// If the topic does not exist, or the broker does not answer.
    pub fn open(config: &Config, topic: &str, start: Start) -> anyhow::Result<Self> {
        Self::open_share(config, topic, start, Share { number: 0, of: 1 })
    }

    fn open_share(config: &Config, topic: &str, start: Start, share: Share) -> anyhow::Result<Self> {
        let mut scan = Self::locate_share(config, topic, start, share)?;
        scan.read_spans(scan.spans.clone())?;
        Ok(scan)
    }

    /// Finds out where `topic` begins and ends. Reads nothing until [`Scan::read_spans`] is called. Blocks on the
    /// network.
    ///
    /// # Errors
    /// The same as [`Scan::open`].
    pub fn locate(config: &Config, topic: &str, start: Start) -> anyhow::Result<Self> {
        Self::locate_share(config, topic, start, Share { number: 0, of: 1 })
    }

    fn locate_share(config: &Config, topic: &str, start: Start, share: Share) -> anyhow::Result<Self> {
        let read_ahead_kib = (READ_AHEAD_KIB / share.of).max(1_024).to_string();
        let read_ahead_records = (READ_AHEAD_RECORDS / share.of).to_string();
        let consumer: BaseConsumer<Logging> = clients::consumer(config, &Names::new(config).replay_group())
            .set("enable.partition.eof", "true")
            // This consumer reads a whole topic, so it asks for larger responses than a worker, but still bounded ones.
            .set("fetch.message.max.bytes", "262144")
            // At the end of the topic there is nothing to wait for.
            .set("fetch.wait.max.ms", "10")
            // A reader empties a full read-ahead within milliseconds. With the worker's value it would then be idle.
            .set("fetch.queue.backoff.ms", "1")
            .set("queued.max.messages.kbytes", read_ahead_kib)
            .set("queued.min.messages", read_ahead_records)
            .create_with_context(Logging)
            .context("kafka consumer")?;
        let consumer = ClosedInBackground::new(consumer);
        let unreachable = || format!("kafka.brokers = {} don't answer", config.kafka.brokers);
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT).with_context(unreachable)?;
        let found = metadata.topics().first().filter(|topic| topic.error().is_none());
        let partitions = found.map(rdkafka::metadata::MetadataTopic::partitions).unwrap_or_default();
        anyhow::ensure!(
            !partitions.is_empty(),
            "topic {topic} is missing; `optio-webhooks topics create` or a worker with topics.create = true creates it"
        );
        let ids = partitions.iter().map(rdkafka::metadata::MetadataPartition::id);
        let numbers: Vec<i32> = ids.filter(|id| id.unsigned_abs() as usize % share.of == share.number).collect();
        let starts = starts(&consumer, topic, &numbers, start).with_context(unreachable)?;
        let mut spans = HashMap::new();
        for number in numbers {
            let (low, high) = consumer.fetch_watermarks(topic, number, BROKER_TIMEOUT).with_context(unreachable)?;
            let from = starts.get(&number).map_or(low, |from| (*from).clamp(low, high));
            spans.insert(number, (from, high));
        }
        Ok(Self { consumer, topic: topic.to_owned(), spans, open: 0, total: 0, read: 0 })
    }

    /// The next offset of each partition, and the offset after its last one to read. Before the first read these are
    /// the beginning and the end of the topic.
    #[must_use]
    pub fn spans(&self) -> &HashMap<i32, (i64, i64)> {
        &self.spans
    }

    /// Reads these spans from now on, and nothing else.
    ///
    /// # Errors
    /// Errors of the Kafka client.
    pub fn read_spans(&mut self, spans: HashMap<i32, (i64, i64)>) -> anyhow::Result<()> {
        let mut assignment = TopicPartitionList::new();
        (self.open, self.total, self.read) = (0, 0, 0);
        for (number, (from, to)) in spans.iter().filter(|(_, (from, to))| from < to) {
            assignment.add_partition_offset(&self.topic, *number, Offset::Offset(*from)).context("an offset")?;
            self.open += 1;
            self.total += (to - from) as u64;
        }
        self.spans = spans;
        self.consumer.assign(&assignment).context("kafka consumer: assign")
    }

    /// The number of offsets to read. There may be fewer records.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The number of offsets that were read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read
    }

    /// The next record. None at the end, or once `stop` is cancelled. The records of a partition come in their order.
    /// Blocks, and waits while the broker is unavailable.
    ///
    /// # Errors
    /// If the broker refuses, because the topic was deleted or an ACL forbids reading it.
    pub fn next(&mut self, stop: &CancellationToken) -> anyhow::Result<Option<BorrowedMessage<'_>>> {
        while self.open > 0 && !stop.is_cancelled() {
            match self.consumer.poll(POLL_MAX) {
                Some(Ok(record)) => {
                    let Some((next, end)) = self.spans.get_mut(&record.partition()) else { continue };
                    if record.offset() >= *end {
                        // The record was written after the scan began, so this partition is read to its end.
                        advance(&mut self.read, &mut self.open, next, *end, *end);
                        continue;
                    }
                    advance(&mut self.read, &mut self.open, next, *end, record.offset() + 1);
                    return Ok(Some(record));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some((next, end)) = self.spans.get_mut(&partition) {
                        advance(&mut self.read, &mut self.open, next, *end, *end);
                    }
                }
                Some(Err(error)) if is_final(&error) => return Err(error).context("kafka consumer"),
                Some(Err(error)) => tracing::warn!(%error, "kafka is unavailable; reading goes on when it is back"),
                None => {}
            }
        }
        Ok(None)
    }
}

/// Advances a partition to the offset `to`, and decrements `open` when it reaches its end.
fn advance(read: &mut u64, open: &mut usize, next: &mut i64, end: i64, to: i64) {
    if *next >= end || to <= *next {
        return;
    }
    *read += (to - *next) as u64;
    *next = to;
    *open -= usize::from(to >= end);
}

/// Whether the error does not go away by itself.
fn is_final(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::Fatal
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_ends_once_and_gaps_count_as_read() {
        let (mut read, mut open, mut next) = (0, 1, 10);
        advance(&mut read, &mut open, &mut next, 20, 15);
        assert_eq!((read, open, next), (5, 1, 15));
        advance(&mut read, &mut open, &mut next, 20, 20);
        advance(&mut read, &mut open, &mut next, 20, 20);
        assert_eq!((read, open, next), (10, 0, 20));
    }
}
