//! What a worker says of itself: its partitions, what holds them, its endpoints.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::webhook::WebhookId;

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
    /// How many webhooks there were when it last confirmed them.
    #[serde(default)]
    pub webhooks: Option<u64>,
    /// The version at that time.
    #[serde(default)]
    pub webhooks_version: Option<u64>,
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
    #[serde(rename = "leftAloneMs")]
    pub backs_off_ms: Option<u64>,
    /// Requests under way.
    pub in_flight: usize,
    /// How many it may have at once now.
    pub limit: usize,
    /// Deliveries that wait for it in this worker.
    pub waiting: usize,
}

/// The stage of a record's delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It waits for a permit, or until it is due.
    Queued,
    /// It waits for its endpoint.
    Waiting,
    /// Its request is under way.
    Sending,
    /// Its outcome is being recorded.
    Settling,
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
