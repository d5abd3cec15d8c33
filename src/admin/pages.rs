//! The pages for people. They are rendered by the server and work without JavaScript.

mod dead_letters;
mod deliveries;
mod elements;
mod form;
mod layout;
mod live;
mod sign_in;
mod snippets;
mod status;
mod webhook;
mod webhooks;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use axum_extra::extract::cookie::CookieJar;

use super::auth;
use super::problem::{Problem, Refusal};
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
        .route_layer(middleware::from_fn_with_state(admin.clone(), require_session));
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

/// Lets a request with a session through, and sends a person without one to the sign-in page.
async fn require_session(State(admin): State<Shared>, jar: CookieJar, mut request: Request, next: Next) -> Response {
    let session = jar.get(auth::COOKIE).and_then(|cookie| admin.guard.session(cookie.value(), auth::now_s()));
    if let Some(session) = session {
        request.extensions_mut().insert(session);
        return next.run(request).await;
    }
    if request.method() == Method::GET {
        let wanted = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let query = serde_html_form::to_string([("next", wanted)]).unwrap_or_default();
        return Redirect::to(&format!("{}?{query}", auth::SIGN_IN)).into_response();
    }
    let problem =
        Problem::new(StatusCode::UNAUTHORIZED, "You are signed out: sign in and try again. Nothing was changed.");
    Refusal(problem).into_response()
}

fn asset(content_type: &'static str, content: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, content).into_response()
}

/// Adds the security headers, and forbids caching unless the response allows it.
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
