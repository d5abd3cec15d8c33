//! `/api/status`: workers, partitions and endpoints.

use axum::Json;
use axum::extract::State;

use crate::admin::problem::{Error, Problem};
use crate::admin::state::Shared;
use crate::admin::status::Status;

/// Workers, partitions and what blocks their watermarks, and the health of endpoints.
#[utoipa::path(get,
    operation_id = "showStatus", path = "/api/status", tag = "status", responses((status = 200, body = Status), (status = 503, body = Error)))]
pub async fn status(State(admin): State<Shared>) -> Result<Json<Status>, Problem> {
    Ok(Json(admin.status().await?))
}
