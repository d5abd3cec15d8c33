//! `/api/audit`: who changed what.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::input;
use crate::admin::number::Count;
use crate::admin::problem::{Error, Problem};
use crate::admin::state::Shared;
use crate::store::audit::Page;
use crate::store::log::EntryId;

const LIMIT_DEFAULT: usize = 50;

/// The place where the page begins.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// The highest number of entries on the page: 1 to 200; 50 by default.
    #[param(value_type = Option<usize>)]
    limit: Option<Count<1, 200>>,
    /// Only entries older than this one: the `next` of an earlier page.
    before: Option<String>,
}

/// The audit log, newest first: who did what, when and from where. Secrets in old and new values are masked.
#[utoipa::path(get,
    operation_id = "listAuditEntries", path = "/api/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page), (status = 400, body = Error), (status = 503, body = Error)))]
pub async fn list(
    State(admin): State<Shared>,
    input::Query(query): input::Query<AuditQuery>,
) -> Result<Json<Page>, Problem> {
    let before: Option<EntryId> = query
        .before
        .map(|before| before.parse().map_err(|_| Problem::field("before", "isn't the `next` of an earlier page")))
        .transpose()?;
    let limit = query.limit.map_or(LIMIT_DEFAULT, |limit| limit.get() as usize);
    Ok(Json(admin.audit.page(before, limit).await?))
}
