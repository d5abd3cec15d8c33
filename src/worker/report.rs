//! What a worker says of itself every second: its partitions, what holds them, its endpoints.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::delivery::now_ms;
use crate::event::rfc3339;
use crate::pipeline::Pipeline;
use crate::pipeline::partition::{Partition, Stage};
use crate::store::reports::Reports;
use crate::webhook::WebhookId;

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);
/// Endpoints that one report names; the worst come first.
const ENDPOINTS_MAX: usize = 200;

/// A worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WorkerReport)]
pub struct Report {
    /// Host and process.
    pub worker: String,
    /// Its version.
    pub version: String,
    /// When it said so, Unix milliseconds.
    pub at_ms: i64,
    /// Deliveries open.
    pub in_flight: usize,
    /// `worker.in_flight_max`
    pub in_flight_max: usize,
    /// Its partitions.
    pub partitions: Vec<PartitionReport>,
    /// Endpoints that something is going on with, the worst first.
    pub endpoints: Vec<EndpointReport>,
}

/// One partition of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionReport {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Records between the watermark and the last one read.
    pub open_offsets: usize,
    /// Whether consumption of it is paused.
    pub paused: bool,
    /// What holds its watermark; null where nothing does.
    pub holding: Option<HoldingReport>,
}

/// What holds a watermark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldingReport {
    /// The lowest offset that isn't settled.
    pub offset: i64,
    /// When that record was written.
    pub written_at: String,
    /// Where it is.
    pub stage: Stage,
    /// The webhook that was dealt with last.
    pub webhook_id: Option<WebhookId>,
}

/// One endpoint as a worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Its webhook.
    pub webhook_id: WebhookId,
    /// Its circuit breaker.
    pub breaker: BreakerState,
    /// Left alone for so long, in milliseconds: by the breaker, or as its `Retry-After` asked.
    pub left_alone_ms: Option<u64>,
    /// Requests under way.
    pub in_flight: usize,
    /// How many it may have at once now.
    pub limit: usize,
    /// Deliveries that wait for it in this worker.
    pub waiting: usize,
}

/// A circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It is known to be down and left alone.
    Open,
    /// Its next request is a probe.
    HalfOpen,
    /// It works.
    Closed,
}

/// The partitions that are assigned to this process.
#[derive(Debug, Default)]
pub struct Assigned(Mutex<Vec<Weak<Partition>>>);

impl Assigned {
    /// One more.
    pub fn add(&self, partition: &Arc<Partition>) {
        let mut all = self.0.lock().expect("nothing panics while it holds the list");
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(partition));
    }

    fn all(&self) -> Vec<Arc<Partition>> {
        let all = self.0.lock().expect("nothing panics while it holds the list");
        let mut live: Vec<Arc<Partition>> =
            all.iter().filter_map(Weak::upgrade).filter(|one| !one.is_closed()).collect();
        live.sort_by(|one, other| (&one.topic, one.number).cmp(&(&other.topic, other.number)));
        live
    }
}

/// Says so until the process ends. Redis that is away is no trouble: the next report says more.
pub async fn keep(pipeline: Arc<Pipeline>, assigned: Arc<Assigned>, reports: Reports, worker: String) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = reports.put(&report(&pipeline, &assigned, worker.clone())).await {
            tracing::debug!(%error, "a report can't be written");
        }
    }
}

fn report(pipeline: &Pipeline, assigned: &Assigned, worker: String) -> Report {
    let in_flight_max = pipeline.config.worker.in_flight_max;
    let mut endpoints = pipeline.endpoints();
    endpoints.sort_by_key(|endpoint| (endpoint.breaker, std::cmp::Reverse(endpoint.waiting), endpoint.webhook_id));
    endpoints.truncate(ENDPOINTS_MAX);
    Report {
        worker,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at_ms: now_ms(),
        in_flight: in_flight_max - pipeline.places_left(),
        in_flight_max,
        partitions: assigned.all().iter().map(|partition| of(partition)).collect(),
        endpoints,
    }
}

fn of(partition: &Partition) -> PartitionReport {
    let holding = partition.holding().map(|holding| HoldingReport {
        offset: holding.offset,
        written_at: rfc3339(holding.timestamp_ms),
        stage: holding.stage,
        webhook_id: holding.webhook,
    });
    PartitionReport {
        topic: partition.topic.to_string(),
        partition: partition.number,
        open_offsets: partition.open_offsets(),
        paused: partition.paused.load(std::sync::atomic::Ordering::Relaxed),
        holding,
    }
}
