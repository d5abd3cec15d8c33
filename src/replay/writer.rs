//! The writer of the replay topic. Each batch is acknowledged before the next one begins.

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

/// The largest number of records in a batch. If the process is killed, at most one batch is partly written.
pub const BATCH_MAX: u64 = 500;
/// The time that one batch covers if there is a rate, so that the records flow evenly.
const RATE_SLICE: Duration = Duration::from_millis(100);
/// The duration of one poll for acknowledgements. A poll always takes this long.
const POLL_STEP: Duration = Duration::from_millis(1);
/// The longest sleep for the rate, and so the longest time until a stop is noticed.
const STOP_STEP: Duration = Duration::from_millis(50);

/// The writer of one replay.
pub struct Writer {
    producer: BaseProducer<Refusals>,
    topic: String,
    rate: Option<NonZeroU32>,
    /// When the rate allows the next batch.
    next_due: Instant,
    /// The number of records in the current batch, which is not acknowledged yet.
    pending: u64,
}

/// Counts the records that the broker refused for good.
#[derive(Default)]
struct Refusals(AtomicU64);

impl ClientContext for Refusals {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        logging::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        logging::error(&error, reason);
    }
}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            tracing::error!(%error, "a replay record cannot be written");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A record to write.
pub struct Outgoing<'a> {
    /// The key, which determines the partition.
    pub key: Option<&'a [u8]>,
    /// The exact body, or the value of the record that could not be read.
    pub value: Option<&'a [u8]>,
    /// The headers, including `optio-replay-of`.
    pub headers: OwnedHeaders,
}

impl Writer {
    /// Creates a writer with its own producer. `rate` is in records per second; None means no limit.
    ///
    /// # Errors
    /// If the producer cannot be created.
    pub fn new(config: &Config, rate: Option<NonZeroU32>) -> anyhow::Result<Self> {
        let producer = clients::producer(config)
            // The writer waits for each batch, so a longer linger would only delay it.
            .set("linger.ms", "1")
            .create_with_context(Refusals::default())
            .context("kafka producer")?;
        let topic = Names::new(config).replays();
        Ok(Self { producer, topic, rate, next_due: Instant::now(), pending: 0 })
    }

    /// Whether the next record begins a batch.
    #[must_use]
    pub fn is_between_batches(&self) -> bool {
        self.pending == 0
    }

    /// Adds a record to the batch. If the batch is then full, waits until it is acknowledged. Blocks.
    ///
    /// # Errors
    /// If the broker refuses a record for good. The records of the batch that were written count as replayed, the
    /// others do not.
    pub fn write(&mut self, outgoing: Outgoing<'_>, stop: &CancellationToken) -> anyhow::Result<()> {
        if self.is_between_batches() {
            self.wait_for_rate(stop);
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).headers(outgoing.headers);
        record.key = outgoing.key;
        record.payload = outgoing.value;
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    record = returned;
                    self.producer.poll(POLL_STEP);
                }
                Err((error, _)) => return Err(error).context("a replay record cannot be written"),
            }
        }
        self.pending += 1;
        if self.pending >= self.batch_max() { self.flush() } else { Ok(()) }
    }

    /// Waits until the broker has acknowledged the batch, however long the broker is unavailable. Blocks.
    ///
    /// # Errors
    /// If the broker refuses a record for good.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(POLL_STEP);
        }
        let written = std::mem::take(&mut self.pending);
        self.charge(written);
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

    /// Moves the time of the next batch by the time that `written` records may take. A pause, for example while the
    /// broker is unavailable, must not be made up for by a burst, so a time that is long past counts from now on.
    fn charge(&mut self, written: u64) {
        let Some(rate) = self.rate else { return };
        let took = Duration::from_secs_f64(written as f64 / f64::from(rate.get()));
        self.next_due = next_due(self.next_due, Instant::now(), took);
    }

    /// Waits until the rate allows the next batch.
    fn wait_for_rate(&self, stop: &CancellationToken) {
        while let Some(left) = self.next_due.checked_duration_since(Instant::now()).filter(|_| !stop.is_cancelled()) {
            std::thread::sleep(left.min(STOP_STEP));
        }
    }
}

/// When the batch after the present one is due, if the rate allows the present one to be written in `took`. A pause of
/// more than a slice is not made up for.
fn next_due(due: Instant, now: Instant, took: Duration) -> Instant {
    now.checked_sub(RATE_SLICE).map_or(due, |earliest| due.max(earliest)) + took
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_held_over_short_delays_and_a_long_pause_is_followed_by_no_burst() {
        let (due, took) = (Instant::now() + Duration::from_secs(3_600), Duration::from_millis(100));
        assert_eq!(next_due(due, due + Duration::from_millis(15), took), due + took);
        let after_pause = due + Duration::from_secs(600);
        assert_eq!(next_due(due, after_pause, took), after_pause, "one batch may follow at once, and no more");
    }
}
