//! `run`: the life of the worker's process.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::admin;
use crate::conditions::{Conditions, Severity};
use crate::config::{BadConfig, Config, OffsetsLost};
use crate::kafka::admin::TopicsProblem;
use crate::kafka::group::Commits;
use crate::kafka::offsets_lost;
use crate::schedule::Reconnect;
use crate::store::server::{self, Fitness};
use crate::store::snapshot::{self, Snapshots};
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::worker::health::Readiness;
use crate::worker::{Prepared, Worker};

/// `optio-webhooks run`
#[derive(clap::Args)]
#[command(after_help = "SIGTERM or Ctrl-C drains: nothing new is started, what is in flight is finished within \
worker.drain_timeout, offsets are committed. A second signal stops at once.")]
pub struct Run {
    /// Run only this part; both by default.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Deliveries, with /healthz, /readyz and /metrics.
    Worker,
    /// The settings page and the API, with the same.
    Admin,
}

impl Run {
    /// Until a signal, or until a part of it fails.
    pub async fn run(self, config: Config) -> Result<(), Failure> {
        let config = Arc::new(config);
        let mut signals = Signals::new()?;
        raise_open_files();
        let readiness = Arc::new(Readiness::new(self.only != Some(Part::Admin)));
        let serving = admin::serve(&config, readiness.clone(), self.only != Some(Part::Worker)).await?;
        tracing::info!(address = %serving.address, version = env!("CARGO_PKG_VERSION"), "optio-webhooks starts");
        if self.only == Some(Part::Admin) {
            tokio::select! {
                fit = redis_fits(&config, &readiness.conditions) => fit?,
                () = signals.next() => return Ok(()),
            }
            let watching = CancellationToken::new();
            readiness.started(watch(&config, &readiness.conditions, watching.clone())?);
            signals.next().await;
            watching.cancel();
            serving.end().await;
            return Ok(());
        }
        let prepared = tokio::select! {
            prepared = prepare(&config, &readiness.conditions) => prepared?,
            () = signals.next() => return Ok(()),
        };
        let worker = Worker::start(&config, prepared, &readiness.conditions)?;
        readiness.started(worker.snapshots.clone());
        let failed = tokio::select! {
            () = signals.next() => false,
            () = worker.ended() => true,
        };
        readiness.draining();
        tracing::info!(timeout_s = config.worker.drain_timeout.as_secs(), "draining");
        let left = tokio::select! {
            (left, ()) = async { tokio::join!(worker.drain(&config), serving.end()) } => left,
            () = signals.next() => return Err(anyhow::anyhow!("stopped at once by a second signal: what was in flight may be repeated").into()),
        };
        if failed {
            return Err(anyhow::anyhow!("the worker ended by itself; the log says why").into());
        }
        if left > 0 {
            return Err(anyhow::anyhow!(
                "{left} deliveries were still in flight after worker.drain_timeout; they may be repeated"
            )
            .into());
        }
        tracing::info!("drained");
        Ok(())
    }
}

/// Each endpoint keeps a connection or more: the usual soft limit of 1,024 open files is soon reached.
fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files can't be raised"),
    }
}

/// Waits for Redis; one that is too old is refused, and one that may lose what it is given is warned of.
async fn redis_fits(config: &Config, conditions: &Conditions) -> Result<(), Failure> {
    let (_, redis) = connection::open(&config.redis).context("redis.url")?;
    let mut outage = conditions.outage("redis: its version", Severity::NotReady);
    loop {
        match server::fitness(&redis).await {
            Ok(Fitness { refusal: Some(refusal), .. }) => return Err(BadConfig(refusal).into()),
            Ok(Fitness { warnings, .. }) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                return Ok(());
            }
            Err(error) => outage.failed(error),
        }
        outage.wait().await;
    }
}

/// An admin server shows what workers would say of the store, and stays ready: that is where it can be mended.
fn watch(config: &Arc<Config>, conditions: &Conditions, stop: CancellationToken) -> Result<Snapshots, Failure> {
    let (client, connection) = connection::open(&config.redis).context("redis.url")?;
    let setup = snapshot::Setup {
        client,
        connection,
        keys: Keys::new(&config.redis.prefix),
        staleness_max: config.webhooks.staleness_max,
        timeout: config.redis.timeout,
        commits: Commits::new(config.clone()),
        conditions: conditions.clone(),
        severity: Severity::Warning,
    };
    Ok(snapshot::keep(setup, stop))
}

/// Waits for both, and finds out where the groups stand.
async fn prepare(config: &Arc<Config>, conditions: &Conditions) -> Result<Prepared, Failure> {
    let (mut prepared, ()) = tokio::try_join!(topics(config), redis_fits(config, conditions))?;
    let mut outage = conditions.outage("kafka: offsets of the groups", Severity::NotReady);
    loop {
        match offsets(config).await {
            Ok(committed) => {
                prepared.committed = Some(committed);
                return Ok(prepared);
            }
            Err(OffsetsProblem::Away(error)) => outage.failed(format_args!("{error:#}")),
            Err(OffsetsProblem::Refused(sentence)) => return Err(BadConfig(sentence).into()),
        }
        outage.wait().await;
    }
}

enum OffsetsProblem {
    Away(anyhow::Error),
    /// `kafka.offsets_lost = "refuse"`
    Refused(String),
}

impl From<anyhow::Error> for OffsetsProblem {
    fn from(error: anyhow::Error) -> Self {
        Self::Away(error)
    }
}

/// Says where offsets are gone, and does what `kafka.offsets_lost` asks for. The name of a group that has commits.
async fn offsets(config: &Arc<Config>) -> Result<Option<String>, OffsetsProblem> {
    let (_, redis) = connection::open(&config.redis).context("redis.url")?;
    let store = WebhookStore::new(redis, Keys::new(&config.redis.prefix));
    let webhooks = store.peek().await.context("the webhooks can't be counted")?.found;
    let blocking = config.clone();
    let groups = tokio::task::spawn_blocking(move || offsets_lost::look(&blocking)).await;
    let groups = groups.context("the question was given up")??;
    for group in &groups {
        for (position, extent) in group.outside() {
            tracing::warn!(
                group = group.group,
                topic = position.topic,
                partition = position.partition,
                committed = position.committed,
                low = extent.low,
                high = extent.high,
                "a committed offset is outside of its partition's records: reading begins at the oldest of them"
            );
        }
        if !group.is_lost() || webhooks == 0 {
            continue;
        }
        let (name, records) = (&group.group, group.records());
        let lost = format!(
            "group {name} has no committed offsets although its topics have {records} records and there are {webhooks} webhooks"
        );
        match config.kafka.offsets_lost {
            OffsetsLost::Earliest => {
                tracing::warn!(
                    group = name,
                    records,
                    webhooks,
                    "{lost}: it begins at the oldest record (kafka.offsets_lost = \"earliest\")"
                );
            }
            OffsetsLost::Latest => {
                tracing::warn!(
                    group = name,
                    records,
                    webhooks,
                    "{lost}: it skips them and begins with what is written from now on (kafka.offsets_lost = \"latest\")"
                );
                let (blocking, group) = (config.clone(), group.clone());
                let skipped = tokio::task::spawn_blocking(move || offsets_lost::skip_to_end(&blocking, &group)).await;
                skipped.context("the commit was given up")??;
            }
            OffsetsLost::Refuse => {
                return Err(OffsetsProblem::Refused(format!(
                    "{lost}; kafka.offsets_lost = refuse: allowed is earliest (deliver them; what is older than delivery.age_max isn't sent) or latest (skip them)"
                )));
            }
        }
    }
    Ok(groups.into_iter().find(offsets_lost::AtStart::has_commits).map(|group| group.group))
}

/// Waits for the broker; topics that would lose data are refused.
async fn topics(config: &Config) -> Result<Prepared, Failure> {
    let mut reconnect = Reconnect::default();
    loop {
        match Worker::prepare(config).await {
            Ok(prepared) => return Ok(prepared),
            Err(TopicsProblem::Away(error)) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    brokers = config.kafka.brokers,
                    "kafka is away: tried again"
                );
                reconnect.wait().await;
            }
            Err(problem) => return Err(problem.into()),
        }
    }
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM can't be caught")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT can't be caught")?,
        })
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
