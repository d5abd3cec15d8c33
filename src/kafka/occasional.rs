//! A producer that exists only while it is used.
//!
//! Each producer has threads. The one that polls it looks at the clock without a pause at the end of each tenth of a
//! second, which takes about a percent of a processor. That is too much for a producer that writes a record now and then.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use tokio::time::{Instant, sleep_until};

use super::closing::ClosedInBackground;
use super::logging::Logging;

/// How long a producer is kept after its last use.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// A producer that is created when it is needed. Clones share it.
#[derive(Clone)]
pub struct OccasionalProducer {
    config: Arc<ClientConfig>,
    kept: Arc<Mutex<Option<Kept>>>,
}

/// A producer that writes its last record may be dropped by the task that waited for it, which must not block.
type Shared = Arc<ClosedInBackground<FutureProducer<Logging>>>;

struct Kept {
    producer: Shared,
    used: Instant,
}

impl OccasionalProducer {
    /// Prepares for a producer with this configuration.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self { config: Arc::new(config), kept: Arc::default() }
    }

    /// Writes a record. Call it within a tokio runtime. Cancel safe, but the record may still be written.
    ///
    /// # Errors
    /// The producer can't be created, or the broker doesn't acknowledge the record within `message.timeout.ms`. The next
    /// record then gets a new producer, because this one may have had a fatal error.
    pub async fn send(&self, record: FutureRecord<'_, str, [u8]>) -> Result<(), KafkaError> {
        let sent = self.producer()?.send(record, Timeout::Never).await;
        sent.map(drop).map_err(|(error, _)| {
            *self.kept() = None;
            error
        })
    }

    fn producer(&self) -> Result<Shared, KafkaError> {
        let mut kept = self.kept();
        let used = Instant::now();
        if let Some(kept) = &mut *kept {
            kept.used = used;
            return Ok(kept.producer.clone());
        }
        let producer: Shared = Arc::new(ClosedInBackground::new(self.config.create_with_context(Logging)?));
        *kept = Some(Kept { producer: producer.clone(), used });
        tokio::spawn(self.clone().close_when_unused());
        Ok(producer)
    }

    async fn close_when_unused(self) {
        loop {
            let unused = match &*self.kept() {
                Some(kept) => kept.used + KEPT_FOR,
                None => return,
            };
            if unused > Instant::now() {
                sleep_until(unused).await;
                continue;
            }
            *self.kept() = None;
            return;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().expect("no code panics while it holds this lock")
    }
}
