//! `/api/deliveries`: attempts across all webhooks.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input;
use crate::admin::number::Count;
use crate::admin::problem::{Error, Problem};
use crate::admin::replays::moment;
use crate::admin::state::Shared;
use crate::event::EventType;
use crate::store::log::{Filter, LoggedAttempt};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: u64 = 200;

/// What to search for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// The highest number of attempts: 1 to 200; 50 by default.
    #[param(value_type = Option<usize>)]
    limit: Option<Count<1, LIMIT_MAX>>,
    /// Only attempts of the task, event or delivery with this id, or whose answer has this status.
    search: Option<String>,
    /// Only attempts that succeeded (true), or that failed (false).
    success: Option<bool>,
    /// Only attempts for this event type.
    event: Option<EventType>,
    /// Only attempts from this time on: `2026-11-24T10:00:00Z`, or how long ago: `2h`.
    since: Option<String>,
    /// Only attempts from before this time.
    until: Option<String>,
}

/// What a search found.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FoundAttempts)]
pub struct SearchAnswer<'a> {
    /// The attempts, newest first; of one webhook at most 50, or 5 if nothing is searched for.
    deliveries: Vec<LoggedAttempt<'a>>,
    /// The number of webhooks whose logs were searched within 5 s.
    searched: usize,
    /// The number of webhooks.
    webhooks: usize,
}

/// Attempts of all webhooks, newest first.
#[utoipa::path(get,
    operation_id = "searchDeliveries", path = "/api/deliveries", tag = "deliveries", params(SearchQuery),
    responses((status = 200, body = SearchAnswer), (status = 400, body = Error), (status = 503, body = Error)))]
pub async fn search(
    State(admin): State<Shared>,
    input::Query(query): input::Query<SearchQuery>,
) -> Result<Response, Problem> {
    let filter = Filter {
        success: query.success,
        event: query.event,
        search: query.search.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
        since_ms: moment("since", query.since.as_deref())?,
        until_ms: moment("until", query.until.as_deref())?,
    };
    let limit = query.limit.map_or(LIMIT_DEFAULT, |limit| limit.get() as usize);
    let found = admin.search(&filter, limit).await?;
    let deliveries = found.attempts.iter().map(|(_, entry)| entry.shown()).collect();
    Ok(Json(SearchAnswer { deliveries, searched: found.searched, webhooks: found.webhooks }).into_response())
}
