//! Why a request fails: as JSON for the API, and as a page for people (`docs/reference.md`, section "Errors").

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Serialize;
use utoipa::ToSchema;

use super::document::document;
use super::unreadable::without_values;
use crate::store::{StoreError, is_away, refuses_writes, unaudited};
use crate::trial::Untried;
use crate::webhook::{BadWebhook, WebhookId};

/// A status, and a sentence that says what is wrong and what is allowed. It becomes an answer of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// 400, 401, 403, 404, 405, 409, 413, 421, 422, 429 or 503.
    pub status: StatusCode,
    /// A sentence for people, without secrets.
    pub sentence: String,
    /// The value of `Retry-After`, in seconds.
    pub retry_after_s: Option<u64>,
}

/// A problem that becomes a page.
#[derive(Debug)]
pub struct Refusal(pub Problem);

/// The body of every answer that reports an error.
#[derive(Serialize, ToSchema)]
pub struct Error {
    /// A sentence that says what is wrong, and what is allowed.
    error: String,
}

impl Problem {
    /// A problem with any status.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after_s: None }
    }

    /// 400: the value of `field` is not allowed.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{field}: {problem}"))
    }

    /// 404: no webhook has this id.
    pub fn no_webhook(id: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no webhook {id}"))
    }

    /// 404: the delivery log has no such attempt or delivery.
    pub fn no_delivery(webhook: WebhookId, id: &str) -> Self {
        let sentence =
            format!("the delivery log of webhook {webhook} has no delivery {id}; it keeps only the newest attempts");
        Self::new(StatusCode::NOT_FOUND, sentence)
    }

    /// 409: the state of the webhook, or of another replay, does not allow the request.
    pub fn conflict(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, sentence)
    }

    /// 413: the request's body is larger than `admin.body_max`.
    pub fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large; admin.body_max is the number of bytes that are allowed",
        )
    }

    /// 429: there were too many requests. The next one may follow after `seconds`.
    pub fn too_many(seconds: u64, sentence: impl Into<String>) -> Self {
        Self { retry_after_s: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, sentence) }
    }

    /// The headers that the answer has besides those of its body.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        self.retry_after_s.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))).into_iter().collect()
    }

    /// 503: Kafka or Redis is away. Nothing was changed.
    pub fn away(error: &anyhow::Error) -> Self {
        tracing::warn!(error = format!("{error:#}"), "a request can't be answered");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}; try again in a moment"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, self.headers(), Json(Error { error: self.sentence })).into_response()
    }
}

impl<E: Into<Problem>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let headers = self.0.headers();
        let Problem { status, sentence, .. } = self.0;
        let title = status.canonical_reason().unwrap_or("Error");
        let content = html! {
            h1 { (title) }
            p .flash.bad role="alert" { (sentence) }
            p { a href="/settings/webhooks" { "Back to the webhooks" } }
        };
        (status, headers, document(title, &Markup::default(), &content)).into_response()
    }
}

impl From<Untried> for Problem {
    fn from(untried: Untried) -> Self {
        match (untried.retry_after_s(), untried) {
            (_, Untried::Redis(error)) => error.into(),
            (seconds, limited) => Self::too_many(seconds.unwrap_or(1), limited.to_string()),
        }
    }
}

impl From<BadWebhook> for Problem {
    fn from(bad: BadWebhook) -> Self {
        Self::field(bad.field, bad.problem)
    }
}

impl From<redis::RedisError> for Problem {
    fn from(error: redis::RedisError) -> Self {
        match unaudited(&error) {
            Some(sentence) => Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence),
            None if is_away(&error) => Self::away(&anyhow::Error::new(error).context("Redis is away")),
            None => {
                tracing::warn!(%error, "Redis refuses what a request needs");
                let sentence = match refuses_writes(&error) {
                    Some(why) => format!("Redis answers but refuses writes: {why}"),
                    None => format!("Redis answers with an error that an operator must look into: {error}"),
                };
                Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Redis(error) => error.into(),
            problem @ StoreError::NoSealingKey(_) => Self::new(StatusCode::BAD_REQUEST, problem.to_string()),
            problem @ (StoreError::Unreadable { .. } | StoreError::Unopened { .. }) => {
                Self::conflict(problem.to_string())
            }
        }
    }
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::away(&error)
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        // The rest of serde's text begins with the field. The removed words say only that the body was JSON.
        let text = rejection.body_text();
        let sentence = text.strip_prefix("Failed to deserialize the JSON body into the target type: ").unwrap_or(&text);
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            _ => Self::new(StatusCode::BAD_REQUEST, without_values(sentence)),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            status => Self::new(status, rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let sentence = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }
}
