//! The endpoints `/healthz` (the process moves), `/readyz` (it can deliver) and `/metrics`.

mod answer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::store::connection::Connection;
use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::conditions::Conditions;
use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::kafka::refusal;
use crate::metrics::exporter::Exporter;
use crate::metrics::gauges::{self, Page};
use crate::store::connection;
use crate::store::snapshot::Snapshots;
use crate::worker::gauges::Observed;
use answer::Answer;

/// The interval between checks of the broker. A check may take twice as long.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The reason of a dependency that does not answer.
const AWAY: &str = "away";

/// The state on which readiness depends, apart from the broker.
pub struct Readiness {
    /// Whether this process has a worker, and not only the admin server.
    has_worker: bool,
    snapshots: OnceLock<Snapshots>,
    observed: OnceLock<Observed>,
    draining: AtomicBool,
    /// The conditions that keep this process from its work.
    pub conditions: Conditions,
}

impl Readiness {
    /// Creates the state of a process that is starting.
    #[must_use]
    pub fn new(has_worker: bool) -> Self {
        Self {
            has_worker,
            snapshots: OnceLock::new(),
            observed: OnceLock::new(),
            draining: AtomicBool::new(false),
            conditions: Conditions::default(),
        }
    }

    /// Sets the snapshots, once the worker has started or the admin server watches the webhooks.
    pub fn started(&self, snapshots: Snapshots) {
        let _ = self.snapshots.set(snapshots);
    }

    /// Marks the worker as draining.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Sets the parts of the worker that health and metrics show.
    pub fn observes(&self, observed: Observed) {
        let _ = self.observed.set(observed);
    }

    fn worker_trouble(&self) -> Option<String> {
        match (self.draining.load(Ordering::Relaxed), self.snapshots.get()) {
            (true, _) => Some("draining".to_owned()),
            (false, None) => Some("starting".to_owned()),
            (false, Some(_)) => None,
        }
    }

    /// The reason why nothing is sent. None if deliveries may be sent, or before the start.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.snapshots.get().and_then(Snapshots::trouble)
    }

    /// Why Redis can't be used, for `/readyz`. A worker needs a confirmed snapshot. An admin server only needs an answer.
    async fn redis_trouble(&self, connection: &mut Connection) -> Option<String> {
        if self.has_worker
            && let Some(snapshots) = self.snapshots.get()
        {
            return snapshots.trouble();
        }
        // An admin server stays ready while the webhooks cannot be used, because people repair them through it. A worker that
        // starts has no snapshot yet.
        (!answers(connection).await).then(|| AWAY.to_owned())
    }
}

/// How long Redis may take to answer a scrape.
const PING_MAX: Duration = Duration::from_secs(1);

/// Whether Redis answers this process.
async fn answers(connection: &mut Connection) -> bool {
    redis::cmd("PING").query_async::<String>(connection).await.is_ok()
}

/// The routes `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// If a client or a thread cannot be created.
pub fn routes(config: &Config, readiness: Arc<Readiness>) -> anyhow::Result<Router> {
    let kafka = probe_kafka(config)?;
    let redis = connection::open(&config.redis).context("redis.url")?;
    let probes = Probes { readiness, kafka, redis, exporter: Exporter::install() };
    Ok(Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .with_state(probes))
}

#[derive(Clone)]
struct Probes {
    readiness: Arc<Readiness>,
    /// Whether the broker answers.
    kafka: Arc<AtomicBool>,
    redis: Connection,
    /// None if another recorder is already installed in this process.
    exporter: Option<Exporter>,
}

async fn healthy(State(probes): State<Probes>) -> (StatusCode, String) {
    let stuck = probes.readiness.observed.get().map(Observed::stuck).unwrap_or_default();
    if stuck.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let line =
        |(thread, since): &(&str, Duration)| format!("thread {thread} has not moved for {} s\n", since.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, stuck.iter().map(line).collect())
}

async fn ready(State(mut probes): State<Probes>) -> Answer {
    let readiness = &probes.readiness;
    let kafka = (!probes.kafka.load(Ordering::Relaxed)).then(|| refusal::last().unwrap_or_else(|| AWAY.to_owned()));
    let mut parts = vec![("kafka", kafka), ("redis", readiness.redis_trouble(&mut probes.redis).await)];
    if readiness.has_worker {
        parts.push(("worker", readiness.worker_trouble()));
    }
    Answer::new(parts, &readiness.conditions.all())
}

async fn metrics(State(probes): State<Probes>) -> String {
    let Some(exporter) = &probes.exporter else { return String::new() };
    let mut page = Page::default();
    page.add(&gauges::BUILD_INFO, [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)]);
    // A scrape must not wait as long as an unreachable Redis may take. The PING itself runs on after the scrape gives
    // up, so that a connection that died is noticed and replaced.
    let mut connection = probes.redis.clone();
    let asked = tokio::spawn(async move { answers(&mut connection).await });
    let redis = matches!(tokio::time::timeout(PING_MAX, asked).await, Ok(Ok(true)));
    let answers = [("kafka", probes.kafka.load(Ordering::Relaxed)), ("redis", redis)];
    let up = answers.map(|(dependency, is_up)| (vec![("dependency", dependency)], f64::from(u8::from(is_up))));
    page.add(&gauges::UP, up);
    if let Some(observed) = probes.readiness.observed.get() {
        observed.add_to(&mut page);
    }
    exporter.render() + &page.into_text()
}

/// Checks the broker regularly on a separate thread, until the returned flag is dropped. The flag is true while the
/// broker answers.
fn probe_kafka(config: &Config) -> anyhow::Result<Arc<AtomicBool>> {
    let client: BaseConsumer<Logging> =
        clients::producer(config).create_with_context(Logging).context("kafka client")?;
    let topic = config.kafka.topic.clone();
    let up = Arc::new(AtomicBool::new(false));
    let weak = Arc::downgrade(&up);
    std::thread::Builder::new().name("kafka-probe".to_owned()).spawn(move || {
        while let Some(up) = weak.upgrade() {
            let answers = client.fetch_metadata(Some(&topic), PROBE_INTERVAL * 2).is_ok();
            if answers {
                refusal::forget();
            }
            up.store(answers, Ordering::Relaxed);
            drop(up);
            std::thread::sleep(PROBE_INTERVAL);
        }
    })?;
    Ok(up)
}
