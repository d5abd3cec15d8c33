//! The page that asks before a webhook is deleted.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};

use super::elements::csrf;
use super::form::Form;
use super::layout::{NavItem, layout};
use crate::admin::entrance::read_only;
use crate::admin::problem::Refusal;
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::store::audit::Author;

/// `GET /settings/webhooks/{id}/delete`
pub async fn confirm(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
) -> Result<Markup, Refusal> {
    if !session.may_change() {
        return Err(read_only(&session.name).into());
    }
    let webhook = admin.find(&id).await?;
    let content = html! {
        nav .crumbs aria-label="Breadcrumb" { a href={ "/settings/webhooks/" (webhook.id) } { "Back to the webhook" } }
        h1 { "Delete this webhook?" }
        form .card method="post" {
            (csrf(&session))
            p .url { (webhook.url) }
            p { "Pending deliveries in the queue will not be sent after deletion, and the delivery log is deleted as well. This can't be undone." }
            div .row { button .danger { "Delete" } a href={ "/settings/webhooks/" (webhook.id) } { "Keep it" } }
        }
    };
    Ok(layout("Delete webhook", Some(&session), Some(NavItem::Webhooks), &content))
}

/// `POST /settings/webhooks/{id}/delete`
pub async fn delete(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    Form(_): Form<serde::de::IgnoredAny>,
) -> Result<Redirect, Refusal> {
    admin.remove(&id, &who).await?;
    Ok(Redirect::to("/settings/webhooks?done=deleted"))
}
