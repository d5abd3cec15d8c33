//! The worker: both consumers, the pipeline between them, and an orderly end.

pub mod health;
pub mod reporting;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

use crate::conditions::{Conditions, Severity};
use crate::config::Config;
use crate::http;
use crate::kafka::group::Commits;
use crate::kafka::{admin, clients};
use crate::pipeline::hand_off::{Limits, Producing};
use crate::pipeline::health::Health;
use crate::pipeline::{self, Edges, Ends};
use crate::store::backoffs::Backoffs;
use crate::store::failing::Failing;
use crate::store::log::DeliveryLog;
use crate::store::marks::MarkStreams;
use crate::store::recoveries::Recoveries;
use crate::store::reports::Reports;
use crate::store::settled::Recorder;
use crate::store::snapshot::{self, Snapshots};
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::topics::Names;

/// How long the consumers may take to leave their groups after a drain.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// How long the end waits for its report to go.
const REPORT_REMOVED_MAX: Duration = Duration::from_millis(500);

/// What is found out of the topics before a worker starts.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// `max.message.bytes` of the topics, as far as it could be read.
    pub limits: Limits,
    /// A group that had commits before this process joined it; None where that wasn't looked for.
    pub committed: Option<Option<String>>,
}

/// A worker that runs.
pub struct Worker {
    threads: Vec<JoinHandle<usize>>,
    ends: Ends,
    name: String,
    reports: Reports,
    /// For readiness.
    pub snapshots: Snapshots,
}

impl Worker {
    /// Starts both consumers. `topics` is what was found out of them; what waits shows in `conditions`.
    ///
    /// # Errors
    /// Where a client can't be made.
    pub fn start(config: &Arc<Config>, topics: Prepared, conditions: &Conditions) -> anyhow::Result<Self> {
        let ends = Ends::default();
        let (client, redis) = connection::open(&config.redis).context("redis.url")?;
        let keys = Keys::new(&config.redis.prefix);
        // The snapshot, the recorder and everything else have a connection each: nothing queues behind a large batch.
        let snapshots = snapshot::keep(
            snapshot::Setup {
                client,
                connection: redis.separate(),
                keys: keys.clone(),
                staleness_max: config.webhooks.staleness_max,
                timeout: config.redis.timeout,
                commits: Commits::new(config.clone()).as_found(topics.committed.clone()),
                conditions: conditions.clone(),
                severity: Severity::NotReady,
            },
            ends.stop_after.clone(),
        );
        let pipeline = pipeline::start(
            Edges {
                config: config.clone(),
                snapshots: snapshots.clone(),
                producing: Producing::new(clients::producer(config), &topics.limits, conditions.clone())
                    .context("kafka producer")?,
                client: http::client::new(&config.delivery).context("http client")?,
                recorder: Recorder::new(redis.separate(), keys.clone(), config.log.clone()),
                marks: MarkStreams::new(redis.clone(), keys.clone(), Names::new(config)),
                health: Health::new(
                    WebhookStore::new(redis.clone(), keys.clone()),
                    Failing::new(redis.clone(), &keys),
                    DeliveryLog::new(redis.clone(), keys.clone()),
                    config.webhooks.disable_after,
                ),
                backoffs: Backoffs::new(redis.clone(), &keys).up_to(config.delivery.back_off_max()),
                recoveries: Recoveries::new(redis.clone(), keys.clone()),
                conditions: conditions.clone(),
            },
            &ends,
        )?;
        let reports = Reports::new(redis.clone(), &keys);
        let name = format!("{} {}", hostname(), std::process::id());
        ends.keep(reporting::keep(
            pipeline.dispatcher,
            pipeline.assigned,
            reports.clone(),
            name.clone(),
            conditions.clone(),
        ));
        Ok(Self { threads: pipeline.threads, ends, snapshots, name, reports })
    }

    /// Checks the topics, then starts.
    ///
    /// # Errors
    /// [`admin::TopicsProblem`] where a topic would lose data, or where the broker stays away.
    pub async fn prepare(config: &Config) -> Result<Prepared, admin::TopicsProblem> {
        let topics = admin::Topics::new(config)?;
        let limits = topics.prepare(config.topics.create).await?;
        Ok(Prepared { limits, committed: None })
    }

    /// Returns when a part that must live has ended, by a fatal error or a panic. Cancel safe.
    pub async fn ended(&self) {
        self.ends.ended.cancelled().await;
    }

    /// Stops starting, finishes what is in flight, commits, leaves both groups. How much was given up.
    pub async fn drain(self, config: &Config) -> usize {
        self.ends.stop.cancel();
        let threads = self.threads;
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum());
        // Closing a consumer can hang (rust-rdkafka 509): by then everything is committed, and the end needn't wait.
        let left = match tokio::time::timeout(config.worker.drain_timeout + CLOSE_MAX, joined).await {
            Ok(left) => left.unwrap_or(0),
            Err(_) => {
                tracing::warn!("a consumer doesn't close; the group will notice by its session timeout");
                0
            }
        };
        self.ends.stop_after.cancel();
        // Redis that is away must not hold the end: the report grows old by itself.
        let removed = tokio::time::timeout(REPORT_REMOVED_MAX, self.reports.remove(&self.name)).await;
        tracing::debug!(removed = removed.is_ok_and(|removed| removed.is_ok()), "report");
        left
    }
}

/// This machine's name; empty where it doesn't say.
#[must_use]
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
