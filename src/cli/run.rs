//! `run`: the process of the worker and the admin server, from its start to its drain.

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
use crate::kafka::refusal;
use crate::schedule::Reconnect;
use crate::store::server::{self, Fitness};
use crate::store::snapshot::{self, Snapshots};
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::traces;
use crate::webhook::stored::Sealing;
use crate::worker::readiness::Readiness;
use crate::worker::{Prepared, Worker};

/// `optio-webhooks run`
#[derive(clap::Args)]
#[command(after_help = "SIGTERM or Ctrl-C drains: no delivery is started, those in flight may finish within \
worker.drain_timeout, and offsets are committed. A second signal stops at once.")]
pub struct Run {
    /// Run only this part; by default both run.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// A part of `run` that a process of its own can be.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Part {
    /// The worker, with /healthz, /readyz and /metrics.
    Worker,
    /// The settings page and the API, with the same three paths.
    Admin,
}

impl Run {
    /// Runs until a signal arrives or the worker ends by itself.
    pub async fn run(self, config: Config) -> Result<(), Failure> {
        check_to_run(&config, self.only)?;
        let config = Arc::new(config);
        let mut signals = Signals::new()?;
        raise_open_files();
        traces::start(&config.traces).context("traces.endpoint")?;
        let readiness = Arc::new(Readiness::new(self.only != Some(Part::Admin)));
        let serving = admin::serve(&config, readiness.clone(), self.only != Some(Part::Worker)).await?;
        tracing::info!(address = %serving.address, version = env!("CARGO_PKG_VERSION"), "optio-webhooks starts");
        for sentence in config.advice(self.only != Some(Part::Worker))? {
            tracing::warn!("{sentence}");
        }
        if self.only == Some(Part::Admin) {
            tokio::select! {
                checked = check_redis(&config, &readiness.conditions) => checked?,
                () = signals.next() => return Ok(()),
            }
            let watching = CancellationToken::new();
            readiness.started(watch_webhooks(&config, &readiness.conditions, watching.clone())?);
            signals.next().await;
            watching.cancel();
            serving.end().await;
            return Ok(());
        }
        // Some calls of librdkafka block for seconds while no broker answers, and a signal must not wait for them.
        let preparing = tokio::spawn({
            let (config, conditions) = (config.clone(), readiness.conditions.clone());
            async move { prepare(&config, &conditions).await }
        });
        let prepared = tokio::select! {
            prepared = preparing => prepared.context("the start panicked")??,
            () = signals.next() => return Ok(()),
        };
        let worker = Worker::start(&config, prepared, &readiness.conditions)?;
        readiness.started(worker.snapshots.clone());
        readiness.observes(worker.observed.clone());
        let failed = tokio::select! {
            () = signals.next() => false,
            () = worker.ended() => true,
        };
        readiness.draining();
        tracing::info!(timeout_s = config.worker.drain_timeout.as_secs(), "draining");
        let unfinished = tokio::select! {
            (unfinished, ()) = async { tokio::join!(worker.drain(&config), serving.end()) } => unfinished,
            () = signals.next() => return Err(anyhow::anyhow!("stopped at once by a second signal; deliveries in flight may be repeated").into()),
        };
        tokio::task::block_in_place(traces::stop);
        if failed {
            return Err(anyhow::anyhow!("the worker ended by itself; the log says why").into());
        }
        if unfinished > 0 {
            return Err(anyhow::anyhow!(
                "{unfinished} deliveries were still in flight after worker.drain_timeout; they may be repeated"
            )
            .into());
        }
        tracing::info!("drained");
        Ok(())
    }
}

/// Checks what only a process that runs needs: a token, and the files with certificates. Other commands can be used by
/// people who may not read the private key.
pub(super) fn check_to_run(config: &Config, only: Option<Part>) -> Result<(), BadConfig> {
    check_is_guarded(config, only)?;
    config.redis.tls_certificates().map(drop)?;
    config.delivery.tls_files().map(drop)
}

/// Refuses a page and an API that other machines can reach without a token. A worker alone has neither.
fn check_is_guarded(config: &Config, only: Option<Part>) -> Result<(), BadConfig> {
    if only == Some(Part::Worker) { Ok(()) } else { config.admin.check_is_guarded() }
}

/// Raises the limit of open files. Each endpoint keeps one connection or more, so the usual soft limit of 1,024 is soon
/// reached.
fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "the limit of open files is raised"),
        Err(error) => tracing::warn!(%error, "the limit of open files can't be raised"),
    }
}

/// Waits until Redis answers. One that is too old is an error. One whose settings may lose data is logged as a warning.
async fn check_redis(config: &Config, conditions: &Conditions) -> Result<(), Failure> {
    let redis = connection::open(&config.redis).context("redis.url")?;
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

/// Keeps a snapshot of the webhooks for the admin server, so that its page shows problems with them. They are only
/// warnings here: the admin server must stay ready, because people use it to repair the webhooks.
fn watch_webhooks(
    config: &Arc<Config>,
    conditions: &Conditions,
    stop: CancellationToken,
) -> Result<Snapshots, Failure> {
    let connection = connection::open(&config.redis).context("redis.url")?;
    let setup = snapshot::Setup {
        connection,
        keys: Keys::new(&config.redis.prefix),
        sealing: Sealing::of(&config.secrets)?,
        staleness_max: config.webhooks.staleness_max,
        timeout: config.redis.timeout,
        commits: Commits::new(config.clone()),
        conditions: conditions.clone(),
        severity: Severity::Warning,
    };
    Ok(snapshot::keep(setup, stop, || ()))
}

/// Waits until Kafka and Redis answer, and checks the committed offsets of the groups.
async fn prepare(config: &Arc<Config>, conditions: &Conditions) -> Result<Prepared, Failure> {
    let (mut prepared, ()) = tokio::try_join!(check_topics(config), check_redis(config, conditions))?;
    let mut outage = conditions.outage("kafka: offsets of the groups", Severity::NotReady);
    loop {
        match check_offsets(config).await {
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
    /// Kafka or Redis does not answer.
    Away(anyhow::Error),
    /// Offsets are lost, and `kafka.offsets_lost` is `refuse`.
    Refused(String),
}

impl From<anyhow::Error> for OffsetsProblem {
    fn from(error: anyhow::Error) -> Self {
        Self::Away(error)
    }
}

/// Logs lost offsets and applies `kafka.offsets_lost`. Returns the name of a group that has commits.
async fn check_offsets(config: &Arc<Config>) -> Result<Option<String>, OffsetsProblem> {
    let redis = connection::open(&config.redis).context("redis.url")?;
    let store = WebhookStore::open(config, redis).context("the webhooks")?;
    let webhooks = store.peek().await.context("the webhooks can't be counted")?.found;
    let blocking = config.clone();
    let groups = tokio::task::spawn_blocking(move || offsets_lost::look(&blocking)).await;
    let groups = groups.context("the task that reads the committed offsets failed")??;
    for group in &groups {
        for (position, extent) in group.outside() {
            tracing::warn!(
                group = group.group,
                topic = position.topic,
                partition = position.partition,
                committed = position.committed,
                low = extent.low,
                high = extent.high,
                "a committed offset is outside the records of its partition; reading begins at the oldest record"
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
                    "{lost}: it skips them and begins with records written from now on (kafka.offsets_lost = \"latest\")"
                );
                let (blocking, group) = (config.clone(), group.clone());
                let skipped = tokio::task::spawn_blocking(move || offsets_lost::skip_to_end(&blocking, &group)).await;
                skipped.context("the task that commits the ends of the partitions failed")??;
            }
            OffsetsLost::Refuse => {
                return Err(OffsetsProblem::Refused(format!(
                    "{lost}; kafka.offsets_lost = refuse: set it to earliest (deliver them, except events older than delivery.age_max) or latest (skip them)"
                )));
            }
        }
    }
    Ok(groups.into_iter().find(offsets_lost::AtStart::has_commits).map(|group| group.group))
}

/// Waits until the broker answers. A topic that would lose data is an error.
async fn check_topics(config: &Config) -> Result<Prepared, Failure> {
    let mut reconnect = Reconnect::default();
    loop {
        match Worker::prepare(config).await {
            Ok(prepared) => return Ok(prepared),
            Err(TopicsProblem::Away(error)) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    brokers = config.kafka.brokers,
                    "{}; trying again",
                    if refusal::last().is_some() { "kafka refuses this process" } else { "kafka is away" }
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

    /// Waits for the next signal. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
