//! Test delivery: a sample event that is sent to one webhook at once, without Kafka, with its result in the log.

use crate::store::connection::Connection;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{Attempt, Delivery, FirstRead};
use crate::event::{Decoded, EventType, Limits, decode, sample};
use crate::http::client::Client;
use crate::payload::Bodies;
use crate::pipeline::send;
use crate::position::{RecordPosition, TimestampMs};
use crate::store::Keys;
use crate::store::log::{self, EntryId, LogEntry, Logged};
use crate::store::recoveries;
use crate::webhook::Webhook;

/// The result of a test delivery.
#[derive(Debug)]
pub struct Trial {
    id: EntryId,
    delivery: Delivery,
    attempt: Attempt,
}

impl Trial {
    /// The entry in the delivery log.
    #[must_use]
    pub fn entry(&self) -> LogEntry<'_> {
        LogEntry {
            id: self.id,
            webhook_id: self.delivery.webhook_id,
            payload: String::from_utf8_lossy(&self.delivery.body),
            logged: Logged::new(&self.delivery, &self.attempt, None),
        }
    }
}

/// Sends a sample event of type `event`, and records the attempt in the log of the webhook. A failed attempt is a
/// result, not an error, and is not retried.
///
/// # Errors
/// If the log cannot be written. The request was sent then.
pub async fn send(
    config: &Config,
    client: &Client,
    mut redis: Connection,
    webhook: &Webhook,
    event: EventType,
) -> anyhow::Result<Trial> {
    let delivery = sample_delivery(webhook, event);
    let attempt = send::attempt(client, webhook, &delivery, &config.delivery).await;
    let meta = Logged::new(&delivery, &attempt, None).to_json();
    let keys = Keys::new(&config.redis.prefix);
    let mut pipe = redis::pipe();
    log::append(&mut pipe, &keys, webhook.id, &meta, &delivery.body, &config.log);
    log::expire(&mut pipe, &keys, webhook.id, &config.log);
    log::trim(&mut pipe, &keys, webhook.id, now_ms(), &config.log);
    if attempt.failure.is_none() {
        // The endpoint works, so all workers close its circuit and earlier failures no longer count.
        recoveries::announce_success(&mut pipe, &keys, webhook.id, Uuid::nil());
    }
    let (id,): (String,) = pipe.query_async(&mut redis).await?;
    Ok(Trial { id: id.parse()?, delivery, attempt })
}

fn sample_delivery(webhook: &Webhook, event_type: EventType) -> Delivery {
    let now = now_ms();
    let value = sample::transition(event_type, Uuid::now_v7(), "A test delivery from Optio", now).to_string();
    let at = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
    let Ok(Decoded::Event(event)) = decode(Some(value.as_bytes()), &at, TimestampMs(now), Limits::NONE) else {
        unreachable!("samples are read by a test")
    };
    let body = Bodies::default().of(&event, webhook.format, &webhook.url);
    let source = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
    let read = FirstRead { source, first_seen_at_ms: now, replays: 0, traceparent: None };
    Delivery::first(&event, webhook.id, body, read)
}
