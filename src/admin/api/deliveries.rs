//! `/api/webhooks/{id}/deliveries`: the delivery log.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input;
use crate::admin::api::Error;
use crate::admin::{Problem, Shared};
use crate::delivery::DeliveryId;
use crate::event::EventType;
use crate::store::log::{EntryId, Filter, Shown};

const LIMIT_DEFAULT: usize = 50;
/// Entries of one page.
const LIMIT_MAX: usize = 200;

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// 1 to 200; 50 by default.
    limit: Option<usize>,
    /// Only older ones than this: the `next` of an earlier page.
    before: Option<String>,
    /// Only those that succeeded (true), or that failed (false).
    success: Option<bool>,
    /// Only those that told of this.
    event: Option<EventType>,
}

/// A page of the log.
#[derive(Serialize, ToSchema)]
pub struct Page<'a> {
    /// Newest first.
    deliveries: Vec<Shown<'a>>,
    /// What to ask for as `before` for the next page; null at the end.
    next: Option<String>,
}

/// A delivery that is sent again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redelivered {
    /// Its identity, the same as before.
    delivery_id: DeliveryId,
}

/// The delivery log of a webhook, newest first: an entry for each attempt.
#[utoipa::path(get, path = "/api/webhooks/{id}/deliveries", tag = "deliveries", params(("id" = String, Path), Asked),
    responses((status = 200, body = Page), (status = 400, body = Error), (status = 404, body = Error)))]
pub async fn list(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    input::Query(asked): input::Query<Asked>,
) -> Result<Response, Problem> {
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::field("limit", format!("{limit} is not allowed; allowed is 1 to {LIMIT_MAX}")));
    }
    let before: Option<EntryId> = asked
        .before
        .map(|before| before.parse().map_err(|_| Problem::field("before", "isn't the `next` of an earlier page")))
        .transpose()?;
    let webhook = admin.find(&id).await?;
    let filter = Filter { success: asked.success, event: asked.event };
    let page = admin.log.page(webhook.id, filter, before, limit).await?;
    let deliveries = page.entries.iter().map(crate::store::log::Entry::shown).collect();
    Ok(Json(Page { deliveries, next: page.next.map(|next| next.to_string()) }).into_response())
}

/// Sends a delivery again: durably, under the same delivery id, in place of a retry that waits. `delivery` is an
/// entry's `id`, or a `deliveryId`.
#[utoipa::path(post, path = "/api/webhooks/{id}/deliveries/{delivery}/redeliver", tag = "deliveries",
    params(("id" = String, Path), ("delivery" = String, Path)),
    responses((status = 202, body = Redelivered), (status = 404, body = Error), (status = 409, body = Error)))]
pub async fn redeliver(
    State(admin): State<Shared>,
    Path((id, delivery)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Redelivered>), Problem> {
    let webhook = admin.find(&id).await?;
    let entry = admin.redeliver(&webhook, &delivery).await?;
    Ok((StatusCode::ACCEPTED, Json(Redelivered { delivery_id: entry.logged.delivery_id })))
}
