//! What a consumer group has committed, as the broker has it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::topics::Names;

/// One answer of the broker may take this long.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// One partition as a group sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// What the group committed; None where it never did, or where that was forgotten.
    pub committed: Option<i64>,
}

/// A partition's records: from `low` to before `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first offset that is still there.
    pub low: i64,
    /// One past the last record.
    pub high: i64,
}

/// A group, asked without joining it. Every call blocks on the network.
pub struct Group {
    consumer: BaseConsumer<Logging>,
}

impl Group {
    /// Asks about `group`.
    ///
    /// # Errors
    /// Where the client can't be made.
    pub fn new(config: &Config, group: &str) -> anyhow::Result<Self> {
        let consumer = clients::consumer(config, group).create_with_context(Logging).context("kafka client")?;
        Ok(Self { consumer })
    }

    /// What it committed of each partition of `topics`; a topic that is missing has none.
    ///
    /// # Errors
    /// Where the broker doesn't answer, or refuses.
    pub fn positions(&self, topics: &[String]) -> anyhow::Result<Vec<Position>> {
        let mut asked = TopicPartitionList::new();
        for topic in topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), ANSWER_MAX).context("the topics can't be read")?;
            for topic in metadata.topics().iter().filter(|topic| topic.error().is_none()) {
                for partition in topic.partitions() {
                    asked.add_partition(topic.name(), partition.id());
                }
            }
        }
        if asked.count() == 0 {
            return Ok(Vec::new());
        }
        let answer = self.consumer.committed_offsets(asked, ANSWER_MAX).context("the group's commits can't be read")?;
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

    /// Which records a partition has.
    ///
    /// # Errors
    /// Where the broker doesn't answer, or refuses.
    pub fn extent(&self, topic: &str, partition: i32) -> anyhow::Result<Extent> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, partition, ANSWER_MAX)
            .with_context(|| format!("the offsets of {topic}/{partition} can't be read"))?;
        Ok(Extent { low, high })
    }
}

/// Whether anything was ever committed by the groups that deliver.
#[derive(Clone)]
pub struct Commits {
    config: Arc<Config>,
    /// What was found before this process joined its groups, where it was looked for.
    at_start: Option<Option<String>>,
}

impl Commits {
    /// Of the groups that the settings name.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, at_start: None }
    }

    /// The same with what was found before this process joined its groups: from then on it has commits of its own.
    #[must_use]
    pub fn as_found(self, at_start: Option<Option<String>>) -> Self {
        Self { at_start, ..self }
    }

    /// The name of a group that has commits, if one has.
    ///
    /// # Errors
    /// Where the broker doesn't answer, or refuses.
    pub async fn of_any_group(&self) -> anyhow::Result<Option<String>> {
        if let Some(at_start) = &self.at_start {
            return Ok(at_start.clone());
        }
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || committed_group(&config)).await.context("the question was given up")?
    }
}

fn committed_group(config: &Config) -> anyhow::Result<Option<String>> {
    let names = Names::new(config);
    let mut waiting: Vec<String> =
        (1..=crate::schedule::Schedule::new(&config.delivery).tiers()).map(|tier| names.retry(tier)).collect();
    waiting.push(names.replays());
    for (group, topics) in
        [(names.events_group().to_owned(), vec![names.events().to_owned()]), (names.retry_group(), waiting)]
    {
        let positions = Group::new(config, &group)?.positions(&topics)?;
        if positions.iter().any(|position| position.committed.is_some()) {
            return Ok(Some(group));
        }
    }
    Ok(None)
}
