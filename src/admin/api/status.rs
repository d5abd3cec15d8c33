//! `/api/status`

use axum::Json;
use axum::extract::State;

use crate::admin::api::Error;
use crate::admin::status::Status;
use crate::admin::{Problem, Shared};

/// Workers, partitions and what holds them, endpoint health.
#[utoipa::path(get, path = "/api/status", tag = "status", responses((status = 200, body = Status), (status = 503, body = Error)))]
pub async fn status(State(admin): State<Shared>) -> Result<Json<Status>, Problem> {
    Ok(Json(admin.status().await?))
}
