//! The records that were replayed before, as the replay topic lists them.

use std::collections::HashMap;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::delivery::DeliveryId;
use crate::kafka::headers;
use crate::record;
use crate::record::header_names as names;
use crate::replay::origin::{ReplayOrigin, ReplaySource};
use crate::replay::scan::{self, Start};
use crate::topics::Names;

/// The marks of earlier replays. Each takes eight bytes of memory.
#[derive(Debug, Default)]
pub struct ReplayMarks {
    /// The fingerprints of the replayed records, sorted.
    replayed: Vec<u64>,
    /// The time of the last redelivery of each delivery, in Unix milliseconds. People request redeliveries one by one,
    /// so there are few.
    redelivered: HashMap<DeliveryId, i64>,
}

impl ReplayMarks {
    /// Reads the marks of records of `source` that were replayed at or after `since_ms` (Unix milliseconds). Earlier
    /// marks are not needed for records from that time on, because a record is older than its replay. `progress`
    /// receives the number of offsets read and their total. Returns None if `stop` was cancelled.
    ///
    /// # Errors
    /// If the replay topic cannot be read.
    pub fn load(
        config: &Config,
        source: ReplaySource,
        since_ms: Option<i64>,
        stop: &CancellationToken,
        progress: impl FnMut(u64, u64),
    ) -> anyhow::Result<Option<Self>> {
        let start = since_ms.map_or(Start::Oldest, Start::At);
        let topic = Names::new(config).replays();
        let parts = scan::read_all(config, &topic, &start, stop, progress, Self::default, |part, record| {
            part.add(record, source);
        })?;
        if stop.is_cancelled() {
            return Ok(None);
        }
        let mut replayed = Vec::with_capacity(parts.iter().map(|part| part.replayed.len()).sum());
        let mut redelivered = HashMap::new();
        for part in parts {
            replayed.extend_from_slice(&part.replayed);
            redelivered.extend(part.redelivered);
        }
        replayed.sort_unstable();
        replayed.dedup();
        Ok(Some(Self { replayed, redelivered }))
    }

    fn add(&mut self, record: &BorrowedMessage<'_>, source: ReplaySource) {
        match origin(record) {
            Some(origin) => self.replayed.extend((origin.source == source).then(|| origin.fingerprint())),
            // A record without `optio-replay-of` is a redelivery.
            None if source == ReplaySource::DeadLetters => self.redelivered.extend(redelivery(record)),
            None => {}
        }
    }

    /// Whether a delivery was redelivered at or after this time, in Unix milliseconds.
    #[must_use]
    pub fn redelivered_since(&self, delivery: DeliveryId, at_ms: i64) -> bool {
        self.redelivered.get(&delivery).is_some_and(|redelivered| *redelivered >= at_ms)
    }

    /// Whether the record at `origin` was replayed.
    #[must_use]
    pub fn has(&self, origin: ReplayOrigin) -> bool {
        !self.replayed.is_empty() && self.replayed.binary_search(&origin.fingerprint()).is_ok()
    }
}

fn origin(record: &BorrowedMessage<'_>) -> Option<ReplayOrigin> {
    ReplayOrigin::from_text(headers::last(record.headers(), record::header_names::REPLAY_OF)?)
}

fn redelivery(record: &BorrowedMessage<'_>) -> Option<(DeliveryId, i64)> {
    let id = headers::last(record.headers(), names::DELIVERY_ID)?.parse().ok()?;
    Some((id, headers::last(record.headers(), names::FIRST_SEEN_AT)?.parse().ok()?))
}
