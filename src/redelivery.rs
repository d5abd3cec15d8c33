//! Redelivery: one delivery sent again because a person asked. It goes through Kafka and keeps its delivery id.

use std::time::Duration;

use rdkafka::producer::FutureRecord;
use rdkafka::types::RDKafkaErrorCode;

use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::kafka::clients;
use crate::kafka::occasional::OccasionalProducer;
use crate::position::RecordPosition;
use crate::record::{self, LastError};
use crate::store::log::LogEntry;
use crate::store::recoveries::{Recoveries, Recovery};
use crate::store::webhooks::WebhookStore;
use crate::topics::Names;

/// How long the broker may take to acknowledge the record. The person who asked waits for it.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// The writer of redeliveries.
#[derive(Clone)]
pub struct Redeliveries {
    producer: OccasionalProducer,
    store: WebhookStore,
    recoveries: Recoveries,
    topic: String,
    age_max: Duration,
}

impl Redeliveries {
    /// Creates a writer with its own producer.
    #[must_use]
    pub fn new(config: &Config, store: WebhookStore, recoveries: Recoveries) -> Self {
        let mut client = clients::producer(config);
        client.set("message.timeout.ms", WRITE_MAX.as_millis().to_string()).set("linger.ms", "0");
        let producer = OccasionalProducer::new(client);
        Self { producer, store, recoveries, topic: Names::new(config).replays(), age_max: config.delivery.age_max }
    }

    /// Sends the delivery of `entry` again, with attempts starting again. It replaces a retry that waits.
    ///
    /// The record is written to Kafka first and announced in Redis second. After a crash between the two, a waiting
    /// retry is sent as well. In the other order, a crash would lose both the retry and the redelivery.
    ///
    /// # Errors
    /// If Kafka refuses the record, or does not acknowledge it in time. In the second case it may still have been written,
    /// but a retry that waits is not replaced, because it may be all that is left of the delivery. An error of Redis is only
    /// logged: the redelivery is sent, but a waiting retry may be sent as well.
    pub async fn send(&self, entry: &LogEntry<'_>) -> anyhow::Result<()> {
        let now = now_ms();
        let delivery = delivery(entry, now);
        let headers = record::headers(&delivery, Some(now), LastError::default());
        let key = delivery.webhook_id.to_string();
        let record = FutureRecord::<str, [u8]>::to(&self.topic).key(&key).payload(&delivery.body).headers(headers);
        self.producer.send(record).await.map_err(|error| {
            let may_be_written = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut);
            let sentence = if may_be_written {
                "Kafka didn't acknowledge the redelivery in time, so it may be sent or not; look at the delivery log before you repeat it"
            } else {
                "Kafka didn't accept the redelivery; nothing was sent"
            };
            anyhow::Error::new(error).context(sentence)
        })?;
        // The record is written, so errors from here on must not fail the call: a second request would send it twice.
        if let Err(error) = self.store.replace(delivery.id, now, self.age_max).await {
            tracing::warn!(%error, delivery = %delivery.id, "redelivered, but a retry that waits may be sent as well");
        }
        // The worker that gets the delivery uses it as its probe. The recovery is for all other workers.
        if let Err(error) = self.recoveries.put(delivery.webhook_id, Recovery::TryNow).await {
            tracing::warn!(%error, webhook = %delivery.webhook_id, "the recovery cannot be announced to the workers");
        }
        Ok(())
    }
}

fn delivery(entry: &LogEntry<'_>, now_ms: i64) -> Delivery {
    let logged = &entry.logged;
    let (topic, partition, offset) = &logged.source;
    let traceparent = logged.proofs.iter().find(|(name, _)| name == "traceparent");
    Delivery {
        id: logged.delivery_id,
        webhook_id: entry.webhook_id,
        event_type: logged.event,
        event_id: (*logged.event_id).into(),
        task_id: (*logged.task_id).into(),
        body: entry.payload.as_bytes().to_vec().into(),
        attempts: 0,
        deferrals: 0,
        first_seen_at_ms: now_ms,
        source: RecordPosition { topic: (**topic).into(), partition: *partition, offset: *offset },
        replays: logged.replays.saturating_add(1),
        traceparent: traceparent.and_then(|(_, value)| value.parse().ok()),
        by_hand: true,
    }
}
