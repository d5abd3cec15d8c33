//! Refuses paths that aren't UTF-8. The extractors of axum would answer them with a text of their own.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;

use super::problem::{Problem, Refusal};

/// Lets a request with a readable path through.
pub async fn check(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if percent_decode_str(path).decode_utf8().is_ok() {
        return next.run(request).await;
    }
    let is_api = path.starts_with("/api/");
    let problem = Problem::new(StatusCode::NOT_FOUND, "There is no such path: it isn't UTF-8.");
    if is_api { problem.into_response() } else { Refusal(problem).into_response() }
}
