//! One attempt in the log: as it is kept, as it is read, as the API shows it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::EntryId;
use crate::delivery::{Attempt, Delivery, DeliveryId, FailureCode, Fate};
use crate::event::{EventType, rfc3339};
use crate::http::client::USER_AGENT;
use crate::webhook::WebhookId;

/// One attempt as the log holds it; the payload stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logged<'a> {
    /// The delivery's identity.
    pub delivery_id: DeliveryId,
    /// What it told of.
    pub event: EventType,
    /// The event's identity.
    #[serde(default)]
    pub event_id: Cow<'a, str>,
    /// Whose transition it was.
    #[serde(default)]
    pub task_id: Cow<'a, str>,
    /// Where the event stood: topic, partition, offset.
    #[serde(default)]
    pub source: (Cow<'a, str>, i32, i64),
    /// The answer's status; None where none came.
    pub status_code: Option<u16>,
    /// The answer's first [`super::RESPONSE_BODY_MAX`] characters.
    pub response_body: Cow<'a, str>,
    /// Whether the endpoint has it.
    pub success: bool,
    /// From 1; a replay begins anew.
    pub attempt: u32,
    /// How often the delivery was replayed.
    #[serde(default)]
    pub replays: u32,
    /// Why it failed.
    pub error: Option<FailureCode>,
    /// The same in a sentence; entries of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<Cow<'a, str>>,
    /// From the request's start to the body's end.
    pub duration_ms: u64,
    /// When it is tried again; None where it isn't.
    pub next_attempt_at: Option<String>,
    /// When the attempt ended.
    pub delivered_at: String,
    /// Headers of the request that don't follow from the rest.
    #[serde(default)]
    pub proofs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Logged<'a> {
    /// What `attempt` came to.
    #[must_use]
    pub fn new(delivery: &'a Delivery, attempt: &'a Attempt, fate: Fate) -> Self {
        let source = &delivery.source;
        Self {
            delivery_id: delivery.id,
            event: delivery.event_type,
            event_id: Cow::Borrowed(&delivery.event_id),
            task_id: Cow::Borrowed(&delivery.task_id),
            source: (Cow::Borrowed(&source.topic), source.partition, source.offset),
            status_code: attempt.status,
            response_body: Cow::Borrowed(&attempt.response_body),
            success: attempt.failure.is_none(),
            attempt: delivery.attempts.saturating_add(1),
            replays: delivery.replays,
            error: attempt.failure,
            error_detail: attempt.detail.as_deref().map(Cow::Borrowed),
            duration_ms: attempt.duration.as_millis() as u64,
            next_attempt_at: match fate {
                Fate::Retry { due_at_ms, .. } => Some(rfc3339(due_at_ms)),
                Fate::Delivered | Fate::Dead(_) | Fate::Dropped => None,
            },
            delivered_at: rfc3339(attempt.ended_at_ms),
            proofs: attempt
                .proofs
                .iter()
                .map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(&**value)))
                .collect(),
        }
    }

    /// The entry's `meta` field.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialize")
    }

    /// The request's headers, in the order of contract section 3. `Host` and `Content-Length` are the client's.
    #[must_use]
    pub fn request_headers(&self) -> Vec<(String, String)> {
        let own = |name: &str, value: String| (name.to_owned(), value);
        let mut headers = vec![
            own("content-type", "application/json".to_owned()),
            own("user-agent", USER_AGENT.to_owned()),
            own("x-optio-event", self.event.as_str().to_owned()),
            own("x-optio-delivery", self.delivery_id.to_string()),
            own("x-optio-attempt", self.attempt.to_string()),
        ];
        for (name, value) in &self.proofs {
            if name == "webhook-timestamp" {
                headers.push(own("webhook-id", self.delivery_id.to_string()));
            }
            headers.push(own(name, value.clone().into_owned()));
        }
        headers
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place in the log.
    pub id: EntryId,
    /// Whose log.
    pub webhook_id: WebhookId,
    /// The attempt.
    pub logged: Logged<'a>,
    /// The request's body.
    pub payload: Cow<'a, str>,
}

impl<'a> Entry<'a> {
    /// The API's shape.
    #[must_use]
    pub fn shown(&'a self) -> Shown<'a> {
        let logged = &self.logged;
        Shown {
            id: self.id.to_string(),
            delivery_id: logged.delivery_id,
            webhook_id: self.webhook_id,
            event: logged.event,
            // A payload of ours always is JSON; anything else is shown as text.
            payload: serde_json::value::RawValue::from_string(self.payload.clone().into_owned())
                .or_else(|_| serde_json::value::to_raw_value(&self.payload))
                .unwrap_or_default(),
            request_headers: logged.request_headers().into_iter().collect(),
            status_code: logged.status_code,
            response_body: &logged.response_body,
            success: logged.success,
            attempt: logged.attempt,
            replays: logged.replays,
            error: logged.error,
            error_detail: logged.error_detail.as_deref(),
            duration_ms: logged.duration_ms,
            next_attempt_at: logged.next_attempt_at.as_deref(),
            delivered_at: &logged.delivered_at,
        }
    }
}

/// Contract section 7's `Delivery`: one attempt.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub struct Shown<'a> {
    /// Its place in the log.
    pub id: String,
    /// The delivery's identity, as in `X-Optio-Delivery`.
    pub delivery_id: DeliveryId,
    /// Whose log.
    pub webhook_id: WebhookId,
    /// What it told of.
    pub event: EventType,
    /// The request's body.
    #[schema(value_type = Object)]
    pub payload: Box<serde_json::value::RawValue>,
    /// The request's headers.
    pub request_headers: std::collections::BTreeMap<String, String>,
    /// The answer's status; null where none came.
    pub status_code: Option<u16>,
    /// The answer's first 2,000 characters.
    pub response_body: &'a str,
    /// Whether the endpoint has it.
    pub success: bool,
    /// From 1; a replay begins anew.
    pub attempt: u32,
    /// How often the delivery was replayed.
    pub replays: u32,
    /// Why it failed.
    pub error: Option<FailureCode>,
    /// At which step it failed and why, in a sentence of at most 300 characters; null where it didn't.
    pub error_detail: Option<&'a str>,
    /// From the request's start to the body's end.
    pub duration_ms: u64,
    /// When it is tried again; null where it isn't.
    pub next_attempt_at: Option<&'a str>,
    /// When the attempt ended.
    pub delivered_at: &'a str,
}
