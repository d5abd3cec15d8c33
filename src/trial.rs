//! A test delivery: a sample event to one webhook, sent at once and past Kafka, with its result in the log.

use crate::store::connection::Connection;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{Attempt, Delivery, Fate, FirstRead, Source};
use crate::event::{Decoded, EventType, Limits, Position, decode, sample};
use crate::http::client::Client;
use crate::payload::Bodies;
use crate::pipeline::send;
use crate::store::Keys;
use crate::store::log::{self, EntryId, Logged, NewLogEntry};
use crate::store::recoveries;
use crate::webhook::Webhook;

/// What a test delivery came to.
#[derive(Debug)]
pub struct Trial {
    id: EntryId,
    delivery: Delivery,
    attempt: Attempt,
}

impl Trial {
    /// As the log has it.
    #[must_use]
    pub fn entry(&self) -> NewLogEntry<'_> {
        NewLogEntry {
            id: self.id,
            webhook_id: self.delivery.webhook_id,
            payload: String::from_utf8_lossy(&self.delivery.body),
            logged: Logged::new(&self.delivery, &self.attempt, Fate::Delivered),
        }
    }
}

/// Sends a sample of `event`. A failure is a result, not an error; it isn't tried again.
///
/// # Errors
/// Where the log can't be written.
pub async fn send(
    config: &Config,
    client: &Client,
    mut redis: Connection,
    webhook: &Webhook,
    event: EventType,
) -> anyhow::Result<Trial> {
    let delivery = sample_delivery(webhook, event);
    let attempt = send::attempt(client, webhook, &delivery, &config.delivery).await;
    let meta = Logged::new(&delivery, &attempt, Fate::Delivered).to_json();
    let keys = Keys::new(&config.redis.prefix);
    let mut pipe = redis::pipe();
    log::append(&mut pipe, &keys, webhook.id, &meta, &delivery.body, &config.log);
    log::expire(&mut pipe, &keys, webhook.id, &config.log);
    log::trim(&mut pipe, &keys, webhook.id, now_ms(), &config.log);
    if attempt.failure.is_none() {
        // The endpoint works: no worker waits for its circuit any longer, nor counts what failed before.
        recoveries::announce_success(&mut pipe, &keys, webhook.id, Uuid::nil());
    }
    let (id,): (String,) = pipe.query_async(&mut redis).await?;
    Ok(Trial { id: id.parse()?, delivery, attempt })
}

fn sample_delivery(webhook: &Webhook, event_type: EventType) -> Delivery {
    let now = now_ms();
    let value = sample::transition(event_type, Uuid::now_v7(), "A test delivery from Optio", now).to_string();
    let at = Position { topic: "", partition: 0, offset: 0, timestamp_ms: now };
    let Ok(Decoded::Event(event)) = decode(Some(value.as_bytes()), at, Limits::NONE) else {
        unreachable!("samples are read by a test")
    };
    let body = Bodies::default().of(&event, webhook.format, &webhook.url);
    let source = Source { topic: "".into(), partition: 0, offset: 0 };
    let read = FirstRead { source, first_seen_at_ms: now, replays: 0, traceparent: None };
    Delivery::first(&event, webhook.id, body, read)
}
