//! What topics are there against what is needed; missing ones are created.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::words::Words;
use crate::topics::{Names, Needed, needed};

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
#[derive(Debug, serde::Serialize)]
pub struct Found {
    /// Its name.
    pub topic: String,
    /// Partitions; None where it is missing.
    pub partitions: Option<usize>,
    /// Why it would lose data.
    pub objection: Option<String>,
}

impl Found {
    /// What an operator must mend before the worker can run on it.
    #[must_use]
    pub fn problem(self) -> Option<String> {
        let missing = || {
            format!("topic {} is missing; `optio-webhooks topics create` or topics.create = true makes it", self.topic)
        };
        if self.partitions.is_none() { Some(missing()) } else { self.objection }
    }
}

/// Asks the broker.
pub struct Topics {
    admin: AdminClient<Words>,
    needed: Vec<Needed>,
    names: Names,
    brokers: String,
    partitions: i32,
    replication_factor: i32,
}

impl Topics {
    /// For the topics that the settings ask for.
    ///
    /// # Errors
    /// Where the client can't be made.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            admin: clients::producer(config).create_with_context(Words).context("kafka client")?,
            needed: needed(config),
            names: Names::new(config),
            brokers: config.kafka.brokers.clone(),
            partitions: config.topics.partitions,
            replication_factor: config.topics.replication_factor,
        })
    }

    async fn partitions(&self) -> anyhow::Result<HashMap<String, usize>> {
        // Blocks on the network; a thread of its own waits for it.
        let metadata = tokio::task::block_in_place(|| self.admin.inner().fetch_metadata(None, ANSWER_MAX))
            .with_context(|| format!("kafka.brokers = {} don't answer", self.brokers))?;
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
        let mut found = Vec::with_capacity(self.needed.len());
        for needed in &self.needed {
            let partitions = there.get(&needed.name).copied();
            let objection = if partitions.is_some() { self.objection(needed).await? } else { None };
            found.push(Found { topic: needed.name.clone(), partitions, objection });
        }
        Ok(found)
    }

    async fn objection(&self, needed: &Needed) -> anyhow::Result<Option<String>> {
        let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
        let answers = self.admin.describe_configs([&ResourceSpecifier::Topic(&needed.name)], &options).await?;
        let Some(Ok(settings)) = answers.into_iter().next() else {
            anyhow::bail!("the settings of topic {} can't be read", needed.name)
        };
        Ok(needed.objection(|key| settings.get(key).and_then(|entry| entry.value.clone())))
    }

    /// Creates what is missing; the names of what was created.
    ///
    /// # Errors
    /// [`TopicsProblem::Unfit`] where the broker refuses.
    pub async fn create(&self) -> Result<Vec<String>, TopicsProblem> {
        let there = self.partitions().await?;
        let missing: Vec<&Needed> = self.needed.iter().filter(|needed| !there.contains_key(&needed.name)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let topics = missing.iter().map(|needed| {
            let new = NewTopic::new(&needed.name, self.partitions, TopicReplication::Fixed(self.replication_factor));
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

    /// Ready to run: what is missing is created if `create`, and nothing there would lose data.
    ///
    /// # Errors
    /// [`TopicsProblem`]
    pub async fn prepare(&self, create: bool) -> Result<(), TopicsProblem> {
        if create {
            for topic in self.create().await? {
                tracing::info!(%topic, "topic created");
            }
        }
        let found = self.check().await?;
        // One that was made a moment ago may not be in the metadata yet; with `create` it is known to be there.
        let counts = |found: &Found| !create || found.partitions.is_some();
        let problems: Vec<String> = found.into_iter().filter(counts).filter_map(Found::problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(TopicsProblem::Unfit(problems.join("\n"))) }
    }

    /// What the retry group reads. Retry tiers beyond the ones that the settings ask for are among them: an earlier
    /// configuration left them, perhaps with records that wait.
    ///
    /// # Errors
    /// Where the broker can't be asked.
    pub async fn waiting(&self) -> anyhow::Result<Vec<String>> {
        let there = self.partitions().await?;
        let needed = self.needed.iter().map(|needed| needed.name.clone());
        let mut waiting: Vec<String> =
            there.into_keys().chain(needed).filter(|topic| self.names.is_waiting(topic)).collect();
        waiting.sort();
        waiting.dedup();
        Ok(waiting)
    }
}
