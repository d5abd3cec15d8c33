//! The pages: rendered here, usable without JavaScript.

mod dead_letters;
pub mod deliveries;
mod form;
mod layout;
mod sign_in;
mod snippets;
mod status;
mod webhook;
mod webhooks;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use maud::{Markup, html};

use super::{Problem, Shared, auth, live};
pub use form::Form;
use layout::layout;

/// Only what this server sends, and nothing inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A problem, as a page.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl<E: Into<Problem>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Problem { status, sentence } = self.0;
        let title = status.canonical_reason().unwrap_or("Error");
        let body = html! {
            h1 { (title) }
            p .flash.bad role="alert" { (sentence) }
            p { a href="/settings/webhooks" { "Back to the webhooks" } }
        };
        (status, layout(title, None, None, &body)).into_response()
    }
}

/// Everything that isn't the API.
pub fn routes(admin: &Shared) -> Router {
    let signed_in = Router::new()
        .route("/", get(async || Redirect::to("/settings/webhooks")))
        .route("/settings/webhooks", get(webhooks::list).post(webhooks::add))
        .route("/settings/webhooks/new", get(webhooks::new))
        .route("/settings/webhooks/{id}", get(webhook::show).post(webhook::change))
        .route("/settings/webhooks/{id}/active", post(webhook::activate))
        .route("/settings/webhooks/{id}/rotate-secret", post(webhook::rotate))
        .route("/settings/webhooks/{id}/test", post(webhook::test))
        .route("/settings/webhooks/{id}/delete", get(webhook::confirm_delete).post(webhook::delete))
        .route("/settings/webhooks/{id}/verify", get(snippets::show))
        .route("/settings/webhooks/{id}/deliveries", get(deliveries::list))
        .route("/settings/webhooks/{id}/deliveries/live", get(live::deliveries))
        .route("/settings/webhooks/{id}/deliveries/{entry}", get(deliveries::show))
        .route("/settings/webhooks/{id}/deliveries/{entry}/redeliver", post(deliveries::redeliver))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/replay", post(dead_letters::replay))
        .route("/dead-letters/replays/{id}", get(dead_letters::progress))
        .route("/dead-letters/replays/{id}/stop", post(dead_letters::stop))
        .route("/dead-letters/{partition}/{offset}", get(dead_letters::show))
        .route("/status", get(status::show))
        .route("/sign-out", post(sign_in::sign_out))
        .route_layer(middleware::from_fn_with_state(admin.clone(), auth::signed_in));
    Router::new()
        .merge(signed_in)
        .route(auth::SIGN_IN, get(sign_in::show).post(sign_in::sign_in))
        .route("/assets/style.css", get(async || asset("text/css; charset=utf-8", include_str!("assets/style.css"))))
        .route("/assets/app.js", get(async || asset("text/javascript; charset=utf-8", include_str!("assets/app.js"))))
        .fallback(async || {
            Refusal(Problem::new(StatusCode::NOT_FOUND, "There is no such page. It may have been deleted."))
        })
        .layer(middleware::map_response(harden))
        .with_state(admin.clone())
}

fn asset(kind: &'static str, content: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, content).into_response()
}

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// A time, which the script shows in the reader's own zone.
fn time(rfc3339: &str) -> Markup {
    html! { time datetime=(rfc3339) { (rfc3339.replace('T', " ").replace(".000Z", " UTC").replace('Z', " UTC")) } }
}

/// One of several ways to see the same thing.
fn option(value: &str, label: &str, chosen: &str) -> Markup {
    html! { option value=(value) selected[value == chosen] { (label) } }
}
