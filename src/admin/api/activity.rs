//! `/api/webhooks/{id}/activity` and `/api/status/trend`: the figures of the charts.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::activity::Hour;
use crate::admin::problem::{Error, Problem};
use crate::admin::state::Shared;
use crate::admin::trend::Sample;
use crate::clock::rfc3339;
use crate::store::latencies::quantile;

/// The attempts of a webhook by hour.
#[derive(Serialize, ToSchema)]
pub struct Activity {
    /// Each hour of the last 7 days, oldest first. The last one is not over yet.
    hours: Vec<ActivityHour>,
}

/// The attempts of one hour.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityHour {
    /// The beginning of the hour.
    from: String,
    /// The number of attempts that succeeded.
    delivered: u64,
    /// The number of attempts that failed.
    failed: u64,
    /// The time below which half of the attempts ended, in milliseconds, right to within a fifth; null without attempts.
    median_ms: Option<f64>,
    /// The time below which 95 % of the attempts ended, in milliseconds, right to within a fifth; null without attempts.
    p95_ms: Option<f64>,
}

impl From<Hour> for ActivityHour {
    fn from(hour: Hour) -> Self {
        let ms = |share| quantile(&hour.latencies, share).map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0);
        Self {
            from: rfc3339(hour.from_ms),
            delivered: hour.counts.succeeded,
            failed: hour.counts.failed,
            median_ms: ms(0.5),
            p95_ms: ms(0.95),
        }
    }
}

/// The attempts of a webhook in each hour of the last 7 days: how many succeeded and failed, and how long they took.
#[utoipa::path(get,
    operation_id = "showActivity", path = "/api/webhooks/{id}/activity", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 200, body = Activity), (status = 404, body = Error)))]
pub async fn of_webhook(State(admin): State<Shared>, Path(id): Path<String>) -> Result<Json<Activity>, Problem> {
    let webhook = admin.find(&id).await?;
    let hours = admin.activity(webhook.id).await?.into_iter().map(ActivityHour::from).collect();
    Ok(Json(Activity { hours }))
}

/// The lag over time.
#[derive(Serialize, ToSchema)]
pub struct LagTrend {
    /// A sample each minute of the last three hours, oldest first. Each server has its own, from its start on.
    samples: Vec<LagSample>,
}

/// The lag at one moment.
#[derive(Serialize, ToSchema)]
pub struct LagSample {
    /// The time of the sample.
    at: String,
    /// The number of unsettled records in the topic of events.
    lag: i64,
}

impl From<Sample> for LagSample {
    fn from(sample: Sample) -> Self {
        Self { at: rfc3339(sample.at_ms), lag: sample.lag }
    }
}

/// The lag of the topic of events over the last three hours, as this server saw it.
#[utoipa::path(get,
    operation_id = "showLagTrend", path = "/api/status/trend", tag = "status", responses((status = 200, body = LagTrend)))]
pub async fn of_lag(State(admin): State<Shared>) -> Json<LagTrend> {
    Json(LagTrend { samples: admin.trend.samples().into_iter().map(LagSample::from).collect() })
}
