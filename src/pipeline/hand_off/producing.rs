//! One write, tried until the broker has it or it turns out that it never will.

use crate::metrics;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::util::Timeout;

use super::HandedOff;
use crate::conditions::{Conditions, LOUD_AFTER, Outage, Severity};
use crate::kafka::headers;
use crate::kafka::logging::Logging;
use crate::pipeline::handling::Handling;

/// `max.message.bytes` of each topic, as far as it could be read.
pub type Limits = HashMap<String, usize>;

/// Bytes that a hand-off takes in memory beside its record.
const HAND_OFF_BYTES: usize = 4_096;
/// Bytes that a broker counts beside a batch's records.
const BATCH_OVERHEAD: usize = 512;

/// The producer, made again where librdkafka gave up on it.
pub struct Producing {
    batched: Renewed,
    /// Sends each record alone: a broker refuses a whole batch for its size, small records in it as well, and only what is
    /// refused alone is too large.
    alone: Renewed,
    conditions: Conditions,
}

struct Renewed {
    config: ClientConfig,
    producer: RwLock<FutureProducer<Logging>>,
}

/// A record to write.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The broker has it.
    Done,
    /// The topic doesn't take records of that size.
    TooLarge,
    /// The partition that it came from isn't ours any more.
    LeftToNextOwner,
}

impl Producing {
    /// With the limits of the topics that are written.
    ///
    /// # Errors
    /// Where the producer can't be made.
    pub fn new(mut config: ClientConfig, limits: &Limits, conditions: Conditions) -> Result<Self, KafkaError> {
        // A batch that is larger than its topic allows is refused as a whole, small records in it as well.
        if let Some(smallest) = limits.values().min() {
            let batch = smallest.saturating_sub(BATCH_OVERHEAD).clamp(1_024, 1_000_000);
            config.set("batch.size", batch.to_string());
        }
        let mut alone = config.clone();
        alone.set("batch.num.messages", "1");
        Ok(Self { batched: Renewed::new(config)?, alone: Renewed::new(alone)?, conditions })
    }

    /// Returns when the broker has it, or when it is known that it never will; not cancel safe.
    pub(super) async fn write(
        &self,
        outgoing: Outgoing<'_>,
        headers: OwnedHeaders,
        handling: &mut Handling,
    ) -> Written {
        self.tried(outgoing, headers, handling, true).await
    }

    /// The same for a record that can't become any smaller.
    pub(super) async fn write_however_long(
        &self,
        outgoing: Outgoing<'_>,
        headers: OwnedHeaders,
        handling: &mut Handling,
    ) -> HandedOff {
        match self.tried(outgoing, headers, handling, false).await {
            Written::Done => HandedOff::Written,
            Written::LeftToNextOwner | Written::TooLarge => HandedOff::LeftToNextOwner,
        }
    }

    async fn tried(
        &self,
        outgoing: Outgoing<'_>,
        mut headers: OwnedHeaders,
        handling: &mut Handling,
        may_be_too_large: bool,
    ) -> Written {
        let Outgoing { topic, key, value } = outgoing;
        let own = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        let size = own + headers::bytes(Some(headers.as_borrowed())) + HAND_OFF_BYTES;
        let mut through = &self.batched;
        let mut outage: Option<Outage> = None;
        let condition = || self.conditions.outage(format!("kafka: hand-off to {topic}"), Severity::NotReady);
        loop {
            let producer = through.producer();
            let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
            record.key = key;
            record.payload = value;
            let mut sending = std::pin::pin!(producer.send(record, Timeout::Never));
            let sent = loop {
                match tokio::time::timeout(LOUD_AFTER, &mut sending).await {
                    Ok(sent) => break sent,
                    Err(_) => {
                        // Librdkafka tries by itself what may pass, and says nothing meanwhile.
                        handling.park(size);
                        let outage = outage.get_or_insert_with(|| condition().loud_after(std::time::Duration::ZERO));
                        outage.failed("not acknowledged yet: the broker, or enough of its replicas, can't be reached");
                    }
                }
            };
            let (error, record) = match sent {
                Ok(_) => return Written::Done,
                Err(failed) => failed,
            };
            headers = record.headers().cloned().unwrap_or_else(OwnedHeaders::new);
            if is_for_size(&error) {
                if std::ptr::eq(through, &self.batched) {
                    through = &self.alone;
                    continue;
                }
                if may_be_too_large {
                    return Written::TooLarge;
                }
            }
            through.renew_where_fatal(&producer);
            // Whatever the reason, nothing is under way now, and nobody waits behind this but its own offset.
            handling.park(size);
            handling.pause();
            metrics::HAND_OFF_FAILURES.increment_named(topic);
            let outage = outage.get_or_insert_with(|| condition().loud_after(std::time::Duration::ZERO));
            outage.failed(format_args!("a hand-off can't be made, and its offset stays: {error}"));
            outage.wait().await;
            if !handling.resume() {
                return Written::LeftToNextOwner;
            }
        }
    }
}

impl Renewed {
    fn new(config: ClientConfig) -> Result<Self, KafkaError> {
        let producer = RwLock::new(config.create_with_context(Logging)?);
        Ok(Self { config, producer })
    }

    fn producer(&self) -> FutureProducer<Logging> {
        self.producer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A fatal error of an idempotent producer is for ever: only a new one helps.
    fn renew_where_fatal(&self, failed: &FutureProducer<Logging>) {
        if failed.client().fatal_error().is_none() {
            return;
        }
        let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        // Another hand-off may have been faster.
        let Some((code, reason)) = producer.client().fatal_error() else { return };
        tracing::error!(%code, reason, "the producer met a fatal error; a new one is made");
        metrics::PRODUCERS_RENEWED.increment();
        match self.config.create_with_context(Logging) {
            Ok(new) => {
                let old = std::mem::replace(&mut *producer, new);
                // Closing waits for its thread: that must not hold up the others.
                let _ = std::thread::Builder::new().name("closing".to_owned()).spawn(move || drop(old));
            }
            Err(error) => tracing::error!(%error, "a new producer can't be made; tried again"),
        }
    }
}

fn is_for_size(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{MessageBatchTooLarge, MessageSizeTooLarge};
    matches!(error.rdkafka_error_code(), Some(MessageSizeTooLarge | MessageBatchTooLarge))
}
