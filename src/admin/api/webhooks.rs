//! `/api/webhooks`: subscriptions.

use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::input;
use super::paging::WebhooksQuery;
use crate::admin::actions::{OVERLAP_DEFAULT, Rotation, Saved};
use crate::admin::problem::{Error, Problem};
use crate::admin::state::Shared;
use crate::event::EventType;
use crate::secret::Secret;
use crate::signature::Signing;
use crate::store::audit::Author;
use crate::store::log;
use crate::webhook::draft::Draft;
use crate::webhook::{Webhook, WebhookId, WebhookView};

/// Webhooks.
#[derive(Serialize, ToSchema)]
pub struct Webhooks {
    /// The webhooks, oldest first.
    webhooks: Vec<WebhookView>,
    /// The value of `after` for the next page. Left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<WebhookId>,
    /// The webhooks that this version can't read. Events for them wait. Left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<Unreadable>,
    /// Why this list may be incomplete. Left out if it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// A webhook that another version wrote.
#[derive(Serialize, ToSchema)]
#[schema(as = UnreadableWebhook)]
pub struct Unreadable {
    /// The id of the webhook.
    id: WebhookId,
    /// The part of it that can't be read.
    problem: String,
}

/// One webhook.
#[derive(Serialize, ToSchema)]
#[schema(as = One)]
pub struct WebhookAnswer {
    webhook: WebhookView,
    /// A note that something needs attention: the secret is weak, the host has no address for now, or the store seems to
    /// have lost other webhooks. Only adding and changing a webhook answer with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

impl From<&Webhook> for WebhookAnswer {
    fn from(webhook: &Webhook) -> Self {
        Self { webhook: webhook.shown(), warning: None }
    }
}

/// A webhook whose secret was rotated.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotated {
    webhook: WebhookView,
    /// The new secret, if the request gave none. It is shown here and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    generated_secret: Option<String>,
    /// A note that the secret is weak.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// The result of a test delivery.
#[derive(Serialize, ToSchema)]
pub struct Tested<'a> {
    delivery: log::LoggedAttempt<'a>,
}

/// The event to send.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Test {
    /// The event type; by default the first that the webhook subscribes to.
    event: Option<EventType>,
}

/// The new secret.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// The secret. By default one is generated: 24 random bytes in the form of Standard Webhooks, `whsec_…`, or a key
    /// pair.
    #[schema(value_type = Option<String>)]
    secret: Option<Secret>,
    /// How the new secret signs. By default a generated one signs like the old one.
    signing: Option<Signing>,
    /// The time for which the old secret also signs `webhook-signature`, such as `24h`; `0s` ends its use at once.
    /// 24h by default.
    overlap: Option<String>,
}

/// All webhooks, oldest first, or a page of them.
#[utoipa::path(get,
    operation_id = "listWebhooks", path = "/api/webhooks", tag = "webhooks", params(WebhooksQuery),
    responses((status = 200, body = Webhooks), (status = 400, body = Error), (status = 401, body = Error)))]
pub async fn list(
    State(admin): State<Shared>,
    input::Query(query): input::Query<WebhooksQuery>,
) -> Result<Json<Webhooks>, Problem> {
    let all = admin.store.listing().await?;
    let unreadable = all
        .unsupported
        .into_iter()
        .map(|unsupported| Unreadable { id: unsupported.id, problem: unsupported.problem })
        .collect();
    let (page, next) = query.page(&all.webhooks)?;
    let webhooks = page.iter().map(Webhook::shown).collect();
    Ok(Json(Webhooks { webhooks, next, unreadable, warning: admin.webhooks_warning() }))
}

/// Adds a webhook. It gets every event from now on.
#[utoipa::path(post,
    operation_id = "addWebhook", path = "/api/webhooks", tag = "webhooks", request_body = Draft,
    responses((status = 201, body = WebhookAnswer), (status = 400, body = Error), (status = 413, body = Error)))]
pub async fn add(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    input::Json(draft): input::Json<Draft>,
) -> Result<(StatusCode, Json<WebhookAnswer>), Problem> {
    let Saved { webhook, unresolved, loss } = admin.add(&draft, &who).await?;
    let warning = joined([webhook.secret_warning(), unresolved, loss]);
    Ok((StatusCode::CREATED, Json(WebhookAnswer { warning, ..WebhookAnswer::from(&webhook) })))
}

/// One webhook.
#[utoipa::path(get,
    operation_id = "showWebhook", path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 200, body = WebhookAnswer), (status = 404, body = Error)))]
pub async fn show(State(admin): State<Shared>, Path(id): Path<String>) -> Result<Json<WebhookAnswer>, Problem> {
    Ok(Json(WebhookAnswer::from(&admin.find(&id).await?)))
}

/// Changes a webhook. A field that is left out stays as it is, and null removes its value. A webhook as it was shown
/// may be sent back: fields that can't be changed are accepted if they are unchanged.
#[utoipa::path(patch,
    operation_id = "changeWebhook", path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)), request_body = Draft,
    responses((status = 200, body = WebhookAnswer), (status = 400, body = Error), (status = 404, body = Error)))]
pub async fn change(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    input::Json(fields): input::Json<Map<String, Value>>,
) -> Result<Json<WebhookAnswer>, Problem> {
    let webhook = admin.find(&id).await?;
    let draft = changes(fields, &webhook)?;
    let Saved { webhook, unresolved, loss } = admin.change(&webhook, &draft, &who).await?;
    let weak = webhook.secret_warning().filter(|_| draft.replaces_secret());
    let warning = joined([weak, unresolved, loss]);
    Ok(Json(WebhookAnswer { warning, ..WebhookAnswer::from(&webhook) }))
}

/// Adds a webhook with an id of your choice, or replaces the one that has it: fields that are left out get their defaults.
/// Only the secret stays if it is left out. The same request can be made again.
#[utoipa::path(put,
    operation_id = "putWebhook", path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)), request_body = Draft,
    responses((status = 200, body = WebhookAnswer), (status = 201, body = WebhookAnswer), (status = 400, body = Error)))]
pub async fn put(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    input::Json(draft): input::Json<Draft>,
) -> Result<(StatusCode, Json<WebhookAnswer>), Problem> {
    let (Saved { webhook, unresolved, loss }, is_new) = admin.put(&id, &draft, &who).await?;
    let warning = joined([webhook.secret_warning().filter(|_| draft.replaces_secret()), unresolved, loss]);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(WebhookAnswer { warning, ..WebhookAnswer::from(&webhook) })))
}

/// Removes a webhook and its delivery log. Nothing more is sent to it, not even deliveries that wait.
#[utoipa::path(delete,
    operation_id = "removeWebhook", path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Error)))]
pub async fn remove(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    admin.remove(&id, &who).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a sample event at once. The answer has the result of the attempt, also if it failed.
#[utoipa::path(post,
    operation_id = "testWebhook", path = "/api/webhooks/{id}/test", tag = "webhooks", params(("id" = String, Path)),
    request_body(content = Test, description = "may be left out"),
    responses((status = 200, body = Tested), (status = 400, body = Error), (status = 404, body = Error),
        (status = 429, description = "too many test events; `Retry-After` says when to try again", body = Error)))]
pub async fn test(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    input::Body(body): input::Body,
) -> Result<axum::response::Response, Problem> {
    use axum::response::IntoResponse as _;
    let Test { event } = optional(&body)?;
    let webhook = admin.find(&id).await?;
    let event = event.or(webhook.events.first().copied()).unwrap_or(EventType::TaskCompleted);
    let trial = admin.test(&webhook, event, &who).await?;
    let entry = trial.entry();
    Ok(Json(Tested { delivery: entry.shown() }).into_response())
}

/// Replaces the secret of a webhook. The old one also signs `webhook-signature` until the overlap ends.
#[utoipa::path(post,
    operation_id = "rotateSecret", path = "/api/webhooks/{id}/rotate-secret", tag = "webhooks", params(("id" = String, Path)),
    request_body(content = Rotate, description = "may be left out"),
    responses((status = 200, body = Rotated), (status = 400, body = Error), (status = 404, body = Error)))]
pub async fn rotate(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
    input::Body(body): input::Body,
) -> Result<Json<Rotated>, Problem> {
    let Rotate { secret, signing, overlap } = optional(&body)?;
    let webhook = admin.find(&id).await?;
    let overlap = parse_overlap(overlap.as_deref())?;
    let (webhook, generated) = admin.rotate(&webhook, Rotation { secret, signing, overlap }, &who).await?;
    let generated_secret = generated.map(|secret| secret.expose().to_owned());
    Ok(Json(Rotated { warning: webhook.secret_warning(), webhook: webhook.shown(), generated_secret }))
}

/// Joins warnings, each of which is a sentence.
fn joined(warnings: [Option<String>; 3]) -> Option<String> {
    let warnings: Vec<String> = warnings.into_iter().flatten().collect();
    (!warnings.is_empty()).then(|| warnings.join(" "))
}

/// The fields of a webhook that are shown and can't be changed.
const READ_ONLY: [&str; 6] = ["id", "createdAt", "updatedAt", "disabledReason", "secretOverlapUntil", "publicKey"];

/// The changes that `fields` ask for. Read-only fields are accepted if they are unchanged.
fn changes(mut fields: Map<String, Value>, webhook: &Webhook) -> Result<Draft, Problem> {
    let shown = serde_json::to_value(webhook.shown()).context("a webhook always serializes")?;
    for field in READ_ONLY {
        let current = &shown[field];
        if fields.remove(field).is_some_and(|value| value != *current) {
            return Err(Problem::field(field, format!("can't be changed; leave it out, or send its value {current}")));
        }
    }
    let draft = axum::Json::<Draft>::from_bytes(Value::Object(fields).to_string().as_bytes())?.0;
    if draft.is_empty() {
        let sentence = "nothing would change: give one or more of url, events, secret, signing, headers, filter, description, active, format and \
                        ratePerSecond; the mask of a secret means no change of the secret";
        return Err(Problem::new(StatusCode::BAD_REQUEST, sentence));
    }
    Ok(draft)
}

fn parse_overlap(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(OVERLAP_DEFAULT) };
    humantime::parse_duration(text)
        .map_err(|_| Problem::field("overlap", "isn't a duration; use one such as 0s, 90m or 24h"))
}

/// A JSON body that may be left out.
fn optional<T: serde::de::DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    Ok(axum::Json::from_bytes(body)?.0)
}
