//! Tells the owners of webhooks about disabled and failing webhooks and about dead letters (`operational.rs`).
//!
//! Every worker runs this task, and the one that holds the lease tells. While Redis or Kafka is away, nothing is told;
//! it is told later, because the state that it follows from is still there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::FutureRecord;
use tokio::task::{JoinError, JoinSet};

use crate::clock::now_ms;
use crate::conditions::{Conditions, Severity};
use crate::config::Config;
use crate::delivery::{Delivery, FirstRead};
use crate::kafka::clients;
use crate::kafka::occasional::OccasionalProducer;
use crate::operational::telling::{Finding, Rules, Seen, Told, decide, needs_success};
use crate::operational::{self};
use crate::payload::Bodies;
use crate::position::RecordPosition;
use crate::record::{self, LastError};
use crate::store::connection::Connection;
use crate::store::lease::{Lease, LeaseAnswer};
use crate::store::log::{DeliveryLog, Filter};
use crate::store::notices::{Notices, State};
use crate::store::reading::Version;
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, success};
use crate::topics::Names;
use crate::webhook::{Webhook, WebhookId};

/// The time between two looks at the state.
const INTERVAL: Duration = Duration::from_secs(2);
/// How many records may wait for their acknowledgement at once.
const WRITES_AT_ONCE: usize = 500;
/// How long the broker may take to acknowledge a record.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// The parts of the notifier.
pub struct Notifier {
    config: Arc<Config>,
    store: WebhookStore,
    notices: Notices,
    log: DeliveryLog,
    lease: Lease,
    connection: Connection,
    keys: Keys,
    producer: OccasionalProducer,
    topic: String,
    /// The version of the store at which the webhooks were read, those that this version can read, and the names of all.
    webhooks: Option<(u64, HashMap<WebhookId, Webhook>, HashSet<String>)>,
}

impl Notifier {
    /// Creates a notifier with a producer of its own. `who` describes this process.
    ///
    /// # Errors
    /// If a sealing key can't be read.
    pub fn new(config: &Arc<Config>, redis: &Connection, who: &str) -> anyhow::Result<Self> {
        let keys = Keys::new(&config.redis.prefix);
        let mut client = clients::producer(config);
        client.set("message.timeout.ms", WRITE_MAX.as_millis().to_string());
        Ok(Self {
            store: WebhookStore::open(config, redis.clone())?,
            notices: Notices::new(redis.clone(), keys.clone()),
            log: DeliveryLog::new(redis.clone(), keys.clone()),
            lease: Lease::of_notices(redis.clone(), &keys, who),
            connection: redis.clone(),
            keys,
            producer: OccasionalProducer::new(client),
            topic: Names::new(config).replays(),
            webhooks: None,
            config: config.clone(),
        })
    }

    /// Tells what there is to tell, until it is cancelled. After a cancellation another worker goes on.
    pub async fn run(mut self, conditions: Conditions) {
        let mut outage = conditions.outage("operational events", Severity::Warning);
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.look().await {
                Ok(()) => outage.over(),
                Err(error) => outage.failed(format_args!("owners of webhooks are told later: {error:#}")),
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        if self.lease.ask().await? != LeaseAnswer::Ours {
            return Ok(());
        }
        self.read_webhooks().await?;
        let now = now_ms();
        let state = self.notices.state(now).await?;
        let Some((_, webhooks, names)) = &self.webhooks else { return Ok(()) };
        let rules =
            Rules { failing_after: self.config.webhooks.failing_after, interval: self.config.webhooks.notice_interval };
        let nothing_told = Told::default();
        for webhook in webhooks.values() {
            let told = state.told.get(&webhook.id).unwrap_or(&nothing_told);
            let mut seen = seen(webhook, &state);
            if needs_success(told, &seen) {
                seen.succeeded_at_ms = self.succeeded_at_ms(webhook.id).await?;
            }
            let (found, next) = decide(told, &seen, rules, now);
            // Telling may take longer than the lease, and then another worker tells the rest.
            if !found.is_empty() && !self.lease.renew().await? {
                return Ok(());
            }
            for finding in &found {
                self.tell(finding, &seen, webhooks, now).await?;
            }
            // What another worker has told meanwhile must not be taken twice. Telling again does no harm.
            if next != *told && !found.is_empty() && !self.lease.renew().await? {
                return Ok(());
            }
            if next != *told {
                let died = next.died.filter(|_| next.exhausted_at_ms != told.exhausted_at_ms);
                self.notices.remember(webhook.id, &next, died, now).await?;
            }
        }
        // Webhooks that only newer versions can read are there as well. If there are none at all, they may be lost.
        let is_gone = |id: &&WebhookId| !names.is_empty() && !names.contains(&id.to_string());
        let gone: Vec<WebhookId> = state.told.keys().chain(state.died.keys()).filter(is_gone).copied().collect();
        if !gone.is_empty() {
            self.notices.forget(&gone).await?;
        }
        state.unreadable.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Reads the webhooks if they have changed. Webhooks of a newer version are left to newer workers.
    async fn read_webhooks(&mut self) -> anyhow::Result<()> {
        let Version::Number(version) = self.store.peek().await?.version else { return Ok(()) };
        if self.webhooks.as_ref().is_none_or(|(known, ..)| *known != version) {
            let (_, listing) = self.store.read().await?;
            let webhooks = listing.webhooks.into_iter().map(|webhook| (webhook.id, webhook)).collect();
            self.webhooks = Some((version, webhooks, listing.names));
        }
        Ok(())
    }

    async fn succeeded_at_ms(&self, webhook: WebhookId) -> anyhow::Result<Option<i64>> {
        let succeeded = Filter { success: Some(true), ..Filter::default() };
        let newest = self.log.page(webhook, succeeded, None, 1).await?.entries.into_iter().next();
        Ok(newest.map(|entry| entry.id.at_ms()))
    }

    /// Writes a delivery for each webhook that subscribes to the event. A webhook is never told about itself.
    async fn tell(
        &self,
        finding: &Finding,
        seen: &Seen<'_>,
        webhooks: &HashMap<WebhookId, Webhook>,
        now_ms: i64,
    ) -> anyhow::Result<()> {
        let subject = seen.webhook;
        tracing::warn!(webhook = %subject.id, event = finding.event.as_str(), reason = finding.reason, "operational event");
        let affected = match seen.died {
            Some(died) if finding.since_ms == died.since_ms => died.count,
            _ => self.failed_attempts(subject.id, finding.since_ms, now_ms).await?,
        };
        let event = operational::event(finding, subject, affected, &self.config.admin.public_url, now_ms);
        let mut bodies = Bodies::new(&self.config.webhooks.public_url);
        let is_told = |one: &&Webhook| one.active && one.id != subject.id && one.events.contains(&finding.event);
        let mut writes = JoinSet::new();
        for recipient in webhooks.values().filter(is_told) {
            let source = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
            let read = FirstRead { source, first_seen_at_ms: now_ms, replays: 0, traceparent: None };
            let body = bodies.of(&event, recipient.format, &recipient.url);
            let delivery = Delivery::first(&event, recipient.id, body, read);
            // Many may be told, so their records are acknowledged together.
            writes.spawn(write(self.producer.clone(), self.topic.clone(), delivery, now_ms));
            if writes.len() >= WRITES_AT_ONCE {
                written(writes.join_next().await)?;
            }
        }
        while !writes.is_empty() {
            written(writes.join_next().await)?;
        }
        Ok(())
    }

    /// The number of failed attempts since the hour of `since_ms`, but of at most a week.
    async fn failed_attempts(&self, webhook: WebhookId, since_ms: i64, now_ms: i64) -> anyhow::Result<u64> {
        let hours =
            usize::try_from(now_ms.saturating_sub(since_ms).max(0) / success::HOUR_MS + 1).unwrap_or(usize::MAX);
        let connection = &mut self.connection.clone();
        let counts = success::by_hour(connection, &self.keys, &[webhook], hours.min(success::WEEK), now_ms).await?;
        Ok(counts.into_iter().flatten().map(|hour| hour.failed).sum())
    }
}

/// Writes a delivery, due now.
async fn write(producer: OccasionalProducer, topic: String, delivery: Delivery, now_ms: i64) -> Result<(), KafkaError> {
    let headers = record::headers(&delivery, Some(now_ms), LastError::default());
    let key = delivery.webhook_id.to_string();
    let record = FutureRecord::<str, [u8]>::to(&topic).key(&key).payload(&delivery.body).headers(headers);
    producer.send(record).await
}

fn written(ended: Option<Result<Result<(), KafkaError>, JoinError>>) -> anyhow::Result<()> {
    match ended {
        Some(written) => Ok(written??),
        None => Ok(()),
    }
}

fn seen<'a>(webhook: &'a Webhook, state: &State) -> Seen<'a> {
    let changed = humantime::parse_rfc3339(&webhook.updated_at).ok();
    let changed = changed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    Seen {
        webhook,
        changed_at_ms: changed.map_or(0, |at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX)),
        failing_since_ms: state.failing.get(&webhook.id).copied(),
        backs_off: state.backing_off.contains(&webhook.id),
        died: state.died.get(&webhook.id).copied(),
        succeeded_at_ms: None,
    }
}
