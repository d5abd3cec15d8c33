//! `Idempotency-Key`: a POST that is sent again, because its answer was lost, is not done again.
//!
//! The rules are those of the IETF draft "The Idempotency-Key HTTP Header Field" (httpapi), section 2.

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::admin::problem::Problem;
use crate::admin::state::{Admin, Shared};
use crate::store::audit::Author;
use crate::store::replies::{Answer, Known};

/// The header with the key.
const KEY: &str = "idempotency-key";
/// The longest key, in bytes.
const KEY_MAX: usize = 255;
/// The largest answer that is kept, in bytes.
const ANSWER_MAX: usize = 4 << 20;
/// The header of an answer that was given before.
const REPLAYED: &str = "idempotency-replayed";

/// Answers a POST with a key that was answered before in the same way, without doing it again.
pub async fn once(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    request: Request,
    next: Next,
) -> Response {
    let Some(key) = request.headers().get(KEY).filter(|_| request.method() == Method::POST) else {
        return next.run(request).await;
    };
    let is_allowed = |key: &&str| !key.is_empty() && key.len() <= KEY_MAX && key.bytes().all(|b| b.is_ascii_graphic());
    let Some(key) = key.to_str().ok().filter(is_allowed) else {
        let sentence = format!("must be 1 to {KEY_MAX} ASCII characters without spaces, such as a UUID");
        return Problem::field("Idempotency-Key", sentence).into_response();
    };
    let id = hex(&[who.name.as_deref().unwrap_or_default().as_bytes(), key.as_bytes()]);
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, admin.config.admin.body_max).await else {
        return Problem::too_large().into_response();
    };
    let fingerprint = hex(&[parts.uri.path().as_bytes(), &body]);
    match admin.replies.claim(&id, &fingerprint).await {
        Ok(Known::New) => {}
        Ok(Known::Answered(answer)) => return replayed(&answer),
        Ok(Known::Pending) => {
            return Problem {
                retry_after_s: Some(1),
                ..Problem::conflict("the same request is under way; try again in a moment")
            }
            .into_response();
        }
        Ok(Known::Unopened) => {
            let sentence = "Idempotency-Key: this request was done, and its answer can't be read any more, because its sealing \
                            key is gone";
            return Problem::conflict(sentence).into_response();
        }
        Ok(Known::Other) => {
            let sentence =
                "Idempotency-Key: this key was used for another request within the last 24 hours; use a new one";
            return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, sentence).into_response();
        }
        Err(error) => return Problem::away(&error.into()).into_response(),
    }
    // A task of its own, so that a client that hangs up leaves no key without an answer.
    let request = Request::from_parts(parts, Body::from(body));
    let doing = tokio::spawn(async move {
        let answer = next.run(request).await;
        admin.keep_answer(&id, &fingerprint, answer).await
    });
    doing.await.unwrap_or_else(|error| Problem::away(&error.into()).into_response())
}

impl Admin {
    /// Keeps the answer of a request that was done or refused for good, and releases the key of any other. What is missing,
    /// or what stands in the way of a request, may change.
    async fn keep_answer(&self, id: &str, fingerprint: &str, answer: Response) -> Response {
        let (parts, body) = answer.into_parts();
        let Ok(body) = to_bytes(body, ANSWER_MAX).await else {
            return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer is too large").into_response();
        };
        let may_change = [StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS];
        let is_final = !parts.status.is_server_error() && !may_change.contains(&parts.status);
        let kept = match std::str::from_utf8(&body).ok().filter(|_| is_final) {
            Some(text) => {
                let answer = Answer { status: parts.status.as_u16(), body: text.into() };
                self.replies.keep(id, fingerprint, &answer).await
            }
            None => self.replies.release(id).await,
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the answer to a request with an Idempotency-Key can't be kept");
        }
        Response::from_parts(parts, Body::from(body))
    }
}

fn replayed(answer: &Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body.expose().to_owned()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Adds the header and its answers to the description of every POST.
pub fn describe(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for post in paths.values_mut().filter_map(|path| path.get_mut("post")) {
        let text = format!(
            "A key of your choice, 1 to {KEY_MAX} ASCII characters such as a UUID. The same request with the same key is done once and gets the same answer for 24 hours."
        );
        let header = json!({ "name": "Idempotency-Key", "in": "header", "required": false, "description": text,
            "schema": { "type": "string", "minLength": 1, "maxLength": KEY_MAX } });
        match post["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(header),
            None => post["parameters"] = json!([header]),
        }
        let error = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
        post["responses"]["422"] = json!({ "description": "the key was used for another request", "content": error });
        if post["responses"].get("409").is_none() {
            post["responses"]["409"] = json!({ "description": "the same request is under way", "content": error });
        }
    }
}

/// The hash of some texts, each with its length before it.
fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}
