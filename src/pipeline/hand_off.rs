//! Writing a delivery to a retry tier or the dead-letter topic: acknowledged by all replicas, tried until it is.

use std::sync::Arc;

use rdkafka::Message as _;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::Unreadable;
use crate::conditions::{Conditions, Severity};
use crate::delivery::{DeadReason, Delivery, now_ms};
use crate::kafka::words::Words;
use crate::record::{self, LastError};
use crate::topics::Names;

/// Writes to retry tiers and the dead-letter topic.
#[derive(Clone)]
pub struct HandOff {
    producer: FutureProducer<Words>,
    names: Arc<Names>,
    conditions: Conditions,
}

impl HandOff {
    /// Over `producer`.
    #[must_use]
    pub fn new(producer: FutureProducer<Words>, names: Names, conditions: Conditions) -> Self {
        Self { producer, names: Arc::new(names), conditions }
    }

    /// Puts a delivery into `tier`. Returns when it is durable; not cancel safe.
    pub async fn retry(&self, delivery: &Delivery, tier: u32, due_at_ms: i64, last: LastError) {
        let headers = record::headers(delivery, Some(due_at_ms), last);
        let key = delivery.webhook_id.to_string();
        self.write(&self.names.retry(tier), Some(key.as_bytes()), Some(&delivery.body), headers).await;
    }

    /// Gives a delivery up. Returns when that is durable; not cancel safe.
    pub async fn dead(&self, delivery: &Delivery, reason: DeadReason, detail: &str, last: LastError) {
        let headers = record::dead(record::headers(delivery, None, last), reason, detail, now_ms());
        let key = delivery.webhook_id.to_string();
        self.write(&self.names.dead_letters(), Some(key.as_bytes()), Some(&delivery.body), headers).await;
    }

    /// Gives a record up that can't be read: its key, value and headers untouched beside ours.
    pub async fn unreadable(&self, record: Unreadable) {
        let headers = record::unread(record.headers, &record.origin);
        let headers = record::dead(headers, record.reason, &record.detail, now_ms());
        self.write(&self.names.dead_letters(), record.key.as_deref(), record.value.as_deref(), headers).await;
    }

    async fn write(&self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, mut headers: OwnedHeaders) {
        let mut outage = self.conditions.outage(format!("kafka: hand-off to {topic}"), Severity::NotReady);
        loop {
            let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
            record.key = key;
            record.payload = value;
            match self.producer.send(record, Timeout::Never).await {
                Ok(_) => return,
                Err((error, record)) => {
                    outage.failed(format_args!("a hand-off can't be made, and its offset stays: {error}"));
                    headers = record.headers().cloned().unwrap_or_else(OwnedHeaders::new);
                    outage.wait().await;
                }
            }
        }
    }
}
