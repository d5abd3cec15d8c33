//! The report that each worker writes about itself: its partitions, what blocks their watermarks, and its endpoints.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::webhook::WebhookId;

/// The state of a worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WorkerReport)]
pub struct Report {
    /// The worker's host and process.
    pub worker: String,
    /// The worker's version.
    pub version: String,
    /// When the report was written, in Unix milliseconds.
    pub at_ms: i64,
    /// The number of open deliveries.
    pub in_flight: usize,
    /// `worker.in_flight_max`
    pub in_flight_max: usize,
    /// The number of webhooks when the worker last confirmed them.
    #[serde(default)]
    pub webhooks: Option<u64>,
    /// The version of the webhooks at that time.
    #[serde(default)]
    pub webhooks_version: Option<u64>,
    /// The worker's partitions.
    pub partitions: Vec<PartitionReport>,
    /// The endpoints that have deliveries or a history that matters, those with an open circuit first.
    pub endpoints: Vec<EndpointReport>,
}

/// One partition of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionReport {
    /// The partition's topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The number of records from the watermark to the last one that was read.
    pub open_offsets: usize,
    /// Whether consumption of the partition is paused.
    pub paused: bool,
    /// The record that blocks the watermark; null if nothing blocks it.
    pub holding: Option<HoldingReport>,
}

/// The record that blocks a watermark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldingReport {
    /// The lowest offset that isn't settled.
    pub offset: i64,
    /// When the record was written, in RFC 3339.
    pub written_at: String,
    /// The stage that the record has reached.
    pub stage: Stage,
    /// The webhook whose delivery reached that stage last.
    pub webhook_id: Option<WebhookId>,
}

/// One endpoint as a worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// The endpoint's webhook.
    pub webhook_id: WebhookId,
    /// The state of the endpoint's circuit breaker.
    pub breaker: BreakerState,
    /// How long the endpoint still backs off, in milliseconds, because its circuit is open or it is cooling down.
    #[serde(rename = "leftAloneMs")]
    pub backs_off_ms: Option<u64>,
    /// The number of requests in flight.
    pub in_flight: usize,
    /// The number of requests that may be in flight at once now.
    pub limit: usize,
    /// The number of deliveries that wait for the endpoint in this worker.
    pub waiting: usize,
}

/// The stage that a record's deliveries have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A delivery waits for a permit, or until it is due.
    Queued,
    /// A delivery waits for its endpoint.
    Waiting,
    /// A request is in flight.
    Sending,
    /// An outcome is being recorded.
    Settling,
}

impl Stage {
    /// The name on the wire, and the value of a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Settling => "settling",
        }
    }
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// The endpoint gets no requests for now.
    Open,
    /// The next request to the endpoint is a probe.
    HalfOpen,
    /// The endpoint works.
    Closed,
}
