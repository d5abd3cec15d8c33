//! A topic read once through, from a moment on to where it ended when the reading began, or stretch by stretch, in
//! bounded memory.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::topics::Names;

/// How long the broker may take to say where a topic begins and ends.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Longest wait for a record: how soon a stop is noticed.
const POLL_MAX: Duration = Duration::from_millis(100);

/// Where a reading begins.
#[derive(Debug, Clone)]
pub enum Start {
    /// At the oldest record.
    Oldest,
    /// At the first record of that time (Unix milliseconds) or later.
    At(i64),
}

/// What all readers of a topic together read ahead.
const READ_AHEAD_KIB: usize = 8_192;
const READ_AHEAD_RECORDS: usize = 20_000;
/// Threads that read one topic at once. What costs most of a record's time is taking its headers apart.
const READERS_MAX: usize = 4;
/// How often it is told how far they are.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Records that a reader takes between two words on how far it is.
const COUNT_EVERY: u64 = 256;

/// A reader's partitions: every `of`-th one.
#[derive(Debug, Clone, Copy)]
struct Share {
    number: usize,
    of: usize,
}

/// Reads a topic as a [`Scan`] does, by a reader for each processor: each folds what it `take`s into a state of its
/// own, made by `new`. The records of one partition come to one reader, in their order. `progress` is told how many
/// offsets are behind, and of how many. Blocks.
///
/// # Errors
/// As [`Scan::open`] and [`Scan::next`].
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
        let (mut state, mut told, mut taken) = (new(), 0, 0_u64);
        while let Some(record) = scan.next(stop)? {
            take(&mut state, &record);
            taken += 1;
            if taken % COUNT_EVERY == 0 {
                read.fetch_add(scan.read() - told, Ordering::Relaxed);
                told = scan.read();
            }
        }
        read.fetch_add(scan.read() - told, Ordering::Relaxed);
        Ok(state)
    };
    let teller = std::thread::current();
    std::thread::scope(|scope| {
        let (reader, teller) = (&reader, &teller);
        let readers: Vec<_> = (0..of)
            .map(|number| {
                scope.spawn(move || {
                    let state = reader(number);
                    teller.unpark();
                    state
                })
            })
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            std::thread::park_timeout(TELL_EVERY);
            progress(read.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        }
        readers.into_iter().map(|reader| reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?).collect()
    })
}

/// A reading under way.
pub struct Scan {
    consumer: ClosedElsewhere,
    topic: String,
    /// By partition: the next offset, and the first one beyond the end.
    spans: HashMap<i32, (i64, i64)>,
    /// Partitions that aren't read to their end.
    open: usize,
    total: u64,
    /// Offsets before `next` of all partitions.
    read: u64,
}

/// A consumer that is closed on a thread of its own: that takes a tenth of a second and more, and has nothing to say.
struct ClosedElsewhere(Option<BaseConsumer<Logging>>);

impl std::ops::Deref for ClosedElsewhere {
    type Target = BaseConsumer<Logging>;
    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it is taken only when dropped")
    }
}

impl Drop for ClosedElsewhere {
    fn drop(&mut self) {
        let consumer = self.0.take();
        // Where no thread can be made, it is closed here.
        let _ = std::thread::Builder::new().name("closing".to_owned()).spawn(move || drop(consumer));
    }
}

impl Scan {
    /// Finds out where `topic` begins and ends. Blocks on the network.
    ///
    /// # Errors
    /// Where the topic is missing or the broker doesn't answer.
    pub fn open(config: &Config, topic: &str, start: Start) -> anyhow::Result<Self> {
        Self::open_share(config, topic, start, Share { number: 0, of: 1 })
    }

    fn open_share(config: &Config, topic: &str, start: Start, share: Share) -> anyhow::Result<Self> {
        let mut scan = Self::locate_share(config, topic, start, share)?;
        scan.turn_to(scan.spans.clone())?;
        Ok(scan)
    }

    /// Finds out where `topic` begins and ends, and reads nothing before [`Scan::turn_to`]. Blocks on the network.
    ///
    /// # Errors
    /// As [`Scan::open`].
    pub fn locate(config: &Config, topic: &str, start: Start) -> anyhow::Result<Self> {
        Self::locate_share(config, topic, start, Share { number: 0, of: 1 })
    }

    fn locate_share(config: &Config, topic: &str, start: Start, share: Share) -> anyhow::Result<Self> {
        let read_ahead_kib = (READ_AHEAD_KIB / share.of).max(1_024).to_string();
        let read_ahead_records = (READ_AHEAD_RECORDS / share.of).to_string();
        let consumer: BaseConsumer<Logging> = clients::consumer(config, &Names::new(config).replay_group())
            .set("enable.partition.eof", "true")
            // One reader of a whole topic: larger answers than a worker asks for, still bounded.
            .set("fetch.message.max.bytes", "262144")
            // At the end of a topic nothing is waited for.
            .set("fetch.wait.max.ms", "10")
            .set("queued.max.messages.kbytes", read_ahead_kib)
            .set("queued.min.messages", read_ahead_records)
            .create_with_context(Logging)
            .context("kafka consumer")?;
        let consumer = ClosedElsewhere(Some(consumer));
        let away = || format!("kafka.brokers = {} don't answer", config.kafka.brokers);
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_MAX).with_context(away)?;
        let found = metadata.topics().first().filter(|topic| topic.error().is_none());
        let partitions = found.map(rdkafka::metadata::MetadataTopic::partitions).unwrap_or_default();
        anyhow::ensure!(
            !partitions.is_empty(),
            "topic {topic} is missing; `optio-webhooks topics create` or a worker with topics.create = true makes it"
        );
        let ids = partitions.iter().map(rdkafka::metadata::MetadataPartition::id);
        let numbers: Vec<i32> = ids.filter(|id| id.unsigned_abs() as usize % share.of == share.number).collect();
        let starts = starts(&consumer, topic, &numbers, start).with_context(away)?;
        let mut spans = HashMap::new();
        for number in numbers {
            let (low, high) = consumer.fetch_watermarks(topic, number, ANSWER_MAX).with_context(away)?;
            let from = starts.get(&number).map_or(low, |from| (*from).clamp(low, high));
            spans.insert(number, (from, high));
        }
        Ok(Self { consumer, topic: topic.to_owned(), spans, open: 0, total: 0, read: 0 })
    }

    /// By partition the next offset, and the first one beyond what is read: at first, where the topic begins and ends.
    #[must_use]
    pub fn spans(&self) -> &HashMap<i32, (i64, i64)> {
        &self.spans
    }

    /// Reads these spans from now on, and nothing else.
    ///
    /// # Errors
    /// The client's.
    pub fn turn_to(&mut self, spans: HashMap<i32, (i64, i64)>) -> anyhow::Result<()> {
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

    /// Offsets from the start to the end; there may be fewer records.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many of them are behind.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read
    }

    /// The next record; None at the end, or once `stop` is cancelled. Records of one partition come in their order.
    /// Blocks; a broker that is away is waited for.
    ///
    /// # Errors
    /// Where the broker refuses: the topic was deleted, or it may not be read.
    pub fn next(&mut self, stop: &CancellationToken) -> anyhow::Result<Option<BorrowedMessage<'_>>> {
        while self.open > 0 && !stop.is_cancelled() {
            match self.consumer.poll(POLL_MAX) {
                Some(Ok(record)) => {
                    let Some((next, end)) = self.spans.get_mut(&record.partition()) else { continue };
                    if record.offset() >= *end {
                        // Written since: not ours to read. Its partition is at its end.
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
                Some(Err(error)) => tracing::warn!(%error, "kafka is away: reading goes on when it is back"),
                None => {}
            }
        }
        Ok(None)
    }
}

/// How the cluster ids of librdkafka's in-process broker begin.
const IN_PROCESS_BROKER: &str = "mockCluster";

/// Where each partition's reading begins; the oldest where nothing is said.
fn starts(
    consumer: &BaseConsumer<Logging>,
    topic: &str,
    numbers: &[i32],
    start: Start,
) -> Result<HashMap<i32, i64>, KafkaError> {
    // A reader of a topic with few partitions may have none of them.
    if numbers.is_empty() {
        return Ok(HashMap::new());
    }
    let at_ms = match start {
        Start::Oldest => return Ok(HashMap::new()),
        Start::At(at_ms) => at_ms,
    };
    // The in-process broker of `dev` answers with the end, whatever it is asked: everything is looked at instead.
    let cluster = consumer.client().fetch_cluster_id(ANSWER_MAX);
    if cluster.is_some_and(|id| id.starts_with(IN_PROCESS_BROKER)) {
        return Ok(HashMap::new());
    }
    let mut times = TopicPartitionList::new();
    for number in numbers {
        times.add_partition_offset(topic, *number, Offset::Offset(at_ms))?;
    }
    let found = consumer.offsets_for_times(times, ANSWER_MAX)?;
    let offset = |offset| match offset {
        Offset::Offset(offset) => offset,
        // No record is that young.
        _ => i64::MAX,
    };
    Ok(found.elements().iter().map(|element| (element.partition(), offset(element.offset()))).collect())
}

/// Moves a partition on to `to`, and counts it out at its end.
fn advance(read: &mut u64, open: &mut usize, next: &mut i64, end: i64, to: i64) {
    if *next >= end || to <= *next {
        return;
    }
    *read += (to - *next) as u64;
    *next = to;
    *open -= usize::from(to >= end);
}

/// What doesn't go away by itself.
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
    fn a_partition_counts_as_read_once_and_gaps_in_it_count_too() {
        let (mut read, mut open, mut next) = (0, 1, 10);
        advance(&mut read, &mut open, &mut next, 20, 15);
        assert_eq!((read, open, next), (5, 1, 15));
        advance(&mut read, &mut open, &mut next, 20, 20);
        advance(&mut read, &mut open, &mut next, 20, 20);
        assert_eq!((read, open, next), (10, 0, 20));
    }
}
