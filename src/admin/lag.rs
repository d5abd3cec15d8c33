//! The lag of the consumer groups: the distance from the committed offsets to the ends of the topics.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::Mutex;

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::topics::{MESSAGE_MAX, Names, needed};

/// The time for which an answer is reused, because many people may look at the page.
const REUSE_MAX: Duration = Duration::from_secs(2);
/// The time that the broker has for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The wait before the coordinator of a group, or the leader of a partition, is asked again.
const ELECTION_WAIT: Duration = Duration::from_millis(100);
/// The time that the broker has to return the first record of every partition.
const OLDEST_MAX: Duration = Duration::from_secs(2);

/// One partition of a topic that a group reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The offset that the group committed; None before its first commit.
    pub committed: Option<i64>,
    /// The offset after the last record.
    pub end: i64,
    /// The number of records that are not settled.
    pub lag: i64,
    /// The time at which the first of them was written, in Unix milliseconds. Only partitions of events have it. It is
    /// None where it can't be read in time.
    pub oldest_at_ms: Option<i64>,
}

/// Asks the broker for the lag of every partition, at most once per [`REUSE_MAX`].
pub struct Lags {
    config: Config,
    last: Mutex<Option<(Instant, Vec<Lag>)>>,
}

impl Lags {
    pub fn new(config: Config) -> Self {
        Self { config, last: Mutex::new(None) }
    }

    /// Every partition that the two groups read. For partitions of events, the time of the oldest record that is not
    /// settled is read as well, except for those in `known`: the worker that reads them reports that time.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn now(&self, known: HashSet<i32>) -> anyhow::Result<Vec<Lag>> {
        // One caller asks. The others wait for the lock and reuse its answer.
        let mut last = self.last.lock().await;
        if let Some((at, lags)) = &*last
            && at.elapsed() < REUSE_MAX
        {
            return Ok(lags.clone());
        }
        let config = self.config.clone();
        let lags = tokio::task::spawn_blocking(move || ask(&config, &known)).await.context("asking for the lag")??;
        *last = Some((Instant::now(), lags.clone()));
        Ok(lags)
    }
}

fn ask(config: &Config, known: &HashSet<i32>) -> anyhow::Result<Vec<Lag>> {
    let names = Names::new(config);
    let (waiting, events): (Vec<String>, Vec<String>) = needed(config, MESSAGE_MAX)
        .into_iter()
        .map(|topic| topic.name)
        .filter(|topic| *topic != names.dead_letters())
        .partition(|topic| names.is_waiting(topic));
    let consumer = consumer(config, names.events_group())?;
    let mut lags = group_lags(config, &consumer, &events)?;
    read_oldest_times(&consumer, &mut lags, known)?;
    lags.extend(group_lags(config, &self::consumer(config, &names.retry_group())?, &waiting)?);
    Ok(lags)
}

fn consumer(config: &Config, group: &str) -> anyhow::Result<BaseConsumer<Logging>> {
    let mut client = clients::consumer(config, group);
    client.set("enable.partition.eof", "true").create_with_context(Logging).context("kafka consumer")
}

/// Reads the time of the first record that is not settled, for each partition with a lag that is not in `known`. The
/// consumer assigns the partitions to itself and joins no group, so no worker loses a partition.
fn read_oldest_times(consumer: &BaseConsumer<Logging>, lags: &mut [Lag], known: &HashSet<i32>) -> anyhow::Result<()> {
    let mut firsts = TopicPartitionList::new();
    for lag in lags.iter().filter(|lag| lag.lag > 0 && !known.contains(&lag.partition)) {
        firsts.add_partition_offset(&lag.topic, lag.partition, Offset::Offset(lag.end - lag.lag))?;
    }
    let mut open: HashSet<i32> = firsts.elements().iter().map(|element| element.partition()).collect();
    let until = Instant::now() + OLDEST_MAX;
    consumer.assign(&firsts)?;
    while !open.is_empty() && Instant::now() < until {
        match consumer.poll(until.saturating_duration_since(Instant::now())) {
            Some(Ok(record)) if open.remove(&record.partition()) => {
                let mut read = TopicPartitionList::new();
                read.add_partition(record.topic(), record.partition());
                // The first record is enough. Without the pause the client would go on reading the partition.
                consumer.pause(&read)?;
                if let Some(lag) = lags.iter_mut().find(|lag| lag.partition == record.partition()) {
                    lag.oldest_at_ms = record.timestamp().to_millis();
                }
            }
            // The partition has no records left, only transaction markers.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the times of the oldest events can't be read");
                break;
            }
            Some(Ok(_)) | None => {}
        }
    }
    consumer.unassign().context("kafka consumer: unassign")
}

/// Asks again while the coordinator of the group, or the leader of a partition, is being elected or moved.
fn settled_answer<T>(ask: impl Fn() -> rdkafka::error::KafkaResult<T>) -> rdkafka::error::KafkaResult<T> {
    use rdkafka::types::RDKafkaErrorCode as Code;
    let until = Instant::now() + ANSWER_MAX;
    loop {
        let answer = ask();
        let is_transient = matches!(
            answer.as_ref().err().and_then(KafkaError::rdkafka_error_code),
            Some(
                Code::NotCoordinator
                    | Code::CoordinatorNotAvailable
                    | Code::CoordinatorLoadInProgress
                    | Code::NotLeaderForPartition
                    | Code::LeaderNotAvailable
            )
        );
        if !is_transient || Instant::now() >= until {
            return answer;
        }
        std::thread::sleep(ELECTION_WAIT);
    }
}

/// The lag of each partition of `topics` that `consumer`'s group reads.
fn group_lags(config: &Config, consumer: &BaseConsumer<Logging>, topics: &[String]) -> anyhow::Result<Vec<Lag>> {
    let away = || format!("kafka.brokers = {} don't answer", config.kafka.brokers);
    let mut partitions = TopicPartitionList::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_MAX).with_context(away)?;
        for partition in metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
            partitions.add_partition(topic, partition.id());
        }
    }
    if partitions.count() == 0 {
        return Ok(Vec::new());
    }
    let committed = settled_answer(|| consumer.committed_offsets(partitions.clone(), ANSWER_MAX)).with_context(away)?;
    let committed: HashMap<_, _> = committed.to_topic_map();
    let mut lags = Vec::with_capacity(committed.len());
    for element in partitions.elements() {
        let (topic, partition) = (element.topic().to_owned(), element.partition());
        let (low, end) =
            settled_answer(|| consumer.fetch_watermarks(&topic, partition, ANSWER_MAX)).with_context(away)?;
        let committed = match committed.get(&(topic.clone(), partition)) {
            Some(Offset::Offset(offset)) => Some(*offset),
            _ => None,
        };
        let lag = (end - committed.unwrap_or(low).max(low)).max(0);
        lags.push(Lag { topic, partition, committed, end, lag, oldest_at_ms: None });
    }
    Ok(lags)
}
