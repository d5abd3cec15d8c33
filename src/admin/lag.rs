//! How far behind the groups are: what is committed against where the topics end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::Mutex;

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::words::Words;
use crate::topics::{Names, needed};

/// An answer serves for so long: the page may be looked at by many.
const FRESH: Duration = Duration::from_secs(2);
/// How long the broker may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
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

    /// Every partition that the two groups read.
    ///
    /// # Errors
    /// Where the broker is away.
    pub async fn now(&self) -> anyhow::Result<Vec<Lag>> {
        // One asks at a time; the others wait for its answer.
        let mut last = self.last.lock().await;
        if let Some((at, lags)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(lags.clone());
        }
        let config = self.config.clone();
        let lags = tokio::task::spawn_blocking(move || ask(&config)).await.context("asking for the lag")??;
        *last = Some((Instant::now(), lags.clone()));
        Ok(lags)
    }
}

fn ask(config: &Config) -> anyhow::Result<Vec<Lag>> {
    let names = Names::new(config);
    let (waiting, events): (Vec<String>, Vec<String>) = needed(config)
        .into_iter()
        .map(|topic| topic.name)
        .filter(|topic| *topic != names.dead_letters())
        .partition(|topic| names.is_waiting(topic));
    let consumer = consumer(config, names.events_group())?;
    let mut lags = of_group(config, &consumer, &events)?;
    date(&consumer, &mut lags)?;
    lags.extend(of_group(config, &self::consumer(config, &names.retry_group())?, &waiting)?);
    Ok(lags)
}

fn consumer(config: &Config, group: &str) -> anyhow::Result<BaseConsumer<Words>> {
    clients::consumer(config, group).create_with_context(Words).context("kafka consumer")
}

/// Reads when the first record of each that isn't settled was written. It joins no group: nobody's partition goes.
fn date(consumer: &BaseConsumer<Words>, lags: &mut [Lag]) -> anyhow::Result<()> {
    let mut firsts = TopicPartitionList::new();
    for behind in lags.iter().filter(|lag| lag.lag > 0) {
        firsts.add_partition_offset(&behind.topic, behind.partition, Offset::Offset(behind.end - behind.lag))?;
    }
    let (mut open, until) = (firsts.count(), Instant::now() + OLDEST_MAX);
    consumer.assign(&firsts)?;
    while open > 0 && Instant::now() < until {
        let Some(Ok(record)) = consumer.poll(until.saturating_duration_since(Instant::now())) else { continue };
        let lag = lags.iter_mut().find(|lag| lag.topic == record.topic() && lag.partition == record.partition());
        if let Some(lag) = lag.filter(|lag| lag.oldest_at_ms.is_none()) {
            // A record without a time is as old as can be said.
            lag.oldest_at_ms = Some(record.timestamp().to_millis().unwrap_or(0));
            open -= 1;
        }
    }
    consumer.unassign().context("kafka consumer: unassign")
}

fn of_group(config: &Config, consumer: &BaseConsumer<Words>, topics: &[String]) -> anyhow::Result<Vec<Lag>> {
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
    let committed = consumer.committed_offsets(partitions.clone(), ANSWER_MAX).with_context(away)?;
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
