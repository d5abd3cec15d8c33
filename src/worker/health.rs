//! `/healthz` and `/readyz`: whether the process lives, and whether it can deliver.

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

/// How often the broker is asked, and how long it may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What readiness depends on beside the broker.
pub struct Readiness {
    /// Whether this process delivers.
    has_worker: bool,
    snapshots: OnceLock<Snapshots>,
    draining: AtomicBool,
    /// What waits, and why.
    pub conditions: Conditions,
}

impl Readiness {
    /// Nothing is ready yet.
    #[must_use]
    pub fn new(has_worker: bool) -> Self {
        Self {
            has_worker,
            snapshots: OnceLock::new(),
            draining: AtomicBool::new(false),
            conditions: Conditions::default(),
        }
    }

    /// The worker runs, or an admin server watches the store.
    pub fn started(&self, snapshots: Snapshots) {
        let _ = self.snapshots.set(snapshots);
    }

    /// It takes nothing more.
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

    /// Why nothing is sent; None where something may be, or where this isn't known yet.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.snapshots.get().and_then(Snapshots::trouble)
    }

    /// A worker needs its snapshot of the webhooks confirmed; an admin server, an answer.
    async fn redis(&self, connection: &mut Connection) -> String {
        let trouble = if self.has_worker {
            self.snapshots.get().map_or_else(|| Some("away".to_owned()), Snapshots::trouble)
        } else {
            // An admin server stays ready while the store can't be used: that is where it can be mended.
            let answer = redis::cmd("PING").query_async::<String>(connection).await;
            answer.err().map(|_| "away".to_owned())
        };
        trouble.unwrap_or_else(|| "ok".to_owned())
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// Where a client can't be made.
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

/// What the counters of this process are read from; None where another part of it has claimed them.
fn metrics_page() -> Option<PrometheusHandle> {
    let page = PrometheusBuilder::new()
        .install_recorder()
        .inspect_err(|error| tracing::warn!(%error, "metrics can't be kept"))
        .ok()?;
    crate::metrics::begin();
    Some(page)
}

/// Asks the broker again and again on a thread of its own, as long as someone looks at the answer.
fn probe_kafka(config: &Config) -> anyhow::Result<Arc<AtomicBool>> {
    let client: BaseConsumer<Logging> =
        clients::producer(config).create_with_context(Logging).context("kafka client")?;
    let topic = config.kafka.topic.clone();
    let up = Arc::new(AtomicBool::new(false));
    let answer = Arc::downgrade(&up);
    std::thread::Builder::new().name("kafka-probe".to_owned()).spawn(move || {
        while let Some(up) = answer.upgrade() {
            up.store(client.fetch_metadata(Some(&topic), PROBE_INTERVAL * 2).is_ok(), Ordering::Relaxed);
            drop(up);
            std::thread::sleep(PROBE_INTERVAL);
        }
    })?;
    Ok(up)
}
