//! The worker: both consumers, the pipeline between them, and an orderly end.

pub mod health;
pub mod reporting;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::conditions::{Conditions, Severity};
use crate::config::Config;
use crate::event;
use crate::http;
use crate::kafka::group::Commits;
use crate::kafka::{admin, clients};
use crate::pipeline::consume::{self, Intake, Retries, Setup, Trim};
use crate::pipeline::fan_out;
use crate::pipeline::hand_off::{HandOff, Limits, Producing};
use crate::pipeline::health::Health;
use crate::pipeline::predecessors::Predecessors;
use crate::pipeline::repairs;
use crate::pipeline::settle::{self, Groups};
use crate::pipeline::standstill::Standstill;
use crate::pipeline::{Batch, Parts, Pipeline};
use crate::store::connection::Connection;
use crate::store::failing::Failing;
use crate::store::left_alone::LeftAlone;
use crate::store::log::DeliveryLog;
use crate::store::repaired::Repaired;
use crate::store::reports::Reports;
use crate::store::snapshot::{self, Snapshots};
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::topics::Names;

/// Batches between a poll thread and its fan-out.
const BATCHES_MAX: usize = 4;

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
    stop: CancellationToken,
    /// Cancelled when any part that must live has ended.
    ended: CancellationToken,
    /// Ends what must outlive the drain.
    stop_after: CancellationToken,
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
        let [stop, stop_after, ended] = std::array::from_fn(|_| CancellationToken::new());
        let (client, redis) = connection::open(&config.redis).context("redis.url")?;
        let keys = Keys::new(&config.redis.prefix);
        let names = Names::new(config);
        let groups = Groups(names.clone());
        let store = WebhookStore::new(redis.clone(), keys.clone());
        let snapshots = snapshot::keep(
            snapshot::Setup {
                client,
                connection: redis.another(),
                keys: keys.clone(),
                staleness_max: config.webhooks.staleness_max,
                timeout: config.redis.timeout,
                commits: Commits::new(config.clone()).as_found(topics.committed.clone()),
                conditions: conditions.clone(),
                severity: Severity::NotReady,
            },
            stop_after.clone(),
        );
        let settler = settle::start(settle::Setup {
            connection: redis.another(),
            keys: keys.clone(),
            groups: groups.clone(),
            log: config.log.clone(),
            redis: config.redis.clone(),
            snapshots: snapshots.clone(),
            conditions: conditions.clone(),
            ended: ended.clone().drop_guard(),
        });
        let producing = Producing::new(clients::producer(config), &topics.limits, conditions.clone());
        let hand_off = HandOff::new(producing.context("kafka producer")?, names.clone());
        let http_client = http::client::new(&config.delivery).context("http client")?;
        let health = Health::new(
            store.clone(),
            Failing::new(redis.clone(), &keys),
            DeliveryLog::new(redis.clone(), keys.clone()),
            config.webhooks.disable_after,
        );
        let left_alone = LeftAlone::new(redis.clone(), &keys).up_to(config.delivery.left_alone_max());
        let repaired = Repaired::new(redis.clone(), keys.clone());
        let pipeline = Arc::new(Pipeline::new(Parts {
            config: config.clone(),
            snapshots: snapshots.clone(),
            client: http_client,
            hand_off,
            settler,
            health,
            left_alone,
            repaired: repaired.clone(),
            conditions: conditions.clone(),
        }));
        tokio::spawn(stop_after.clone().run_until_cancelled_owned(pipeline.clone().sweep()));
        tokio::spawn(stop_after.clone().run_until_cancelled_owned(repairs::listen(pipeline.clone(), repaired)));
        let assigned = Arc::new(reporting::Assigned::default());
        let reports = Reports::new(redis.clone(), &keys);
        let name = format!("{} {}", hostname(), std::process::id());
        let reporting =
            reporting::keep(pipeline.clone(), assigned.clone(), reports.clone(), name.clone(), conditions.clone());
        tokio::spawn(stop_after.clone().run_until_cancelled_owned(reporting));
        let predecessors = Predecessors {
            connection: redis.clone(),
            keys: keys.clone(),
            groups: groups.clone(),
            conditions: conditions.clone(),
        };

        let standstill = Standstill::watch(clients::standstill_max(config)).context("a thread for the beat")?;
        let start = |name: &str, group: &str, topics: Vec<String>, intake: Intake| {
            let (batches, receiver) = mpsc::channel::<Batch>(BATCHES_MAX);
            let parking = pipeline.parking(matches!(intake, Intake::Events { .. }));
            let (fan_out, guard) =
                (fan_out::run(pipeline.clone(), predecessors.clone(), parking, receiver), ended.clone().drop_guard());
            tokio::spawn(async move {
                let _guard = guard;
                fan_out.await;
            });
            let setup = Setup {
                client: clients::consumer(config, group),
                topics,
                commit_interval: config.kafka.commit_interval,
                open_offsets_max: config.kafka.open_offsets_max,
                stall_after: config.kafka.stall_after,
                drain_timeout: config.worker.drain_timeout,
                batches,
                assigned: assigned.clone(),
                trim: trim(redis.clone(), keys.clone(), groups.clone()),
                standstill: standstill.clone(),
                conditions: conditions.clone(),
                stop: stop.clone(),
                ended: ended.clone().drop_guard(),
            };
            consume::start(name, setup, intake)
        };
        let events = Intake::Events { limits: event::Limits::new(config) };
        let threads = vec![
            start("events", names.events_group(), vec![names.events().to_owned()], events)?,
            // A pattern, so that tiers are read that other settings left, or that are made while this process runs.
            start(
                "retries",
                &names.retry_group(),
                vec![names.waiting_pattern()],
                Intake::Retries(Retries::new(config)),
            )?,
        ];
        Ok(Self { threads, stop, ended, stop_after, snapshots, name, reports })
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
        self.ended.cancelled().await;
    }

    /// Stops starting, finishes what is in flight, commits, leaves both groups. How much was given up.
    pub async fn drain(self, config: &Config) -> usize {
        self.stop.cancel();
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
        self.stop_after.cancel();
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

/// Trims marks in the background: one that stays only takes room.
fn trim(redis: Connection, keys: Keys, groups: Groups) -> Trim {
    let runtime = tokio::runtime::Handle::current();
    Box::new(move |partition, passed| {
        let key = groups.marks_key(&keys, partition);
        let mut redis = redis.clone();
        runtime.spawn(async move {
            let mut pipe = redis::pipe();
            pipe.cmd("XTRIM").arg(&key).arg("MINID").arg(&passed).ignore();
            // MINID keeps the entry itself, which is passed as well.
            pipe.cmd("XDEL").arg(&key).arg(&passed).ignore();
            if let Err(error) = pipe.query_async::<()>(&mut redis).await {
                tracing::debug!(%error, key, "marks can't be trimmed");
            }
        });
    })
}
