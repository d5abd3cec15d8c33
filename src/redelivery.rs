//! Sending a delivery again because a person asked: through Kafka like any other, under its own id.

use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{Delivery, Source};
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::record::{self, LastError};
use crate::store::log::NewLogEntry;
use crate::store::recoveries::{Recoveries, Recovery};
use crate::store::webhooks::WebhookStore;
use crate::topics::Names;

/// How long the broker may take; whoever asked waits for it.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Writes redeliveries.
#[derive(Clone)]
pub struct Redeliveries {
    producer: FutureProducer<Logging>,
    store: WebhookStore,
    recoveries: Recoveries,
    topic: String,
    age_max: Duration,
}

impl Redeliveries {
    /// Over a producer of its own.
    ///
    /// # Errors
    /// Where that can't be made.
    pub fn new(config: &Config, store: WebhookStore, recoveries: Recoveries) -> anyhow::Result<Self> {
        let mut client = clients::producer(config);
        client.set("message.timeout.ms", WRITE_MAX.as_millis().to_string()).set("linger.ms", "0");
        let producer = client.create_with_context(Logging)?;
        Ok(Self { producer, store, recoveries, topic: Names::new(config).replays(), age_max: config.delivery.age_max })
    }

    /// Puts the delivery of `entry` into delivery again, attempts begun anew, in place of a retry that waits.
    ///
    /// Written first, announced second: a crash between the two sends a waiting retry as well, the other order would
    /// lose both.
    ///
    /// # Errors
    /// Where Kafka is away: nothing is sent. Where Redis is, it is sent, and a waiting retry perhaps as well.
    pub async fn send(&self, entry: &NewLogEntry<'_>) -> anyhow::Result<()> {
        let now = now_ms();
        let delivery = delivery(entry, now);
        let headers = record::headers(&delivery, Some(now), LastError::default());
        let key = delivery.webhook_id.to_string();
        let record = FutureRecord::<str, [u8]>::to(&self.topic).key(&key).payload(&delivery.body).headers(headers);
        let sent = self.producer.send(record, Timeout::After(WRITE_MAX)).await;
        sent.map_err(|(error, _)| anyhow::Error::new(error).context("Kafka didn't take it: nothing was sent"))?;
        // It is on its way, so this is a success: asked again, it would be doubled.
        if let Err(error) = self.store.replace(delivery.id, now, self.age_max).await {
            tracing::warn!(%error, delivery = %delivery.id, "redelivered, but a retry that waits may be sent as well");
        }
        // The delivery itself is the probe of the worker that gets it; this is for all others.
        if let Err(error) = self.recoveries.put(delivery.webhook_id, Recovery::TryNow).await {
            tracing::warn!(%error, webhook = %delivery.webhook_id, "workers can't be told that the endpoint is worth trying");
        }
        Ok(())
    }
}

fn delivery(entry: &NewLogEntry<'_>, now_ms: i64) -> Delivery {
    let logged = &entry.logged;
    let (topic, partition, offset) = &logged.source;
    let traceparent = logged.proofs.iter().find(|(name, _)| name == "traceparent");
    Delivery {
        id: logged.delivery_id,
        webhook_id: entry.webhook_id,
        event_type: logged.event,
        event_id: logged.event_id.clone().into_owned(),
        task_id: logged.task_id.clone().into_owned(),
        body: entry.payload.as_bytes().to_vec().into(),
        attempts: 0,
        deferrals: 0,
        first_seen_at_ms: now_ms,
        source: Source { topic: (**topic).into(), partition: *partition, offset: *offset },
        replays: logged.replays.saturating_add(1),
        traceparent: traceparent.map(|(_, value)| value.clone().into_owned()),
        by_hand: true,
    }
}
