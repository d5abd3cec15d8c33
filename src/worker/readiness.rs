//! The endpoints `/healthz` (the process runs), `/readyz` (it can deliver) and `/metrics`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::store::connection::Connection;
use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::conditions::{Conditions, Severity};
use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::store::connection;
use crate::store::snapshot::Snapshots;

/// The interval between checks of the broker. A check may take twice as long.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The state on which readiness depends, apart from the broker.
pub struct Readiness {
    /// Whether this process has a worker, and not only the admin server.
    has_worker: bool,
    snapshots: OnceLock<Snapshots>,
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

    fn worker(&self) -> &'static str {
        match (self.draining.load(Ordering::Relaxed), self.snapshots.get()) {
            (true, _) => "draining",
            (false, None) => "starting",
            (false, Some(_)) => "ok",
        }
    }

    /// The reason why nothing is sent. None if deliveries may be sent, or before the start.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.snapshots.get().and_then(Snapshots::trouble)
    }

    /// The state of Redis for `/readyz`. A worker needs a confirmed snapshot. An admin server only needs an answer.
    async fn redis(&self, connection: &mut Connection) -> String {
        let trouble = if self.has_worker {
            self.snapshots.get().map_or_else(|| Some("away".to_owned()), Snapshots::trouble)
        } else {
            // An admin server stays ready while the webhooks cannot be used, because people repair them through it.
            let answer = redis::cmd("PING").query_async::<String>(connection).await;
            answer.err().map(|_| "away".to_owned())
        };
        trouble.unwrap_or_else(|| "ok".to_owned())
    }
}

/// The routes `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// If a client or a thread cannot be created.
pub fn routes(config: &Config, readiness: Arc<Readiness>) -> anyhow::Result<Router> {
    let kafka = probe_kafka(config)?;
    let (_, connection) = connection::open(&config.redis).context("redis.url")?;
    let ready = move || {
        let (readiness, mut connection) = (readiness.clone(), connection.clone());
        let kafka = if kafka.load(Ordering::Relaxed) { "ok" } else { "away" };
        async move {
            let mut parts = vec![("kafka", kafka.to_owned()), ("redis", readiness.redis(&mut connection).await)];
            if readiness.has_worker {
                parts.insert(0, ("worker", readiness.worker().to_owned()));
            }
            let conditions = readiness.conditions.all();
            let is_ready = parts.iter().all(|(_, state)| *state == "ok")
                && conditions.iter().all(|(_, condition)| condition.severity < Severity::NotReady);
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let mut page: String = parts.iter().map(|(part, state)| format!("{part}: {state}\n")).collect();
            for (name, condition) in &conditions {
                let weight = if condition.severity == Severity::Warning { "warning" } else { "not ready" };
                page += &format!("{weight}: {name}: {}\n", condition.reason);
            }
            (status, page)
        }
    };
    let metrics = metrics_page();
    Ok(Router::new()
        .route("/metrics", get(async move || metrics.as_ref().map_or_else(String::new, PrometheusHandle::render)))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready)))
}

/// The source of `/metrics`. None if another recorder is already installed in this process.
fn metrics_page() -> Option<PrometheusHandle> {
    let page = PrometheusBuilder::new()
        .install_recorder()
        .inspect_err(|error| tracing::warn!(%error, "the metrics exporter cannot be installed; /metrics stays empty"))
        .ok()?;
    crate::metrics::begin();
    Some(page)
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
            up.store(client.fetch_metadata(Some(&topic), PROBE_INTERVAL * 2).is_ok(), Ordering::Relaxed);
            drop(up);
            std::thread::sleep(PROBE_INTERVAL);
        }
    })?;
    Ok(up)
}
