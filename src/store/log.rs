//! The delivery log: each attempt in its webhook's stream, bounded by count and age.

use std::borrow::Cow;
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::streams::{StreamId, StreamRangeReply};
use serde::{Deserialize, Serialize};

use super::Keys;
use crate::config;
use crate::delivery::{Attempt, Delivery, DeliveryId, FailureCode, Fate, millis};
use crate::event::{EventType, rfc3339};
use crate::http::client::USER_AGENT;
use crate::webhook::WebhookId;

pub use entry_id::EntryId;

mod entry_id;

/// Characters of an answer's body that the log keeps (contract section 7).
pub const RESPONSE_BODY_MAX: usize = 2_000;
/// How often a webhook's log is cut by age; it lives that much longer.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// Entries that are read at once while a filter is applied.
const CHUNK: usize = 200;

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
    /// The answer's first [`RESPONSE_BODY_MAX`] characters.
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
            attempt: delivery.attempts + 1,
            replays: delivery.replays,
            error: attempt.failure,
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
    /// From the request's start to the body's end.
    pub duration_ms: u64,
    /// When it is tried again; null where it isn't.
    pub next_attempt_at: Option<&'a str>,
    /// When the attempt ended.
    pub delivered_at: &'a str,
}

/// Adds an entry; the answer is its id.
pub fn append(
    pipe: &mut redis::Pipeline,
    keys: &Keys,
    webhook: WebhookId,
    meta: &[u8],
    payload: &[u8],
    log: &config::Log,
) {
    pipe.cmd("XADD").arg(keys.log(webhook)).arg("MAXLEN").arg("~").arg(log.entries_max);
    pipe.arg("*").arg("meta").arg(meta).arg("payload").arg(payload);
}

/// Lets the log go with the last of it. With each batch: the webhook may have been deleted meanwhile, its log with it,
/// and what comes after that must not stay for ever. No answer.
pub fn expire(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, log: &config::Log) {
    pipe.cmd("PEXPIRE").arg(keys.log(webhook)).arg(millis(log.age_max + TRIM_INTERVAL)).ignore();
}

/// Cuts what is too old. No answer.
pub fn trim(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, now_ms: i64, log: &config::Log) {
    let oldest = now_ms - millis(log.age_max);
    pipe.cmd("XTRIM").arg(keys.log(webhook)).arg("MINID").arg("~").arg(oldest.max(0)).ignore();
}

/// Which entries are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that succeeded, or that failed.
    pub success: Option<bool>,
    /// Only those that told of this.
    pub event: Option<EventType>,
}

impl Filter {
    /// Whether an attempt is meant.
    #[must_use]
    pub fn takes(self, logged: &Logged<'_>) -> bool {
        self.success.is_none_or(|success| success == logged.success)
            && self.event.is_none_or(|event| event == logged.event)
    }
}

/// Entries, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Those that fit.
    pub entries: Vec<Entry<'static>>,
    /// The next page is before this one; None at the end.
    pub next: Option<EntryId>,
}

/// Reads logs.
#[derive(Clone)]
pub struct DeliveryLog {
    connection: ConnectionManager,
    keys: Keys,
}

impl DeliveryLog {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: ConnectionManager, keys: Keys) -> Self {
        Self { connection, keys }
    }

    /// Up to `limit` entries that `filter` means, newest first, older than `before`. Reads no more than the log,
    /// which is bounded.
    ///
    /// # Errors
    /// Redis's.
    pub async fn page(
        &self,
        webhook: WebhookId,
        filter: Filter,
        before: Option<EntryId>,
        limit: usize,
    ) -> redis::RedisResult<Page> {
        let mut page = Page::default();
        let mut end = before;
        if before == Some(EntryId::default()) {
            // Nothing is older, and Redis has no way to say so.
            return Ok(page);
        }
        loop {
            let newest = end.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
            let chunk = if filter == Filter::default() { limit + 1 } else { CHUNK };
            let reply: StreamRangeReply = redis::cmd("XREVRANGE")
                .arg(self.keys.log(webhook))
                .arg(newest)
                .arg("-")
                .arg("COUNT")
                .arg(chunk)
                .query_async(&mut self.connection.clone())
                .await?;
            let is_last = reply.ids.len() < chunk;
            for stream_id in reply.ids {
                // Also past what can't be read: another version may have written it.
                end = stream_id.id.parse().ok().or(end);
                let Some(entry) = read(webhook, &stream_id) else { continue };
                if !filter.takes(&entry.logged) {
                    continue;
                }
                if page.entries.len() == limit {
                    page.next = page.entries.last().map(|last| last.id);
                    return Ok(page);
                }
                page.entries.push(entry);
            }
            if is_last || end.is_none() {
                return Ok(page);
            }
        }
    }

    /// Up to `limit` entries younger than `after`, oldest first, and the last that was looked at.
    ///
    /// # Errors
    /// Redis's.
    pub async fn since(
        &self,
        webhook: WebhookId,
        after: EntryId,
        limit: usize,
    ) -> redis::RedisResult<(Vec<Entry<'static>>, EntryId)> {
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(self.keys.log(webhook))
            .arg(format!("({after}"))
            .arg("+")
            .arg("COUNT")
            .arg(limit)
            .query_async(&mut self.connection.clone())
            .await?;
        let last = reply.ids.last().and_then(|stream_id| stream_id.id.parse().ok()).unwrap_or(after);
        Ok((reply.ids.iter().filter_map(|stream_id| read(webhook, stream_id)).collect(), last))
    }

    /// The entry with that id.
    ///
    /// # Errors
    /// Redis's.
    pub async fn entry(&self, webhook: WebhookId, id: EntryId) -> redis::RedisResult<Option<Entry<'static>>> {
        let id = id.to_string();
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(self.keys.log(webhook))
            .arg(&id)
            .arg(&id)
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(reply.ids.first().and_then(|stream_id| read(webhook, stream_id)))
    }

    /// The newest attempt of a delivery.
    ///
    /// # Errors
    /// Redis's.
    pub async fn newest_of(
        &self,
        webhook: WebhookId,
        delivery: DeliveryId,
    ) -> redis::RedisResult<Option<Entry<'static>>> {
        let mut before = None;
        loop {
            let page = self.page(webhook, Filter::default(), before, CHUNK).await?;
            if let Some(found) = page.entries.into_iter().find(|entry| entry.logged.delivery_id == delivery) {
                return Ok(Some(found));
            }
            let Some(next) = page.next else { return Ok(None) };
            before = Some(next);
        }
    }
}

fn read(webhook_id: WebhookId, stream_id: &StreamId) -> Option<Entry<'static>> {
    let logged: Logged<'static> = serde_json::from_slice(&stream_id.get::<Vec<u8>>("meta")?)
        .inspect_err(|error| tracing::debug!(%error, webhook = %webhook_id, "an entry of the log can't be read"))
        .ok()?;
    let payload = String::from_utf8_lossy(&stream_id.get::<Vec<u8>>("payload")?).into_owned();
    Some(Entry { id: stream_id.id.parse().ok()?, webhook_id, logged, payload: payload.into() })
}
