//! `/api/webhooks/{id}/missed`: what a webhook missed while it was paused or disabled.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::problem::{Error, Problem};
use crate::admin::state::Shared;
use crate::clock::rfc3339;

/// What a webhook missed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Missed)]
pub struct MissedAnswer {
    /// The number of events that it did not get while it was paused or disabled. Its dead letters are not among them.
    events: u64,
    /// When it missed the first of them; null if there is none.
    since: Option<String>,
}

/// What a webhook missed. `POST /api/dead-letters/replay` with `webhook` and `missed` sends it.
#[utoipa::path(get,
    operation_id = "showMissed", path = "/api/webhooks/{id}/missed", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 200, body = MissedAnswer), (status = 404, body = Error)))]
pub async fn show(State(admin): State<Shared>, Path(id): Path<String>) -> Result<Json<MissedAnswer>, Problem> {
    let webhook = admin.find(&id).await?;
    let (events, since_ms) = admin.missed.count(webhook.id).await?;
    Ok(Json(MissedAnswer { events, since: since_ms.map(rfc3339) }))
}
