//! Test delivery: a sample event that is sent to one webhook at once, without Kafka, with its result in the log.

use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::config::{self, Config, DeliverySettings};
use crate::delivery::{Attempt, Delivery, FirstRead};
use crate::event::{Decoded, EventType, Limits, decode, sample};
use crate::http::client::Client;
use crate::payload::Bodies;
use crate::pipeline::send;
use crate::position::{RecordPosition, TimestampMs};
use crate::store::Keys;
use crate::store::connection::Connection;
use crate::store::log::{self, EntryId, LogEntry, Logged};
use crate::store::{recoveries, test_rate};
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

/// Why a test event wasn't sent, or why its result is unknown.
#[derive(Debug, thiserror::Error)]
pub enum Untried {
    /// This process is already sending `delivery.test_in_flight_max` test events.
    #[error("{0} test events are being sent already (delivery.test_in_flight_max); try again in a moment")]
    Busy(usize),
    /// The webhook got `delivery.tests_per_minute` test events within the current minute.
    #[error(
        "the webhook got {max} test events within a minute already (delivery.tests_per_minute); try again in {} s",
        seconds(*wait)
    )]
    TooMany {
        /// The number of test events that are allowed.
        max: u32,
        /// The time after which the next one is allowed.
        wait: Duration,
    },
    /// Redis can't count the test event, and nothing was sent; or it can't write the log, and the event was sent.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

impl Untried {
    /// The whole seconds after which the next test event is allowed. None if that isn't the problem.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Busy(_) => Some(1),
            Self::TooMany { wait, .. } => Some(seconds(*wait)),
            Self::Redis(_) => None,
        }
    }
}

/// Rounds up, so that a client that waits as long is not refused again.
fn seconds(wait: Duration) -> u64 {
    (wait.as_millis() as u64).div_ceil(1_000).max(1)
}

/// Sends test events, within the limits that keep them from flooding a third party.
pub struct Trials {
    client: Client,
    redis: Connection,
    keys: Keys,
    delivery: DeliverySettings,
    log: config::Log,
    sending: Semaphore,
}

impl Trials {
    /// Sends through `client`, and counts and logs in `redis`.
    #[must_use]
    pub fn new(config: &Config, client: Client, redis: Connection) -> Self {
        Self {
            client,
            redis,
            keys: Keys::new(&config.redis.prefix),
            sending: Semaphore::new(config.delivery.test_in_flight_max),
            delivery: config.delivery.clone(),
            log: config.log.clone(),
        }
    }

    /// Sends a sample event of type `event`, and records the attempt in the log of the webhook. A failed attempt is a
    /// result, not an error, and is not retried.
    ///
    /// # Errors
    /// [`Untried`] if a limit is reached, or if Redis fails.
    pub async fn send(&self, webhook: &Webhook, event: EventType) -> Result<Trial, Untried> {
        let _permit = self.sending.try_acquire().map_err(|_| Untried::Busy(self.delivery.test_in_flight_max))?;
        let mut redis = self.redis.clone();
        let max = self.delivery.tests_per_minute;
        if let Some(wait) = test_rate::count(&mut redis, &self.keys, webhook.id, max).await? {
            return Err(Untried::TooMany { max, wait });
        }
        let delivery = sample_delivery(webhook, event);
        let attempt = send::attempt(&self.client, webhook, &delivery, &self.delivery).await;
        let meta = Logged::new(&delivery, &attempt, None).to_json();
        let mut pipe = redis::pipe();
        log::append(&mut pipe, &self.keys, webhook.id, &meta, &delivery.body, &self.log);
        log::expire(&mut pipe, &self.keys, webhook.id, &self.log);
        log::trim(&mut pipe, &self.keys, webhook.id, now_ms(), &self.log);
        if attempt.failure.is_none() {
            // The endpoint works, so all workers close its circuit and earlier failures no longer count.
            recoveries::announce_success(&mut pipe, &self.keys, webhook.id, Uuid::nil());
        }
        let (id,): (String,) = pipe.query_async(&mut redis).await?;
        let id = id.parse().map_err(|_| redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "XADD")))?;
        Ok(Trial { id, delivery, attempt })
    }
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
