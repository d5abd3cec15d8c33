//! What went wrong with a request, as a status and a sentence (contract section 7).

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::store::StoreError;
use crate::webhook::{BadWebhook, WebhookId};

/// A status and a sentence: what was wrong, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// 400, 401, 404, 409, 413, 500 or 503.
    pub status: StatusCode,
    /// For people.
    pub sentence: String,
}

impl Problem {
    /// Of any status.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }

    /// 400: `field` can't be read.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{field}: {problem}"))
    }

    /// 404.
    pub fn no_webhook(id: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no webhook {id}"))
    }

    /// 404.
    pub fn no_delivery(webhook: WebhookId, id: &str) -> Self {
        let sentence = format!("the delivery log of webhook {webhook} has no delivery {id}; it keeps the newest only");
        Self::new(StatusCode::NOT_FOUND, sentence)
    }

    /// 409.
    pub fn conflict(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, sentence)
    }

    /// 413.
    pub fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large; admin.body_max says how many bytes are allowed",
        )
    }

    /// 503: a part is away; nothing was changed.
    pub fn away(error: &anyhow::Error) -> Self {
        tracing::warn!(error = format!("{error:#}"), "a request can't be answered");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}; try again in a moment"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.sentence }))).into_response()
    }
}

impl From<BadWebhook> for Problem {
    fn from(bad: BadWebhook) -> Self {
        Self::field(bad.field, bad.problem)
    }
}

impl From<redis::RedisError> for Problem {
    fn from(error: redis::RedisError) -> Self {
        Self::away(&anyhow::Error::new(error).context("Redis is away"))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Redis(error) => error.into(),
            unreadable @ StoreError::Unreadable { .. } => Self::conflict(unreadable.to_string()),
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
        // What serde says names the field; that it was JSON goes without saying.
        let text = rejection.body_text();
        let sentence = text.strip_prefix("Failed to deserialize the JSON body into the target type: ").unwrap_or(&text);
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            _ => Self::new(StatusCode::BAD_REQUEST, sentence),
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
