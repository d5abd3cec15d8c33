//! `/api/webhooks`: subscriptions.

use std::time::Duration;

use anyhow::Context as _;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::input;
use crate::admin::actions::OVERLAP_DEFAULT;
use crate::admin::api::Error;
use crate::admin::{Problem, Shared};
use crate::event::EventType;
use crate::signature;
use crate::store::log;
use crate::webhook::draft::Draft;
use crate::webhook::{Shown, Webhook, WebhookId};

/// All webhooks.
#[derive(Serialize, ToSchema)]
pub struct Webhooks {
    /// Oldest first.
    webhooks: Vec<Shown>,
    /// Those that this version can't read: what is for them waits. Left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<Unreadable>,
    /// Why this list may not be all that there should be. Left out where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// A webhook that another version wrote.
#[derive(Serialize, ToSchema)]
#[schema(as = UnreadableWebhook)]
pub struct Unreadable {
    /// Its identity.
    id: WebhookId,
    /// What can't be read.
    problem: String,
}

/// One webhook.
#[derive(Serialize, ToSchema)]
pub struct One {
    webhook: Shown,
    /// What the store seems to have lost, when a webhook was added to it. Left out where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

impl From<&Webhook> for One {
    fn from(webhook: &Webhook) -> Self {
        Self { webhook: webhook.shown(), warning: None }
    }
}

/// A webhook whose secret was rotated.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotated {
    webhook: Shown,
    /// The new secret where none was given; shown here and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    generated_secret: Option<String>,
}

/// The test's result.
#[derive(Serialize, ToSchema)]
pub struct Tested<'a> {
    delivery: log::Shown<'a>,
}

/// What to send.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Test {
    /// By default the first that the webhook subscribes to.
    event: Option<EventType>,
}

/// The new secret.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// By default one is made: 24 random bytes in the Standard Webhooks form, `whsec_…`.
    secret: Option<String>,
    /// How long the old one signs `webhook-signature` as well, like `24h`; `0s` for not at all. 24h by default.
    overlap: Option<String>,
}

/// All webhooks, oldest first.
#[utoipa::path(get, path = "/api/webhooks", tag = "webhooks", responses((status = 200, body = Webhooks), (status = 401, body = Error)))]
pub async fn list(State(admin): State<Shared>) -> Result<Json<Webhooks>, Problem> {
    let all = admin.store.listing().await?;
    let unreadable = all
        .unsupported
        .into_iter()
        .map(|unsupported| Unreadable { id: unsupported.id, problem: unsupported.problem })
        .collect();
    let webhooks = all.webhooks.iter().map(Webhook::shown).collect();
    Ok(Json(Webhooks { webhooks, unreadable, warning: admin.trouble() }))
}

/// Adds a webhook; it gets every event from now on.
#[utoipa::path(post, path = "/api/webhooks", tag = "webhooks", request_body = Draft,
    responses((status = 201, body = One), (status = 400, body = Error), (status = 413, body = Error)))]
pub async fn add(
    State(admin): State<Shared>,
    input::Json(draft): input::Json<Draft>,
) -> Result<(StatusCode, Json<One>), Problem> {
    let (webhook, warning) = admin.add(&draft).await?;
    Ok((StatusCode::CREATED, Json(One { warning, ..One::from(&webhook) })))
}

/// One webhook.
#[utoipa::path(get, path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 200, body = One), (status = 404, body = Error)))]
pub async fn show(State(admin): State<Shared>, Path(id): Path<String>) -> Result<Json<One>, Problem> {
    Ok(Json(One::from(&admin.find(&id).await?)))
}

/// Changes a webhook; what isn't given stays, null takes away. A webhook as it was shown may be sent back: what can't be
/// changed is taken as long as it is as it stands.
#[utoipa::path(patch, path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)), request_body = Draft,
    responses((status = 200, body = One), (status = 400, body = Error), (status = 404, body = Error)))]
pub async fn change(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    input::Json(given): input::Json<Map<String, Value>>,
) -> Result<Json<One>, Problem> {
    let webhook = admin.find(&id).await?;
    let draft = changes(given, &webhook)?;
    Ok(Json(One::from(&admin.change(webhook.id, &draft).await?)))
}

/// Removes a webhook: nothing more is sent to it, what waits included. Its delivery log goes with it.
#[utoipa::path(delete, path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Error)))]
pub async fn remove(State(admin): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    admin.remove(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a sample event at once; the answer says what came of it, whether or not the endpoint took it.
#[utoipa::path(post, path = "/api/webhooks/{id}/test", tag = "webhooks", params(("id" = String, Path)),
    request_body(content = Test, description = "may be left out"),
    responses((status = 200, body = Tested), (status = 400, body = Error), (status = 404, body = Error)))]
pub async fn test(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    input::Body(body): input::Body,
) -> Result<axum::response::Response, Problem> {
    use axum::response::IntoResponse as _;
    let Test { event } = optional(&body)?;
    let webhook = admin.find(&id).await?;
    let event = event.or(webhook.events.first().copied()).unwrap_or(EventType::TaskCompleted);
    let trial = admin.test(&webhook, event).await?;
    let entry = trial.entry();
    Ok(Json(Tested { delivery: entry.shown() }).into_response())
}

/// Gives a webhook another secret. The old one signs `webhook-signature` as well until the overlap ends.
#[utoipa::path(post, path = "/api/webhooks/{id}/rotate-secret", tag = "webhooks", params(("id" = String, Path)),
    request_body(content = Rotate, description = "may be left out"),
    responses((status = 200, body = Rotated), (status = 400, body = Error), (status = 404, body = Error)))]
pub async fn rotate(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    input::Body(body): input::Body,
) -> Result<Json<Rotated>, Problem> {
    let Rotate { secret, overlap } = optional(&body)?;
    let webhook = admin.find(&id).await?;
    let overlap = overlap_of(overlap.as_deref())?;
    let generated_secret = secret.is_none().then(signature::generate_secret);
    let new = secret.or_else(|| generated_secret.clone()).expect("one of the two is there");
    let webhook = admin.rotate(webhook.id, &new, overlap).await?.shown();
    Ok(Json(Rotated { webhook, generated_secret }))
}

/// What of a webhook is shown and can't be changed.
const READ_ONLY: [&str; 5] = ["id", "createdAt", "updatedAt", "disabledReason", "secretOverlapUntil"];

/// What is to be changed of `webhook`.
fn changes(mut given: Map<String, Value>, webhook: &Webhook) -> Result<Draft, Problem> {
    let shown = serde_json::to_value(webhook.shown()).context("a webhook always serializes")?;
    for field in READ_ONLY {
        let stands = &shown[field];
        if given.remove(field).is_some_and(|value| value != *stands) {
            return Err(Problem::field(field, format!("can't be changed; it is {stands}: leave it out, or as it is")));
        }
    }
    let draft = axum::Json::<Draft>::from_bytes(Value::Object(given).to_string().as_bytes())?.0;
    if draft.is_empty() {
        let sentence = "nothing would change: give one or more of url, events, secret, description, active, format and \
                        ratePerSecond; the mask of a secret stands for the one that is there";
        return Err(Problem::new(StatusCode::BAD_REQUEST, sentence));
    }
    Ok(draft)
}

/// How long the old secret signs as well.
fn overlap_of(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(OVERLAP_DEFAULT) };
    humantime::parse_duration(text).map_err(|_| {
        Problem::field("overlap", format!("{text:?} isn't a duration; allowed are ones like 0s, 90m, 24h"))
    })
}

/// A JSON body that may be left out.
fn optional<T: serde::de::DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    Ok(axum::Json::from_bytes(body)?.0)
}
