//! `/api/webhooks/{id}/deliveries`: the delivery log.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input;
use crate::admin::number::Count;
use crate::admin::problem::{Error, Problem};
use crate::admin::replays::moment;
use crate::admin::state::Shared;
use crate::delivery::DeliveryId;
use crate::event::EventType;
use crate::store::audit::Author;
use crate::store::log::{EntryId, Filter, LoggedAttempt};

const LIMIT_DEFAULT: usize = 50;
/// The highest number of entries on a page.
const LIMIT_MAX: u64 = 200;

/// The filters of the log, and the place where its page begins.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveriesQuery {
    /// The highest number of entries on the page: 1 to 200; 50 by default.
    #[param(value_type = Option<usize>)]
    limit: Option<Count<1, LIMIT_MAX>>,
    /// Only entries older than this one: the `next` of an earlier page.
    before: Option<String>,
    /// Only attempts that succeeded (true), or that failed (false).
    success: Option<bool>,
    /// Only attempts for this event type.
    event: Option<EventType>,
    /// Only attempts of the task, event or delivery with this id, or whose answer has this status.
    search: Option<String>,
    /// Only attempts from this time on: `2026-11-24T10:00:00Z`, or how long ago: `2h`.
    since: Option<String>,
    /// Only attempts from before this time.
    until: Option<String>,
}

/// A page of the log.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub struct DeliveriesAnswer<'a> {
    /// The entries, newest first.
    deliveries: Vec<LoggedAttempt<'a>>,
    /// The value of `before` for the next page; null on the last page.
    next: Option<String>,
}

/// A delivery that will be sent again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redelivered {
    /// The id of the delivery, which does not change.
    delivery_id: DeliveryId,
}

/// The delivery log of a webhook: one entry for each attempt, newest first.
#[utoipa::path(get,
    operation_id = "listDeliveries", path = "/api/webhooks/{id}/deliveries", tag = "deliveries", params(("id" = String, Path), DeliveriesQuery),
    responses((status = 200, body = DeliveriesAnswer), (status = 400, body = Error), (status = 404, body = Error)))]
pub async fn list(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    input::Query(query): input::Query<DeliveriesQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.map_or(LIMIT_DEFAULT, |limit| limit.get() as usize);
    let before: Option<EntryId> = query
        .before
        .map(|before| before.parse().map_err(|_| Problem::field("before", "isn't the `next` of an earlier page")))
        .transpose()?;
    let webhook = admin.find(&id).await?;
    let filter = Filter {
        success: query.success,
        event: query.event,
        search: query.search.filter(|text| !text.trim().is_empty()).map(|text| text.trim().to_owned()),
        since_ms: moment("since", query.since.as_deref())?,
        until_ms: moment("until", query.until.as_deref())?,
    };
    let page = admin.log.page(webhook.id, filter, before, limit).await?;
    let deliveries = page.entries.iter().map(crate::store::log::LogEntry::shown).collect();
    Ok(Json(DeliveriesAnswer { deliveries, next: page.next.map(|next| next.to_string()) }).into_response())
}

/// Sends a delivery again, durably and under the same delivery id. It replaces a retry that waits. `delivery` is the
/// `id` of an entry, or a `deliveryId`.
#[utoipa::path(post,
    operation_id = "redeliver", path = "/api/webhooks/{id}/deliveries/{delivery}/redeliver", tag = "deliveries",
    params(("id" = String, Path), ("delivery" = String, Path)),
    responses((status = 202, body = Redelivered), (status = 404, body = Error), (status = 409, body = Error)))]
pub async fn redeliver(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path((id, delivery)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Redelivered>), Problem> {
    let webhook = admin.find(&id).await?;
    let entry = admin.redeliver(&webhook, &delivery, &who).await?;
    Ok((StatusCode::ACCEPTED, Json(Redelivered { delivery_id: entry.logged.delivery_id })))
}
