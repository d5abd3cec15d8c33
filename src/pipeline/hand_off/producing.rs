//! Writes one record, and tries until the broker has it or it is known that the topic never takes it.

use crate::metrics;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::types::RDKafkaErrorCode;

use super::HandedOff;
#[cfg(test)]
use super::producer::Script;
use super::producer::{Outgoing, Producer, Sending};
use crate::conditions::{Conditions, LOUD_AFTER, Outage, Severity};
use crate::kafka::closing::ClosedInBackground;
use crate::kafka::logging::Logging;
use crate::pipeline::handling::Handling;

/// `max.message.bytes` of each topic for which it could be read.
pub type Limits = HashMap<String, usize>;

/// The approximate bytes that a hand-off takes in memory in addition to its record, with the headers that we write.
const HAND_OFF_BYTES: usize = 6_144;
/// The wait for room in the queue of the client.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(100);
/// The bytes that a broker counts for a batch in addition to its records.
const BATCH_OVERHEAD: usize = 512;

/// The producers. A producer that had a fatal error is replaced.
pub struct Producing {
    batched: Renewable,
    /// Sends each record in a batch of its own. A broker refuses a whole batch for its size, together with the small
    /// records in it. Only a record that is refused alone is too large.
    /// Most processes never need it, and each producer costs threads.
    unbatched: Renewable,
    conditions: Conditions,
}

struct Renewable {
    config: ClientConfig,
    /// None until it is needed for the first time.
    producer: RwLock<Option<Producer>>,
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The broker has it.
    Done,
    /// The topic doesn't take records of that size.
    TooLarge,
    /// The partition that the record came from is no longer ours.
    LeftToNextOwner,
}

impl Producing {
    /// Creates the producers. `limits` are those of the topics that are written.
    ///
    /// # Errors
    /// Fails if a producer can't be created.
    pub fn new(mut config: ClientConfig, limits: &Limits, conditions: Conditions) -> Result<Self, KafkaError> {
        // A batch that is larger than its topic allows is refused as a whole, together with the small records in it.
        if let Some(smallest) = limits.values().min() {
            let batch = smallest.saturating_sub(BATCH_OVERHEAD).clamp(1_024, 1_000_000);
            config.set("batch.size", batch.to_string());
        }
        let mut unbatched = config.clone();
        unbatched.set("batch.num.messages", "1");
        let batched = Renewable::new(config);
        batched.producer()?;
        Ok(Self { batched, unbatched: Renewable::new(unbatched), conditions })
    }

    /// Writes with `script`.
    #[cfg(test)]
    pub(crate) fn scripted(script: Script, conditions: Conditions) -> Self {
        let renewable = || Renewable {
            config: ClientConfig::new(),
            producer: RwLock::new(Some(Producer::Scripted(script.clone()))),
        };
        Self { batched: renewable(), unbatched: renewable(), conditions }
    }

    /// Gives a record to the producer. The broker has it when the result resolves to `Ok`. After an error,
    /// [`Producing::finish`] must go on with it, or the record is lost.
    pub(super) fn start(&self, outgoing: Outgoing<'_>, headers: OwnedHeaders) -> Sending {
        self.batched.start(outgoing, headers)
    }

    /// Writes a record. Returns when the broker has it, when it turns out to be too large, or when its partition is no
    /// longer ours. Not cancel safe.
    pub(super) async fn write(
        &self,
        outgoing: Outgoing<'_>,
        headers: OwnedHeaders,
        handling: &mut Handling,
    ) -> Written {
        self.finish(outgoing, self.start(outgoing, headers), handling).await
    }

    /// Goes on with a record that was started, like [`Producing::write`]. Not cancel safe.
    pub(super) async fn finish(&self, outgoing: Outgoing<'_>, sending: Sending, handling: &mut Handling) -> Written {
        self.try_until_written(outgoing, sending, handling, true).await
    }

    /// Writes a record that can't become any smaller. A refusal for its size is tried again like any other. Not cancel
    /// safe.
    pub(super) async fn write_whatever_size(
        &self,
        outgoing: Outgoing<'_>,
        headers: OwnedHeaders,
        handling: &mut Handling,
    ) -> HandedOff {
        match self.try_until_written(outgoing, self.start(outgoing, headers), handling, false).await {
            Written::Done => HandedOff::Written,
            Written::LeftToNextOwner | Written::TooLarge => HandedOff::LeftToNextOwner,
        }
    }

    async fn try_until_written(
        &self,
        outgoing: Outgoing<'_>,
        mut sending: Sending,
        handling: &mut Handling,
        may_be_too_large: bool,
    ) -> Written {
        let (topic, began) = (outgoing.topic, sending.began());
        let bytes = outgoing.bytes() + HAND_OFF_BYTES;
        let mut renewable = &self.batched;
        let mut outage: Option<Outage> = None;
        let condition = || self.conditions.outage(format!("kafka: hand-off to {topic}"), Severity::NotReady);
        loop {
            let sent = loop {
                match tokio::time::timeout(LOUD_AFTER, &mut sending).await {
                    Ok(sent) => break sent,
                    Err(_) => {
                        // The client retries temporary errors by itself, and doesn't report them.
                        handling.park(bytes);
                        let outage = outage.get_or_insert_with(|| condition().loud_after(Duration::ZERO));
                        outage.failed("not acknowledged yet: the broker, or enough of its replicas, can't be reached");
                    }
                }
            };
            let (error, headers) = match sent {
                Ok(()) => {
                    metrics::HAND_OFF_DURATION.observe(began.elapsed());
                    return Written::Done;
                }
                Err(failed) => failed,
            };
            if is_for_size(&error) {
                if std::ptr::eq(renewable, &self.batched) {
                    renewable = &self.unbatched;
                    sending = renewable.start(outgoing, headers);
                    continue;
                }
                if may_be_too_large {
                    return Written::TooLarge;
                }
            }
            if is_queue_full(&error) && began.elapsed() < LOUD_AFTER {
                tokio::time::sleep(QUEUE_FULL_WAIT).await;
                sending = renewable.start(outgoing, headers);
                continue;
            }
            renewable.renew_if_fatal();
            // Nothing is under way until the next try, so other deliveries and drains don't wait for this hand-off.
            handling.park(bytes);
            handling.pause();
            metrics::HAND_OFF_FAILURES.increment_named(topic);
            let outage = outage.get_or_insert_with(|| condition().loud_after(Duration::ZERO));
            outage.failed(format_args!("a hand-off failed, and its offset stays open: {error}"));
            outage.wait().await;
            if !handling.resume() {
                return Written::LeftToNextOwner;
            }
            sending = renewable.start(outgoing, headers);
        }
    }
}

impl Renewable {
    fn new(config: ClientConfig) -> Self {
        Self { config, producer: RwLock::default() }
    }

    /// The producer. The first call creates it.
    fn producer(&self) -> Result<Producer, KafkaError> {
        if let Some(producer) = &*self.producer.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(producer.clone());
        }
        let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        match &*producer {
            // Another hand-off has created it meanwhile.
            Some(producer) => Ok(producer.clone()),
            None => {
                let created = Arc::new(ClosedInBackground::new(self.config.create_with_context(Logging)?));
                Ok(producer.insert(Producer::Kafka(created)).clone())
            }
        }
    }

    fn start(&self, outgoing: Outgoing<'_>, headers: OwnedHeaders) -> Sending {
        match self.producer() {
            Ok(producer) => producer.start(outgoing, headers),
            Err(error) => Sending::refused(error, Some(headers)),
        }
    }

    /// Replaces the producer if it had a fatal error. An idempotent producer can't recover from one.
    fn renew_if_fatal(&self) {
        let fatal_error = |producer: &Option<Producer>| producer.as_ref().and_then(Producer::fatal_error);
        if fatal_error(&self.producer.read().unwrap_or_else(PoisonError::into_inner)).is_none() {
            return;
        }
        let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        // Another hand-off may have replaced it already.
        let Some((code, reason)) = fatal_error(&producer) else { return };
        tracing::error!(%code, reason, "the producer had a fatal error and is replaced");
        metrics::PRODUCERS_RENEWED.increment();
        // The next try creates the new one.
        *producer = None;
    }
}

/// Whether the client has no room for the record, which was not sent.
fn is_queue_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

fn is_for_size(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{MessageBatchTooLarge, MessageSizeTooLarge};
    matches!(error.rdkafka_error_code(), Some(MessageSizeTooLarge | MessageBatchTooLarge))
}
