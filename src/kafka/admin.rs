//! Compares the existing topics with the required ones, and creates missing ones.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::describe::settings::{self, Settings};
use crate::kafka::logging::Logging;
use crate::kafka::refusal;
use crate::topics::{MESSAGE_MAX, Names, Needed, needed};

/// The time that the broker has for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// The reason why a worker can't start on the topics.
#[derive(Debug, thiserror::Error)]
pub enum TopicsProblem {
    /// Topics are missing, would lose data or may not be created. The text has one line for each.
    #[error("{0}")]
    Unfit(String),
    /// The broker can't be reached or doesn't answer.
    #[error(transparent)]
    Away(#[from] anyhow::Error),
}

/// A required topic, compared with the existing one.
#[derive(Debug, Default, serde::Serialize)]
pub struct Found {
    /// The topic's name.
    pub topic: String,
    /// The number of partitions; `None` if the topic is missing.
    pub partitions: Option<usize>,
    /// Why the topic would lose data.
    pub objection: Option<String>,
    /// Why the topic can't hold the largest records. Such records would be dead-lettered or shortened, but not lost.
    pub too_small: Option<String>,
    /// Why the topic's settings can't be checked.
    pub unchecked: Option<String>,
    /// The topic's `max.message.bytes`, if it could be read.
    #[serde(skip)]
    pub max_message_bytes: Option<u64>,
}

impl Found {
    /// Returns the problem that an operator must solve before the worker can run on this topic.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.partitions.is_none() {
            let topic = &self.topic;
            return Some(format!(
                "topic {topic} is missing; `optio-webhooks topics create` or topics.create = true creates it"
            ));
        }
        self.objection.clone()
    }
}

/// Checks and creates topics on the broker.
pub struct Topics {
    admin: AdminClient<Logging>,
    config: Config,
    names: Names,
}

impl Topics {
    /// Prepares for the topics that the settings require.
    ///
    /// # Errors
    /// Fails if the client can't be made.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            admin: clients::producer(config).create_with_context(Logging).context("the Kafka client can't be made")?,
            names: Names::new(config),
            config: config.clone(),
        })
    }

    /// Returns the number of partitions of each topic on the broker.
    async fn partitions(&self) -> anyhow::Result<HashMap<String, usize>> {
        // The call blocks on the network, so the other tasks of this thread move to another one.
        let metadata = tokio::task::block_in_place(|| self.admin.inner().fetch_metadata(None, ANSWER_MAX))
            .with_context(|| self.no_answer())?;
        Ok(metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
            .collect())
    }

    /// Says why there is no answer. A client that the broker refuses gets none either.
    fn no_answer(&self) -> String {
        let brokers = &self.config.kafka.brokers;
        match tokio::task::block_in_place(|| refusal::ask(&self.config)) {
            Some(refusal) => format!("kafka.brokers = {brokers}: {refusal}"),
            None => format!("the brokers don't answer (kafka.brokers = {brokers})"),
        }
    }

    /// Compares every required topic with the existing one.
    ///
    /// # Errors
    /// Fails if the broker can't be reached or doesn't answer.
    pub async fn check(&self) -> anyhow::Result<Vec<Found>> {
        let existing = self.partitions().await?;
        let needed = needed(&self.config, self.events_bytes(&existing).await);
        let names = needed.iter().map(|needed| needed.name.as_str()).filter(|name| existing.contains_key(*name));
        let mut settings = self.settings(names.collect()).await;
        let found = needed.iter().map(|needed| {
            let mut found = Found {
                topic: needed.name.clone(),
                partitions: existing.get(&needed.name).copied(),
                ..Found::default()
            };
            match settings.remove(&needed.name) {
                Some(Ok(settings)) => {
                    found.objection = needed.objection(|key| settings.get(key).cloned());
                    found.max_message_bytes = max_message_bytes(&settings);
                    found.too_small = found.max_message_bytes.and_then(|bytes| needed.too_small(bytes));
                }
                Some(Err(why)) => found.unchecked = Some(format!("its settings can't be read: {why}")),
                None if found.partitions.is_some() => {
                    found.unchecked = Some("its settings are missing from the broker's answer".to_owned());
                }
                None => {}
            }
            found
        });
        Ok(found.collect())
    }

    /// Returns the largest record that the events topic accepts, in bytes; Kafka's default if that can't be read.
    async fn events_bytes(&self, existing: &HashMap<String, usize>) -> u64 {
        let events = self.names.events();
        if !existing.contains_key(events) {
            return MESSAGE_MAX;
        }
        let settings = self.settings(vec![events]).await.remove(events);
        settings.and_then(Result::ok).and_then(|settings| max_message_bytes(&settings)).unwrap_or(MESSAGE_MAX)
    }

    /// Returns the settings of `topics` by name. A refusal is an error of that topic alone; if the whole request fails,
    /// all of them have its error.
    async fn settings(&self, topics: Vec<&str>) -> HashMap<String, Settings> {
        // The call blocks on the network, so the other tasks of this thread move to another one.
        let answer = tokio::task::block_in_place(|| settings::topics(&self.admin, &topics, ANSWER_MAX));
        answer.unwrap_or_else(|why| topics.iter().map(|topic| ((*topic).to_owned(), Err(why.clone()))).collect())
    }

    /// Creates the missing topics and returns their names.
    ///
    /// # Errors
    /// [`TopicsProblem::Unfit`] if the broker refuses, [`TopicsProblem::Away`] if it doesn't answer in time.
    pub async fn create(&self) -> Result<Vec<String>, TopicsProblem> {
        let existing = self.partitions().await?;
        let needed = needed(&self.config, self.events_bytes(&existing).await);
        let (partitions, replication_factor) = (self.config.topics.partitions, self.config.topics.replication_factor);
        let missing: Vec<&Needed> = needed.iter().filter(|needed| !existing.contains_key(&needed.name)).collect();
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
                // Another worker created it in the meantime.
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

    /// Gets the topics ready for a worker: creates missing ones if `create`, then checks that none would lose data.
    /// Returns the largest record that each topic accepts, in bytes. Topics whose settings can't be read are left out.
    ///
    /// # Errors
    /// [`TopicsProblem`] if the worker can't start on these topics.
    pub async fn prepare(&self, create: bool) -> Result<HashMap<String, usize>, TopicsProblem> {
        if create {
            for topic in self.create().await? {
                tracing::info!(%topic, "topic created");
            }
        }
        let found = self.check().await?;
        for found in &found {
            if let Some(why) = &found.unchecked {
                tracing::warn!(topic = found.topic, why, "topic settings can't be checked");
            }
            if let Some(why) = &found.too_small {
                tracing::warn!(
                    topic = found.topic,
                    why,
                    "records too large for this topic are dead-lettered or shortened"
                );
            }
        }
        // A topic that was just created may not be in the metadata yet. With `create`, no topic can be missing.
        let is_relevant = |found: &&Found| !create || found.partitions.is_some();
        let problems: Vec<String> = found.iter().filter(is_relevant).filter_map(Found::problem).collect();
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
