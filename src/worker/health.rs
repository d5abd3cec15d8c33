//! `/healthz` and `/readyz`: whether the process lives, and whether it can deliver.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::config::Config;
use crate::kafka::clients;
use crate::kafka::words::Words;
use crate::store::snapshot::Snapshots;

/// How often the broker is asked, and how long it may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What readiness depends on beside the broker.
#[derive(Default)]
pub struct Readiness {
    snapshots: OnceLock<Snapshots>,
    draining: AtomicBool,
}

impl Readiness {
    /// The worker runs.
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

    fn redis(&self) -> &'static str {
        if self.snapshots.get().is_some_and(Snapshots::is_fresh) { "ok" } else { "away" }
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// Where a client can't be made.
pub fn routes(config: &Config, readiness: Arc<Readiness>) -> anyhow::Result<Router> {
    let kafka = probe_kafka(config)?;
    let ready = move || {
        let kafka = if kafka.load(Ordering::Relaxed) { "ok" } else { "away" };
        let parts = [("worker", readiness.worker()), ("kafka", kafka), ("redis", readiness.redis())];
        let is_ready = parts.iter().all(|(_, state)| *state == "ok");
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body: String = parts.iter().map(|(part, state)| format!("{part}: {state}\n")).collect();
        async move { (status, body) }
    };
    let metrics = metrics_page();
    Ok(Router::new()
        .route("/metrics", get(async move || metrics.as_ref().map_or_else(String::new, PrometheusHandle::render)))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready)))
}

/// What the counters of this process are read from; None where another part of it has claimed them.
fn metrics_page() -> Option<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().inspect_err(|error| tracing::warn!(%error, "metrics aren't kept")).ok()
}

/// Asks the broker again and again on a thread of its own, as long as someone looks at the answer.
fn probe_kafka(config: &Config) -> anyhow::Result<Arc<AtomicBool>> {
    let client: BaseConsumer<Words> = clients::producer(config).create_with_context(Words).context("kafka client")?;
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
