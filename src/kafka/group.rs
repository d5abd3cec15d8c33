//! Reads the committed offsets of consumer groups from the broker.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::topics::Names;

/// The time that the broker has for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The position of a group in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The topic's name.
    pub topic: String,
    /// The partition's number in the topic.
    pub partition: i32,
    /// The committed offset; `None` if the group never committed, or if the commit expired or was deleted.
    pub committed: Option<i64>,
}

/// The offsets of a partition's records, from `low` up to but not including `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the oldest record.
    pub low: i64,
    /// The offset that the next record will get.
    pub high: i64,
}

/// A client that reads a group's offsets without joining the group. Every call blocks on the network.
pub struct Group {
    consumer: BaseConsumer<Logging>,
}

impl Group {
    /// Makes a client that reads the offsets of `group`.
    ///
    /// # Errors
    /// Fails if the client can't be made.
    pub fn new(config: &Config, group: &str) -> anyhow::Result<Self> {
        let consumer =
            clients::consumer(config, group).create_with_context(Logging).context("the Kafka client can't be made")?;
        Ok(Self { consumer })
    }

    /// Returns the group's position in each partition of `topics`. Topics that don't exist have no partitions.
    ///
    /// # Errors
    /// Fails if the broker doesn't answer or refuses.
    pub fn positions(&self, topics: &[String]) -> anyhow::Result<Vec<Position>> {
        let mut partitions = TopicPartitionList::new();
        for topic in topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), ANSWER_MAX).context("the topics can't be read")?;
            for topic in metadata.topics().iter().filter(|topic| topic.error().is_none()) {
                for partition in topic.partitions() {
                    partitions.add_partition(topic.name(), partition.id());
                }
            }
        }
        if partitions.count() == 0 {
            return Ok(Vec::new());
        }
        let answer =
            self.consumer.committed_offsets(partitions, ANSWER_MAX).context("the group's commits can't be read")?;
        let position = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            element.error()?;
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            Ok(Position { topic: element.topic().to_owned(), partition: element.partition(), committed })
        };
        let positions: Result<Vec<Position>, rdkafka::error::KafkaError> =
            answer.elements().iter().map(position).collect();
        positions.context("the group's commits can't be read")
    }

    /// Returns the extent of a partition.
    ///
    /// # Errors
    /// Fails if the broker doesn't answer or refuses.
    pub fn extent(&self, topic: &str, partition: i32) -> anyhow::Result<Extent> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, partition, ANSWER_MAX)
            .with_context(|| format!("the offsets of {topic}/{partition} can't be read"))?;
        Ok(Extent { low, high })
    }
}

/// Finds out whether the worker's consumer groups have ever committed an offset.
#[derive(Clone)]
pub struct Commits {
    config: Arc<Config>,
    /// The result from before this process joined its groups, if it was read then. The inner value is the name of a
    /// group that had commits.
    at_start: Option<Option<String>>,
}

impl Commits {
    /// Reads the commits of the groups that the settings name.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, at_start: None }
    }

    /// Uses the result from before this process joined its groups. A later reading would find this process's own
    /// commits.
    #[must_use]
    pub fn found_at_start(self, at_start: Option<Option<String>>) -> Self {
        Self { at_start, ..self }
    }

    /// Returns the name of a group that has commits, if there is one.
    ///
    /// # Errors
    /// Fails if the broker doesn't answer or refuses.
    pub async fn of_any_group(&self) -> anyhow::Result<Option<String>> {
        if let Some(at_start) = &self.at_start {
            return Ok(at_start.clone());
        }
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || committed_group(&config))
            .await
            .context("the task that reads commits failed")?
    }
}

fn committed_group(config: &Config) -> anyhow::Result<Option<String>> {
    let names = Names::new(config);
    let mut retry_topics: Vec<String> =
        (1..=crate::schedule::Schedule::new(&config.delivery).tiers()).map(|tier| names.retry(tier)).collect();
    retry_topics.push(names.replays());
    for (group, topics) in
        [(names.events_group().to_owned(), vec![names.events().to_owned()]), (names.retry_group(), retry_topics)]
    {
        let positions = Group::new(config, &group)?.positions(&topics)?;
        if positions.iter().any(|position| position.committed.is_some()) {
            return Ok(Some(group));
        }
    }
    Ok(None)
}
