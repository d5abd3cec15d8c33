//! The pages for people. They are rendered by the server and work without JavaScript.

mod audit;
mod chart;
mod curl;
mod dead_letters;
mod deliveries;
mod elements;
mod filter_form;
mod form;
mod layout;
mod live;
mod removal;
mod search;
mod sign_in;
mod snippets;
mod status;
mod trend;
mod trouble;
mod webhook;
mod webhook_form;
mod webhooks;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};

use super::entrance;
use super::problem::{Problem, Refusal};
use super::sessions::SIGN_IN;
use super::state::Shared;

/// Allows only what this server sends, and no inline scripts or styles.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The routes of all pages, and of their script and style sheet.
pub fn routes(admin: &Shared) -> Router {
    let signed_in = Router::new()
        .route("/", get(async || Redirect::to("/settings/webhooks")))
        .route("/settings/webhooks", get(webhooks::list).post(webhooks::add))
        .route("/settings/webhooks/new", get(webhooks::new))
        .route("/settings/webhooks/try-filter", post(filter_form::try_filter))
        .route("/settings/webhooks/{id}", get(webhook::show).post(webhook::change))
        .route("/settings/webhooks/{id}/active", post(webhook::activate))
        .route("/settings/webhooks/{id}/rotate-secret", post(webhook::rotate))
        .route("/settings/webhooks/{id}/test", post(webhook::test))
        .route("/settings/webhooks/{id}/delete", get(removal::confirm).post(removal::delete))
        .route("/settings/webhooks/{id}/verify", get(snippets::show))
        .route("/settings/webhooks/{id}/deliveries", get(deliveries::list))
        .route("/settings/webhooks/{id}/deliveries/live", get(live::deliveries))
        .route("/settings/webhooks/{id}/deliveries/{entry}", get(deliveries::show))
        .route("/settings/webhooks/{id}/deliveries/{entry}/redeliver", post(deliveries::redeliver))
        .route("/deliveries", get(search::list))
        .route("/events/{id}", get(search::event))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/replay", post(dead_letters::replay))
        .route("/dead-letters/replays/{id}", get(dead_letters::progress))
        .route("/dead-letters/replays/{id}/stop", post(dead_letters::stop))
        .route("/dead-letters/{partition}/{offset}", get(dead_letters::show))
        .route("/status", get(status::show))
        .route("/audit", get(audit::list))
        .route(entrance::SIGN_OUT, post(sign_in::sign_out))
        .route_layer(middleware::from_fn_with_state(admin.clone(), entrance::require_session));
    Router::new()
        .merge(signed_in)
        .route(SIGN_IN, get(sign_in::show).post(sign_in::sign_in))
        .route("/assets/style.css", get(async || asset("text/css; charset=utf-8", include_str!("assets/style.css"))))
        .route("/assets/app.js", get(async || asset("text/javascript; charset=utf-8", include_str!("assets/app.js"))))
        .fallback(async || {
            Refusal(Problem::new(StatusCode::NOT_FOUND, "There is no such page. It may have been deleted."))
        })
        .layer(middleware::map_response(harden))
        .with_state(admin.clone())
}

fn asset(content_type: &'static str, content: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, content).into_response()
}

/// Adds the security headers of pages. The server adds those that every answer has.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
