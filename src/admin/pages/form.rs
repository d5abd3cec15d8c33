//! The extractor of a form. It accepts a form only from a page of the same session.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::de::DeserializeOwned;

use crate::admin::problem::{Problem, Refusal};
use crate::admin::sessions::Session;
use crate::admin::unreadable::without_values;

/// The fields that a person sent.
pub struct Form<T>(pub T);

#[derive(serde::Deserialize)]
struct Token {
    #[serde(default)]
    csrf: String,
}

impl<T: DeserializeOwned> Form<T> {
    /// The fields of a query string, which needs no token.
    ///
    /// # Errors
    /// 400: a field can't be read.
    pub fn of_query(query: Option<&str>) -> Result<T, Problem> {
        serde_html_form::from_str(query.unwrap_or_default())
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("The address can't be read: {error}")))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let refuse = |status, sentence: &str| Refusal(Problem::new(status, sentence)).into_response();
        let session = request.extensions().get::<Session>().cloned();
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            refuse(rejection.into_response().status(), "What you sent is too large. Nothing was changed.")
        })?;
        let token = serde_html_form::from_bytes(&body).unwrap_or(Token { csrf: String::new() });
        if !session.is_some_and(|session| session.accepts(&token.csrf)) {
            return Err(refuse(
                StatusCode::UNAUTHORIZED,
                "This form belongs to an earlier session: go back, reload the page and send it again. Nothing was changed.",
            ));
        }
        let fields = serde_html_form::from_bytes(&body).map_err(|error| {
            refuse(StatusCode::BAD_REQUEST, &format!("The form can't be read: {}", without_values(&error.to_string())))
        })?;
        Ok(Self(fields))
    }
}
