//! What topics are there against what is needed; missing ones are created.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::describe::{self, Settings};
use crate::kafka::logging::Logging;
use crate::topics::{MESSAGE_MAX, Names, Needed, needed};

const ANSWER_MAX: Duration = Duration::from_secs(15);

/// What stands in the way of starting.
#[derive(Debug, thiserror::Error)]
pub enum TopicsProblem {
    /// Topics that are missing, would lose data or may not be created; one line each.
    #[error("{0}")]
    Unfit(String),
    /// The broker can't be asked.
    #[error(transparent)]
    Away(#[from] anyhow::Error),
}

/// A needed topic as it stands.
#[derive(Debug, Default, serde::Serialize)]
pub struct Found {
    /// Its name.
    pub topic: String,
    /// Partitions; None where it is missing.
    pub partitions: Option<usize>,
    /// Why it would lose data.
    pub objection: Option<String>,
    /// Why it can't hold the largest records; they would be shortened, not lost.
    pub too_small: Option<String>,
    /// Why its settings can't be checked.
    pub unchecked: Option<String>,
    /// Its `max.message.bytes`, as far as that could be read.
    #[serde(skip)]
    pub max_message_bytes: Option<u64>,
}

impl Found {
    /// What an operator must mend before the worker can run on it.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.partitions.is_none() {
            let topic = &self.topic;
            return Some(format!(
                "topic {topic} is missing; `optio-webhooks topics create` or topics.create = true makes it"
            ));
        }
        self.objection.clone()
    }
}

/// Asks the broker.
pub struct Topics {
    admin: AdminClient<Logging>,
    config: Config,
    names: Names,
}

impl Topics {
    /// For the topics that the settings ask for.
    ///
    /// # Errors
    /// Where the client can't be made.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            admin: clients::producer(config).create_with_context(Logging).context("kafka client")?,
            names: Names::new(config),
            config: config.clone(),
        })
    }

    async fn partitions(&self) -> anyhow::Result<HashMap<String, usize>> {
        // Blocks on the network; a thread of its own waits for it.
        let metadata = tokio::task::block_in_place(|| self.admin.inner().fetch_metadata(None, ANSWER_MAX))
            .with_context(|| format!("kafka.brokers = {} don't answer", self.config.kafka.brokers))?;
        Ok(metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
            .collect())
    }

    /// Every needed topic as it stands.
    ///
    /// # Errors
    /// Where the broker can't be asked.
    pub async fn check(&self) -> anyhow::Result<Vec<Found>> {
        let there = self.partitions().await?;
        let needed = needed(&self.config, self.events_bytes(&there).await);
        let names = needed.iter().map(|needed| needed.name.as_str()).filter(|name| there.contains_key(*name));
        let mut settings = self.settings(names.collect()).await;
        let found = needed.iter().map(|needed| {
            let mut found =
                Found { topic: needed.name.clone(), partitions: there.get(&needed.name).copied(), ..Found::default() };
            match settings.remove(&needed.name) {
                Some(Ok(settings)) => {
                    found.objection = needed.objection(|key| settings.get(key).cloned());
                    found.max_message_bytes = max_message_bytes(&settings);
                    found.too_small = found.max_message_bytes.and_then(|bytes| needed.too_small(bytes));
                }
                Some(Err(why)) => found.unchecked = Some(format!("the broker doesn't tell its settings: {why}")),
                None if found.partitions.is_some() => {
                    found.unchecked = Some("the broker doesn't tell its settings".to_owned());
                }
                None => {}
            }
            found
        });
        Ok(found.collect())
    }

    /// Bytes of a record that the events' topic takes; Kafka's default where that can't be read.
    async fn events_bytes(&self, there: &HashMap<String, usize>) -> u64 {
        let events = self.names.events();
        if !there.contains_key(events) {
            return MESSAGE_MAX;
        }
        let settings = self.settings(vec![events]).await.remove(events);
        settings.and_then(Result::ok).and_then(|settings| max_message_bytes(&settings)).unwrap_or(MESSAGE_MAX)
    }

    /// The settings of topics, by name. What the broker refuses to tell is an error of that topic alone.
    async fn settings(&self, topics: Vec<&str>) -> HashMap<String, Settings> {
        // Blocks on the network; a thread of its own waits for it.
        let answer = tokio::task::block_in_place(|| describe::topics(&self.admin, &topics, ANSWER_MAX));
        answer.unwrap_or_else(|why| topics.iter().map(|topic| ((*topic).to_owned(), Err(why.clone()))).collect())
    }

    /// Creates what is missing; the names of what was created.
    ///
    /// # Errors
    /// [`TopicsProblem::Unfit`] where the broker refuses.
    pub async fn create(&self) -> Result<Vec<String>, TopicsProblem> {
        let there = self.partitions().await?;
        let needed = needed(&self.config, self.events_bytes(&there).await);
        let (partitions, replication_factor) = (self.config.topics.partitions, self.config.topics.replication_factor);
        let missing: Vec<&Needed> = needed.iter().filter(|needed| !there.contains_key(&needed.name)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let topics = missing.iter().map(|needed| {
            let new = NewTopic::new(&needed.name, partitions, TopicReplication::Fixed(replication_factor));
            needed.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
        });
        let topics: Vec<NewTopic<'_>> = topics.collect();
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX)).request_timeout(Some(ANSWER_MAX));
        let mut created = Vec::new();
        let answers = self.admin.create_topics(&topics, &options).await.context("topics can't be created")?;
        for result in answers {
            match result {
                Ok(name) => created.push(name),
                // Another worker was faster.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((
                    name,
                    RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::NotController,
                )) => {
                    return Err(anyhow::anyhow!("topic {name} wasn't created in time").into());
                }
                Err((name, code)) => {
                    return Err(TopicsProblem::Unfit(format!(
                        "topic {name} can't be created: {code}; see topics.partitions and topics.replication_factor"
                    )));
                }
            }
        }
        Ok(created)
    }

    /// Ready to run: what is missing is created if `create`, and nothing there would lose data. Gives what each topic
    /// allows a record to have, as far as that could be read.
    ///
    /// # Errors
    /// [`TopicsProblem`]
    pub async fn prepare(&self, create: bool) -> Result<HashMap<String, usize>, TopicsProblem> {
        if create {
            for topic in self.create().await? {
                tracing::info!(%topic, "topic created");
            }
        }
        let found = self.check().await?;
        for found in &found {
            if let Some(why) = &found.unchecked {
                tracing::warn!(topic = found.topic, why, "retention, cleanup policy and record size can't be checked");
            }
            if let Some(why) = &found.too_small {
                tracing::warn!(topic = found.topic, why, "what doesn't fit becomes a dead letter, or a shortened one");
            }
        }
        // One that was made a moment ago may not be in the metadata yet; with `create` it is known to be there.
        let counts = |found: &&Found| !create || found.partitions.is_some();
        let problems: Vec<String> = found.iter().filter(counts).filter_map(Found::problem).collect();
        if !problems.is_empty() {
            return Err(TopicsProblem::Unfit(problems.join("\n")));
        }
        let limits = found.into_iter().filter_map(|found| {
            let bytes = usize::try_from(found.max_message_bytes?).ok()?;
            Some((found.topic, bytes))
        });
        Ok(limits.collect())
    }
}

fn max_message_bytes(settings: &HashMap<String, String>) -> Option<u64> {
    settings.get("max.message.bytes")?.parse().ok()
}
