//! `/healthz` and `/readyz`: whether the process lives, and whether it can deliver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::kafka::clients;
use crate::store::snapshot::Snapshots;

/// How often the broker is asked, and how long it may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until the process ends. Where it listens.
///
/// # Errors
/// Where `admin.listen` can't be bound or a client can't be made.
pub async fn serve(config: &Config, snapshots: Snapshots) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(config.admin.listen)
        .await
        .with_context(|| format!("admin.listen = {} can't be listened on", config.admin.listen))?;
    let kafka = probe_kafka(config)?;
    let ready = move || {
        let (kafka, redis) = (kafka.load(Ordering::Relaxed), snapshots.is_fresh());
        async move {
            let word = |up| if up { "ok" } else { "away" };
            let status = if kafka && redis { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, format!("kafka: {}\nredis: {}\n", word(kafka), word(redis)))
        }
    };
    let routes = Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready));
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// Asks the broker again and again on a thread of its own, as long as someone looks at the answer.
fn probe_kafka(config: &Config) -> anyhow::Result<Arc<AtomicBool>> {
    let client: BaseConsumer = clients::producer(config).create().context("kafka client")?;
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
