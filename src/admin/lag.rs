//! How far behind the groups are: what is committed against where the topics end.

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

/// An answer serves for so long: the page may be looked at by many.
const FRESH: Duration = Duration::from_secs(2);
/// How long the broker may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How soon it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long it may take to bring the first record of each partition.
const OLDEST_MAX: Duration = Duration::from_secs(2);

/// One partition of a topic that a group reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// What its group committed; None before its first commit.
    pub committed: Option<i64>,
    /// One past the last record.
    pub end: i64,
    /// Records that aren't settled.
    pub lag: i64,
    /// When the first of them was written, Unix milliseconds; of events only, and None where it can't be read in time.
    pub oldest_at_ms: Option<i64>,
}

/// Asks the broker, not more often than needed.
pub struct Lags {
    config: Config,
    last: Mutex<Option<(Instant, Vec<Lag>)>>,
}

impl Lags {
    /// Nothing asked yet.
    pub fn new(config: Config) -> Self {
        Self { config, last: Mutex::new(None) }
    }

    /// Every partition that the two groups read. Of partitions of events that aren't `dated` by who reads them it is also
    /// found out how long they wait.
    ///
    /// # Errors
    /// Where the broker is away.
    pub async fn now(&self, dated: HashSet<i32>) -> anyhow::Result<Vec<Lag>> {
        // One asks at a time; the others wait for its answer.
        let mut last = self.last.lock().await;
        if let Some((at, lags)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(lags.clone());
        }
        let config = self.config.clone();
        let lags = tokio::task::spawn_blocking(move || ask(&config, &dated)).await.context("asking for the lag")??;
        *last = Some((Instant::now(), lags.clone()));
        Ok(lags)
    }
}

fn ask(config: &Config, dated: &HashSet<i32>) -> anyhow::Result<Vec<Lag>> {
    let names = Names::new(config);
    let (waiting, events): (Vec<String>, Vec<String>) = needed(config, MESSAGE_MAX)
        .into_iter()
        .map(|topic| topic.name)
        .filter(|topic| *topic != names.dead_letters())
        .partition(|topic| names.is_waiting(topic));
    let consumer = consumer(config, names.events_group())?;
    let mut lags = of_group(config, &consumer, &events)?;
    date(&consumer, &mut lags, dated)?;
    lags.extend(of_group(config, &self::consumer(config, &names.retry_group())?, &waiting)?);
    Ok(lags)
}

fn consumer(config: &Config, group: &str) -> anyhow::Result<BaseConsumer<Logging>> {
    let mut client = clients::consumer(config, group);
    client.set("enable.partition.eof", "true").create_with_context(Logging).context("kafka consumer")
}

/// Reads when the first record was written of each partition with a lag that isn't `dated` elsewhere. It joins no
/// group: nobody's partition goes.
fn date(consumer: &BaseConsumer<Logging>, lags: &mut [Lag], dated: &HashSet<i32>) -> anyhow::Result<()> {
    let mut firsts = TopicPartitionList::new();
    for behind in lags.iter().filter(|lag| lag.lag > 0 && !dated.contains(&lag.partition)) {
        firsts.add_partition_offset(&behind.topic, behind.partition, Offset::Offset(behind.end - behind.lag))?;
    }
    let mut open: HashSet<i32> = firsts.elements().iter().map(|element| element.partition()).collect();
    let until = Instant::now() + OLDEST_MAX;
    consumer.assign(&firsts)?;
    while !open.is_empty() && Instant::now() < until {
        match consumer.poll(until.saturating_duration_since(Instant::now())) {
            Some(Ok(record)) if open.remove(&record.partition()) => {
                let mut read = TopicPartitionList::new();
                read.add_partition(record.topic(), record.partition());
                // One is enough: what it would read on isn't wanted.
                consumer.pause(&read)?;
                if let Some(lag) = lags.iter_mut().find(|lag| lag.partition == record.partition()) {
                    lag.oldest_at_ms = record.timestamp().to_millis();
                }
            }
            // Only marks of transactions are left there.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the oldest events can't be read");
                break;
            }
            Some(Ok(_)) | None => {}
        }
    }
    consumer.unassign().context("kafka consumer: unassign")
}

/// What is committed. A group's coordinator that is being found, or is moving, is asked again.
fn committed(
    consumer: &BaseConsumer<Logging>,
    partitions: &TopicPartitionList,
) -> rdkafka::error::KafkaResult<TopicPartitionList> {
    use rdkafka::types::RDKafkaErrorCode as Code;
    let until = Instant::now() + ANSWER_MAX;
    loop {
        let answer = consumer.committed_offsets(partitions.clone(), ANSWER_MAX);
        let passes = matches!(
            answer.as_ref().err().and_then(KafkaError::rdkafka_error_code),
            Some(Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress)
        );
        if !passes || Instant::now() >= until {
            return answer;
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

fn of_group(config: &Config, consumer: &BaseConsumer<Logging>, topics: &[String]) -> anyhow::Result<Vec<Lag>> {
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
    let committed = committed(consumer, &partitions).with_context(away)?;
    let committed: HashMap<_, _> = committed.to_topic_map();
    let mut lags = Vec::with_capacity(committed.len());
    for element in partitions.elements() {
        let (topic, partition) = (element.topic().to_owned(), element.partition());
        let (low, end) = consumer.fetch_watermarks(&topic, partition, ANSWER_MAX).with_context(away)?;
        let committed = match committed.get(&(topic.clone(), partition)) {
            Some(Offset::Offset(offset)) => Some(*offset),
            _ => None,
        };
        let lag = (end - committed.unwrap_or(low).max(low)).max(0);
        lags.push(Lag { topic, partition, committed, end, lag, oldest_at_ms: None });
    }
    Ok(lags)
}
