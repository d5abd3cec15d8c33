//! `/api/filters`: trying a filter before it is saved.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::input;
use crate::admin::problem::{Error, Problem};
use crate::admin::state::{Admin, Shared};
use crate::event::EventType;
use crate::replay::browse::Bounds;
use crate::replay::recent::{RecentEvent, recent};
use crate::webhook::filter::Filter;

/// How many of the newest events are shown.
const EVENTS_MAX: usize = 100;
/// How many records are looked at for them. Records that no webhook can subscribe to lie between.
const LOOK_AT_MAX: u64 = 10_000;
/// The time after which the events found so far are shown.
const READ_MAX: Duration = Duration::from_secs(8);

/// The filter to try.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TryFilter {
    /// The filter; null or left out for none.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    /// The event types that the webhook would subscribe to; all of them by default.
    #[serde(default)]
    events: Option<Vec<EventType>>,
}

/// What the filter would have done.
#[derive(Serialize, ToSchema)]
pub struct TriedFilter {
    /// The newest events of the topic, at most 100, newest first.
    pub events: Vec<RecentEvent>,
    /// How many of them match.
    pub matching: usize,
}

impl Admin {
    /// Which of the newest events a webhook with these event types and this filter would have got.
    ///
    /// # Errors
    /// 400: the filter is wrong. 503: Kafka doesn't answer, or too many people read topics.
    pub async fn try_filter(&self, filter: Option<Value>, events: Vec<EventType>) -> Result<TriedFilter, Problem> {
        let filter = filter.map(Filter::read).transpose()?;
        let bounds = Bounds { limit: EVENTS_MAX, look_at_max: LOOK_AT_MAX, until: Instant::now() + READ_MAX };
        let events = self.browse(move |config, stop| recent(config, &events, filter.as_ref(), bounds, stop)).await?;
        Ok(TriedFilter { matching: events.iter().filter(|event| event.matches).count(), events })
    }
}

/// Shows which of the last 100 events a filter would have let through. Nothing is saved or sent.
#[utoipa::path(post,
    operation_id = "tryFilter", path = "/api/filters/try", tag = "webhooks", request_body = TryFilter,
    responses((status = 200, body = TriedFilter), (status = 400, body = Error)))]
pub async fn try_filter(
    State(admin): State<Shared>,
    input::Json(TryFilter { filter, events }): input::Json<TryFilter>,
) -> Result<Json<TriedFilter>, Problem> {
    Ok(Json(admin.try_filter(filter, events.unwrap_or_else(|| EventType::TASKS.to_vec())).await?))
}
