//! Writes to the replay topic, in batches that are acknowledged before the next one begins.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kafka::{clients, logging};
use crate::topics::Names;

/// Records of a batch at the most: what a kill may leave half written.
pub const BATCH_MAX: u64 = 500;
/// With a rate, a batch for each of these: an even flow.
const RATE_SLICE: Duration = Duration::from_millis(100);
/// How long an acknowledgement is waited for at a time: a poll lasts for all of it.
const POLL_STEP: Duration = Duration::from_millis(1);
const STOP_STEP: Duration = Duration::from_millis(50);

/// One run's writing.
pub struct Writer {
    producer: BaseProducer<Refusals>,
    topic: String,
    rate: Option<NonZeroU32>,
    began: Instant,
    /// Handed to the producer.
    written: u64,
    /// Of these, in the batch that isn't acknowledged yet.
    pending: u64,
}

/// Counts what the broker refused for good.
#[derive(Default)]
struct Refusals(AtomicU64);

impl ClientContext for Refusals {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        logging::log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        logging::error(&error, reason);
    }
}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            tracing::error!(%error, "a replay can't be written");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A record to write.
pub struct Outgoing<'a> {
    /// Chooses the partition.
    pub key: Option<&'a [u8]>,
    /// The exact body, or the record that couldn't be read.
    pub value: Option<&'a [u8]>,
    /// Ours, with what it is a replay of.
    pub headers: OwnedHeaders,
}

impl Writer {
    /// Nothing written yet.
    ///
    /// # Errors
    /// Where the producer can't be made.
    pub fn new(config: &Config, rate: Option<NonZeroU32>) -> anyhow::Result<Self> {
        let producer = clients::producer(config)
            // A batch is waited for: nothing is gained by waiting for more of it.
            .set("linger.ms", "1")
            .create_with_context(Refusals::default())
            .context("kafka producer")?;
        let topic = Names::new(config).replays();
        Ok(Self { producer, topic, rate, began: Instant::now(), written: 0, pending: 0 })
    }

    /// Whether the next record begins a batch.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.pending == 0
    }

    /// Adds a record to the batch, and waits for the batch's acknowledgement where that makes it full.
    ///
    /// # Errors
    /// Where the broker refuses for good. What of the batch was written is marked as replayed, the rest isn't.
    pub fn write(&mut self, outgoing: Outgoing<'_>, stop: &CancellationToken) -> anyhow::Result<()> {
        if self.is_at_rest() {
            self.keep_rate(stop);
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).headers(outgoing.headers);
        record.key = outgoing.key;
        record.payload = outgoing.value;
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(POLL_STEP);
                }
                Err((error, _)) => return Err(error).context("a replay can't be written"),
            }
        }
        self.written += 1;
        self.pending += 1;
        if self.pending >= self.batch_max() { self.flush() } else { Ok(()) }
    }

    /// Waits until the broker has the batch, however long it is away.
    ///
    /// # Errors
    /// Where it refuses for good.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(POLL_STEP);
        }
        self.pending = 0;
        let refused = self.producer.context().0.load(Ordering::Relaxed);
        anyhow::ensure!(
            refused == 0,
            "the broker refused {refused} records for topic {}; the log says why",
            self.topic
        );
        Ok(())
    }

    fn batch_max(&self) -> u64 {
        self.rate.map_or(BATCH_MAX, |rate| {
            let slice = u64::from(rate.get()) * RATE_SLICE.as_millis() as u64 / 1_000;
            slice.clamp(1, BATCH_MAX)
        })
    }

    /// Waits until the rate allows for a batch.
    fn keep_rate(&self, stop: &CancellationToken) {
        let Some(rate) = self.rate else { return };
        let due = self.began + Duration::from_secs_f64(self.written as f64 / f64::from(rate.get()));
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|_| !stop.is_cancelled()) {
            std::thread::sleep(left.min(STOP_STEP));
        }
    }
}
