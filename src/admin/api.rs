//! The API of contract section 7, and its description.

mod dead_letters;
mod deliveries;
mod input;
mod status;
mod webhooks;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use dead_letters::BROWSERS_MAX;

use super::{Problem, Shared, auth};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "optio-webhooks",
        description = "Webhooks, their delivery log, dead letters and status. Errors are {\"error\": \"a sentence\"}."
    ),
    modifiers(&Token),
    security(("token" = [])),
    components(schemas(Error))
)]
struct Description;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// What went wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its description is used: Problem writes it")]
struct Error {
    /// What was wrong, and what is allowed.
    error: String,
}

fn described() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(webhooks::list, webhooks::add))
        .routes(routes!(webhooks::show, webhooks::change, webhooks::remove))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::redeliver))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(dead_letters::progress))
        .routes(routes!(status::status))
}

/// The API's description, made from its code.
#[cfg(test)]
fn document() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

/// Everything under `/api`, and `/openapi.json`.
pub fn routes(admin: &Shared) -> Router {
    let (routes, document) = described().split_for_parts();
    routes
        .route("/openapi.json", get(async move || Json(document)))
        .route("/api/{*path}", axum::routing::any(unknown))
        .method_not_allowed_fallback(not_allowed)
        .route_layer(middleware::from_fn(known_parameters))
        .route_layer(middleware::from_fn_with_state(admin.clone(), auth::bearer))
        .with_state(admin.clone())
}

/// Calls that take parameters in their query, and judge them themselves.
const WITH_PARAMETERS: [&str; 2] = ["/api/webhooks/{id}/deliveries", "/api/dead-letters"];

/// Refuses a parameter where none is known: who filters by it would take everything for what fits.
async fn known_parameters(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
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
    Problem::new(axum::http::StatusCode::NOT_FOUND, "there is nothing here; /openapi.json describes what there is")
}

async fn not_allowed() -> Problem {
    Problem::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "this method isn't allowed here; /openapi.json describes what is",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_description_is_the_one_that_the_code_gives() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let described = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &described).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(described, published, "the API has changed: `make openapi` writes its description anew");
    }
}
