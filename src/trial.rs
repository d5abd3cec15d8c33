//! Test delivery: a sample event that is sent to one webhook at once, without Kafka, with its result in the log.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::clock::{self, now_ms};
use crate::config::{self, Config, DeliverySettings};
use crate::delivery::{Attempt, Delivery, FirstRead};
use crate::event::{Decoded, Event, EventType, Limits, decode, sample};
use crate::http::client::Client;
use crate::operational;
use crate::payload::Bodies;
use crate::pipeline::send;
use crate::position::{RecordPosition, TimestampMs};
use crate::store::Keys;
use crate::store::connection::Connection;
use crate::store::log::{self, EntryId, LogEntry, Logged};
use crate::store::recoveries;
use crate::store::test_rate::{self, Reached};
use crate::webhook::{Webhook, WebhookId};

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
    /// A test event to the same webhook is being sent.
    #[error("A test event to this webhook is being sent already. Try again when its result is there.")]
    Sending,
    /// This process is sending as many test events as it may.
    #[error("The limit of test events at the same time is reached ({0}, delivery.test_in_flight_max). Try again soon.")]
    Busy(usize),
    /// The webhook or its host got as many test events in the current minute as it may.
    #[error("The limit of test events in a minute to {to} is reached ({max}, {setting}). Try again in {wait_s} s.")]
    TooMany {
        /// The webhook or the host.
        to: String,
        /// The number of test events that are allowed.
        max: u32,
        /// The setting of that number.
        setting: &'static str,
        /// The time after which the next one is allowed, in seconds.
        wait_s: u64,
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
            Self::Sending | Self::Busy(_) => Some(1),
            Self::TooMany { wait_s, .. } => Some(*wait_s),
            Self::Redis(_) => None,
        }
    }
}

/// Sends test events, within the limits that keep them from flooding a third party.
pub struct Trials {
    client: Client,
    redis: Connection,
    keys: Keys,
    delivery: DeliverySettings,
    log: config::Log,
    public_url: String,
    admin_url: String,
    sending: Mutex<HashSet<WebhookId>>,
}

impl Trials {
    /// Sends through `client`, and counts and logs in `redis`.
    #[must_use]
    pub fn new(config: &Config, client: Client, redis: Connection) -> Self {
        Self {
            client,
            redis,
            keys: Keys::new(&config.redis.prefix),
            delivery: config.delivery.clone(),
            log: config.log.clone(),
            public_url: config.webhooks.public_url.clone(),
            admin_url: config.admin.public_url.clone(),
            sending: Mutex::default(),
        }
    }

    /// Sends a sample event of type `event`, and records the attempt in the log of the webhook. A failed attempt is a
    /// result, not an error, and is not retried.
    ///
    /// Dropping the future may leave a request without an entry in the log.
    ///
    /// # Errors
    /// [`Untried`] if a limit is reached, or if Redis fails.
    pub async fn send(&self, webhook: &Webhook, event: EventType) -> Result<Trial, Untried> {
        let _sending = self.begin(webhook.id)?;
        let mut redis = self.redis.clone();
        self.count(&mut redis, webhook).await?;
        let delivery = self.sample_delivery(webhook, event);
        let attempt = send::attempt(&self.client, webhook, &delivery, None, &self.delivery).await;
        let packed = Logged::new(&delivery, &attempt, None).packed(&delivery.body);
        let mut pipe = redis::pipe();
        log::append(&mut pipe, &self.keys, webhook.id, &packed, &self.log);
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

    /// Takes a place among the test events in flight. One webhook has one place, so that a slow endpoint can't take the
    /// places of all others.
    fn begin(&self, webhook: WebhookId) -> Result<Sending<'_>, Untried> {
        let mut sending = self.sending();
        let max = self.delivery.test_in_flight_max;
        match sending.len() >= max {
            _ if sending.contains(&webhook) => Err(Untried::Sending),
            true => Err(Untried::Busy(max)),
            false => {
                sending.insert(webhook);
                Ok(Sending { trials: self, webhook })
            }
        }
    }

    async fn count(&self, redis: &mut Connection, webhook: &Webhook) -> Result<(), Untried> {
        let (to_webhook, to_host) = (self.delivery.tests_per_minute, self.delivery.tests_per_minute_to_host);
        let reached = test_rate::count(redis, &self.keys, webhook, test_rate::Limits { to_webhook, to_host }).await?;
        let (to, max, setting, wait) = match reached {
            None => return Ok(()),
            Some(Reached::OfWebhook(wait)) => {
                ("this webhook".to_owned(), to_webhook, "delivery.tests_per_minute", wait)
            }
            Some(Reached::OfHost(wait)) => {
                let host = webhook.url.host_str().unwrap_or_default().to_owned();
                (host, to_host, "delivery.tests_per_minute_to_host", wait)
            }
        };
        Err(Untried::TooMany { to, max, setting, wait_s: clock::whole_seconds(wait) })
    }

    fn sample_delivery(&self, webhook: &Webhook, event_type: EventType) -> Delivery {
        let now = now_ms();
        let event = match event_type.is_operational() {
            true => operational::sample(event_type, webhook, &self.admin_url, now),
            false => sample_event(event_type, now),
        };
        let body = Bodies::new(&self.public_url).of(&event, webhook.format, &webhook.url);
        let source = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
        let read = FirstRead { source, first_seen_at_ms: now, replays: 0, traceparent: None };
        Delivery::first(&event, webhook.id, body, read)
    }

    fn sending(&self) -> MutexGuard<'_, HashSet<WebhookId>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a webhook's test event among those in flight. Dropping it frees the place.
struct Sending<'a> {
    trials: &'a Trials,
    webhook: WebhookId,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.trials.sending().remove(&self.webhook);
    }
}

fn sample_event(event_type: EventType, now: i64) -> Event {
    let value = sample::transition(event_type, Uuid::now_v7(), "A test delivery from Optio", now).to_string();
    let at = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
    let Ok(Decoded::Event(event)) = decode(Some(value.as_bytes()), &at, TimestampMs(now), Limits::NONE) else {
        unreachable!("samples are read by a test")
    };
    event
}
