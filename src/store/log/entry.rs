//! An attempt in the delivery log: as stored, as read, and as the API shows it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{EntryId, packed};
use crate::clock::rfc3339;
use crate::delivery::{Attempt, Delivery, DeliveryId, FailureCode};
use crate::event::EventType;
use crate::http::client::USER_AGENT;
use crate::secret::MASK;
use crate::webhook::WebhookId;

/// An attempt as the log stores it, without the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logged<'a> {
    /// The id of the delivery.
    pub delivery_id: DeliveryId,
    /// The type of the event.
    pub event: EventType,
    /// The id of the event.
    #[serde(default)]
    pub event_id: Cow<'a, str>,
    /// The task of the event.
    #[serde(default)]
    pub task_id: Cow<'a, str>,
    /// The topic, partition and offset of the event.
    #[serde(default)]
    pub source: (Cow<'a, str>, i32, i64),
    /// The status of the response. None if there was no response.
    pub status_code: Option<u16>,
    /// The first [`super::RESPONSE_BODY_MAX`] characters of the response body.
    pub response_body: Cow<'a, str>,
    /// Whether the attempt succeeded.
    pub success: bool,
    /// The number of the attempt, from 1. After a replay or a redelivery it starts again at 1.
    pub attempt: u32,
    /// The number of replays and redeliveries of the delivery so far.
    #[serde(default)]
    pub replays: u32,
    /// Why the attempt failed.
    pub error: Option<FailureCode>,
    /// The failure in a sentence. Entries of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<Cow<'a, str>>,
    /// The time from the start of the request to the end of the response body, in milliseconds.
    pub duration_ms: u64,
    /// The time of the next attempt. None if there is none.
    pub next_attempt_at: Option<String>,
    /// The time at which the attempt ended, in RFC 3339.
    pub delivered_at: String,
    /// True if the attempt ended before a request was sent, for example because no connection was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_sent: bool,
    /// The request headers that do not follow from the other fields, such as signatures.
    #[serde(default)]
    pub proofs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The names of the headers that the webhook's owner added. Their values are secrets, so they are not logged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom_headers: Vec<Cow<'a, str>>,
}

impl<'a> Logged<'a> {
    /// The log entry for `attempt` of `delivery`. `next_attempt_at_ms` is the time of the next attempt in Unix
    /// milliseconds, or None if there is none.
    #[must_use]
    pub fn new(delivery: &'a Delivery, attempt: &'a Attempt, next_attempt_at_ms: Option<i64>) -> Self {
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
            next_attempt_at: next_attempt_at_ms.map(rfc3339),
            delivered_at: rfc3339(attempt.ended_at_ms),
            not_sent: !attempt.is_sent,
            proofs: attempt
                .proofs
                .iter()
                .map(|(name, value)| (Cow::Borrowed(*name), String::from_utf8_lossy(value.as_bytes())))
                .collect(),
            custom_headers: attempt.custom_headers.iter().map(|name| Cow::Borrowed(name.as_str())).collect(),
        }
    }

    /// The attempt with its payload, as the log stores them.
    #[must_use]
    pub fn packed(&self, payload: &[u8]) -> Vec<u8> {
        packed::pack(self, payload)
    }

    /// The headers of the request, in the order of `docs/reference.md`, section "Request headers"; none if no request was
    /// sent. `Host` and `Content-Length` are not among them, because the HTTP client adds them.
    #[must_use]
    pub fn request_headers(&self) -> Vec<(String, String)> {
        if self.not_sent {
            return Vec::new();
        }
        let header = |name: &str, value: String| (name.to_owned(), value);
        let mut headers = vec![
            header("content-type", "application/json".to_owned()),
            header("user-agent", USER_AGENT.to_owned()),
            header("x-optio-event", self.event.as_str().to_owned()),
            header("x-optio-delivery", self.delivery_id.to_string()),
            header("x-optio-attempt", self.attempt.to_string()),
        ];
        for (name, value) in &self.proofs {
            if name == "webhook-timestamp" {
                headers.push(header("webhook-id", self.delivery_id.to_string()));
            }
            headers.push(header(name, value.clone().into_owned()));
        }
        headers.extend(self.custom_headers.iter().map(|name| header(name, MASK.to_owned())));
        headers
    }
}

/// An entry of a delivery log, with its id and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// The id of the entry in the log.
    pub id: EntryId,
    /// The webhook whose log has the entry.
    pub webhook_id: WebhookId,
    /// The attempt.
    pub logged: Logged<'a>,
    /// The body of the request.
    pub payload: Cow<'a, str>,
}

impl<'a> LogEntry<'a> {
    /// The entry as the API shows it.
    #[must_use]
    pub fn shown(&'a self) -> LoggedAttempt<'a> {
        let logged = &self.logged;
        LoggedAttempt {
            id: self.id.to_string(),
            delivery_id: logged.delivery_id,
            webhook_id: self.webhook_id,
            event: logged.event,
            event_id: &logged.event_id,
            task_id: &logged.task_id,
            // The payloads of this program are always JSON. Anything else is shown as text.
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

/// One attempt in the delivery log of a webhook.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub struct LoggedAttempt<'a> {
    /// The id of the entry in the log.
    pub id: String,
    /// The id of the delivery, as in `X-Optio-Delivery`.
    pub delivery_id: DeliveryId,
    /// The webhook whose log has the entry.
    pub webhook_id: WebhookId,
    /// The type of the event.
    pub event: EventType,
    /// The id of the event.
    pub event_id: &'a str,
    /// The task of the event. For an operational event, it is the id of the webhook that the event is about.
    pub task_id: &'a str,
    /// The body of the request.
    #[schema(value_type = Object)]
    pub payload: Box<serde_json::value::RawValue>,
    /// The headers of the request; empty if the attempt ended before a request was sent.
    pub request_headers: std::collections::BTreeMap<String, String>,
    /// The status of the response; null if there was no response.
    pub status_code: Option<u16>,
    /// The first 2,000 characters of the response body.
    pub response_body: &'a str,
    /// Whether the attempt succeeded.
    pub success: bool,
    /// The number of the attempt, from 1. After a replay or a redelivery it starts again at 1.
    pub attempt: u32,
    /// The number of replays and redeliveries of the delivery so far.
    pub replays: u32,
    /// Why the attempt failed.
    pub error: Option<FailureCode>,
    /// The step that failed and the reason, in a sentence of at most 300 characters; null if the attempt succeeded.
    pub error_detail: Option<&'a str>,
    /// The time from the start of the request to the end of the response body, in milliseconds.
    pub duration_ms: u64,
    /// The time of the next attempt, in RFC 3339; null if there is none.
    pub next_attempt_at: Option<&'a str>,
    /// The time at which the attempt ended, in RFC 3339.
    pub delivered_at: &'a str,
}
