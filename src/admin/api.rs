//! The API (`docs/reference.md`, section "HTTP API"), and its description.

mod activity;
mod audit;
mod dead_letters;
mod deliveries;
mod events;
mod filters;
mod idempotency;
mod input;
mod missed;
mod outgoing;
mod paging;
mod search;
mod status;
mod webhooks;

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entrance;
use super::problem::{Error, Problem};
use super::state::Shared;
use crate::store::audit::Author;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "optio-webhooks",
        description = "Webhooks, their delivery log, dead letters and status. Errors are {\"error\": \"a sentence\"}."
    ),
    modifiers(&BearerToken),
    security(("token" = [])),
    components(schemas(Error))
)]
struct Description;

/// Adds the security scheme to the description.
struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

fn described_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(webhooks::list, webhooks::add))
        .routes(routes!(webhooks::show, webhooks::put, webhooks::change, webhooks::remove))
        .routes(routes!(filters::try_filter))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::redeliver))
        .routes(routes!(search::search))
        .routes(routes!(events::stream))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(dead_letters::progress))
        .routes(routes!(dead_letters::stop))
        .routes(routes!(missed::show))
        .routes(routes!(activity::of_webhook))
        .routes(routes!(activity::of_lag))
        .routes(routes!(audit::list))
        .routes(routes!(status::status))
}

/// The description of the API, made from its code.
#[cfg(test)]
fn document() -> utoipa::openapi::OpenApi {
    described_routes().into_openapi()
}

/// The routes of everything under `/api`, and of `/openapi.json`.
pub fn routes(admin: &Shared) -> Router {
    let (routes, document) = described_routes().split_for_parts();
    let document = outgoing::describe(serde_json::to_value(document).expect("a description always serializes"));
    routes
        .route("/openapi.json", get(async move || Json(document)))
        .route("/api/{*path}", axum::routing::any(unknown))
        .method_not_allowed_fallback(not_allowed)
        .route_layer(middleware::from_fn_with_state(admin.clone(), idempotency::once))
        .route_layer(middleware::from_fn(known_parameters))
        .route_layer(middleware::from_fn_with_state(admin.clone(), entrance::require_token))
        .with_state(admin.clone())
}

/// The routes without the check of a token, for calls by `who` in this process.
pub fn routes_of(admin: &Shared, who: Author) -> Router {
    let (routes, _) = described_routes().split_for_parts();
    routes
        .route("/api/{*path}", axum::routing::any(unknown))
        .method_not_allowed_fallback(not_allowed)
        .route_layer(middleware::from_fn(known_parameters))
        .layer(axum::Extension(who))
        .with_state(admin.clone())
}

/// The calls that take query parameters. They check their parameters themselves.
const WITH_PARAMETERS: [&str; 6] = [
    "/api/webhooks",
    "/api/webhooks/{id}/deliveries",
    "/api/deliveries",
    "/api/dead-letters",
    "/api/audit",
    "/api/events/stream",
];

/// Refuses any parameter of a call that takes none. Without this, a client that believes it filters would take the
/// whole list for the matching part.
async fn known_parameters(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    // Below `admin.base_path`, the path begins with that.
    let path = path.map(|path| &path[path.rfind("/api/").unwrap_or(0)..]);
    let query = request.uri().query().filter(|query| !query.is_empty());
    if let Some(query) = query
        && path.is_some_and(|path| !WITH_PARAMETERS.contains(&path))
    {
        let name = query.split(['=', '&']).next().unwrap_or_default();
        return Problem::field(name, "is unknown: this call takes no parameters").into_response();
    }
    next.run(request).await
}

async fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "this path does not exist; /openapi.json describes the API")
}

async fn not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method; /openapi.json describes the API")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_description_matches_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let described = outgoing::describe(serde_json::to_value(document()).unwrap());
        let described = serde_json::to_string_pretty(&described).unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &described).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(described, published, "the API has changed: `make openapi` updates its description");
    }
}
