//! The worker: both consumers, the pipeline, and an orderly drain.

pub mod gauges;
pub mod heartbeat;
pub mod notifier;
pub mod readiness;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

use crate::conditions::{Conditions, Severity};
use crate::config::Config;
use crate::http;
use crate::kafka::group::Commits;
use crate::kafka::{admin, clients};
use crate::pipeline::disabling::Disabling;
use crate::pipeline::hand_off::{Limits, Producing};
use crate::pipeline::pulse::Pulse;
use crate::pipeline::{self, Edges, Ends};
use crate::store::backoffs::Backoffs;
use crate::store::failing::Failing;
use crate::store::log::DeliveryLog;
use crate::store::marks::MarkStreams;
use crate::store::recoveries::Recoveries;
use crate::store::settled::Recorder;
use crate::store::snapshot::{self, Snapshots};
use crate::store::webhooks::WebhookStore;
use crate::store::workers::Reports;
use crate::store::{Keys, connection};
use crate::topics::Names;
use crate::webhook::stored::Sealing;
use gauges::Observed;

/// How long the consumers may take to leave their groups after a drain.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// How long a drain waits until its report is removed from Redis.
const REPORT_REMOVED_MAX: Duration = Duration::from_millis(500);

/// The facts about topics and consumer groups that are determined before a worker starts.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// The `max.message.bytes` of the topics, as far as they could be read.
    pub limits: Limits,
    /// A consumer group that had commits before this process joined it. The outer None means that nobody looked for
    /// one.
    pub committed: Option<Option<String>>,
}

/// A running worker.
pub struct Worker {
    threads: Vec<JoinHandle<usize>>,
    ends: Ends,
    name: String,
    reports: Reports,
    /// The snapshots of the webhooks, on which readiness depends.
    pub snapshots: Snapshots,
    /// The state that health and metrics show.
    pub observed: Observed,
}

impl Worker {
    /// Starts the consumers and the pipeline. Work that waits for Kafka or Redis shows in `conditions`.
    ///
    /// # Errors
    /// If a client or a thread cannot be created.
    pub fn start(config: &Arc<Config>, topics: Prepared, conditions: &Conditions) -> anyhow::Result<Self> {
        let ends = Ends::default();
        let redis = connection::open(&config.redis).context("redis.url")?;
        let keys = Keys::new(&config.redis.prefix);
        // The snapshot, the recorder and the rest have separate connections, so that nothing queues behind a large
        // batch.
        let snapshots = snapshot::keep(
            snapshot::Setup {
                connection: redis.separate(),
                keys: keys.clone(),
                sealing: Sealing::of(&config.secrets)?,
                staleness_max: config.webhooks.staleness_max,
                timeout: config.redis.timeout,
                commits: Commits::new(config.clone()).found_at_start(topics.committed.clone()),
                conditions: conditions.clone(),
                severity: Severity::NotReady,
            },
            ends.drained.clone(),
            {
                let ended = ends.ended.clone();
                move || ended.cancel()
            },
        );
        let pulse = Pulse::default();
        let pipeline = pipeline::start(
            Edges {
                config: config.clone(),
                snapshots: snapshots.clone(),
                producing: Producing::new(clients::producer(config), &topics.limits, conditions.clone())
                    .context("kafka producer")?,
                client: http::client::new(&config.delivery).context("http client")?,
                recorder: Recorder::new(redis.separate(), keys.clone(), config.log.clone()),
                marks: MarkStreams::new(redis.clone(), keys.clone(), Names::new(config)),
                disabling: Disabling::new(
                    WebhookStore::open(config, redis.clone())?,
                    Failing::new(redis.clone(), &keys),
                    DeliveryLog::new(redis.clone(), keys.clone()),
                    config.webhooks.disable_after,
                ),
                backoffs: Backoffs::new(redis.clone(), &keys).up_to(config.delivery.back_off_max()),
                recoveries: Recoveries::new(redis.clone(), keys.clone()),
                conditions: conditions.clone(),
                pulse: pulse.clone(),
            },
            &ends,
        )?;
        let observed = Observed {
            dispatcher: pipeline.dispatcher.clone(),
            assigned: pipeline.assigned.clone(),
            pulse,
            // A drain may wait this long in a rebalance, on the thread that polls.
            stuck_after: config.worker.drain_timeout + config.worker.stuck_after,
        };
        let reports = Reports::new(redis.clone(), &keys);
        let name = format!("{} {}", hostname(), std::process::id());
        ends.keep(notifier::Notifier::new(config, &redis, &name)?.run(conditions.clone()));
        ends.keep(heartbeat::keep(
            pipeline.dispatcher,
            pipeline.assigned,
            reports.clone(),
            name.clone(),
            conditions.clone(),
        ));
        Ok(Self { threads: pipeline.threads, ends, snapshots, observed, name, reports })
    }

    /// Checks the topics before a start, and creates missing ones if `topics.create` allows it.
    ///
    /// # Errors
    /// [`admin::TopicsProblem`] if a topic is missing or would lose data, or if the broker does not answer.
    pub async fn prepare(config: &Config) -> Result<Prepared, admin::TopicsProblem> {
        let topics = admin::Topics::new(config)?;
        let limits = topics.prepare(config.topics.create).await?;
        Ok(Prepared { limits, committed: None })
    }

    /// Returns when a vital part has ended, because of a fatal error or a panic. Cancel safe.
    pub async fn ended(&self) {
        self.ends.ended.cancelled().await;
    }

    /// Drains the worker: starts no new deliveries, finishes those in flight, commits the offsets and leaves both
    /// groups. Returns the number of deliveries that did not finish in `worker.drain_timeout`.
    pub async fn drain(self, config: &Config) -> usize {
        self.ends.stop.cancel();
        let threads = self.threads;
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum());
        // Closing a consumer can hang (rust-rdkafka issue 509). All offsets are committed by then, so do not wait
        // longer.
        let unfinished = match tokio::time::timeout(config.worker.drain_timeout + CLOSE_MAX, joined).await {
            Ok(unfinished) => unfinished.unwrap_or(0),
            Err(_) => {
                tracing::warn!("a consumer does not close; its group removes it after the session timeout");
                0
            }
        };
        self.ends.drained.cancel();
        // Do not wait longer if Redis is unavailable, because the report becomes outdated by itself.
        let removed = tokio::time::timeout(REPORT_REMOVED_MAX, self.reports.remove(&self.name)).await;
        tracing::debug!(removed = removed.is_ok_and(|removed| removed.is_ok()), "removal of the report ended");
        unfinished
    }
}

/// The host name of this machine. Empty if it cannot be read.
#[must_use]
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
