//! What was replayed before, as the replay topic itself says.

use std::collections::HashMap;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::delivery::DeliveryId;
use crate::kafka::headers;
use crate::record;
use crate::replay::origin::{Origin, Source};
use crate::replay::scan::{self, Start};
use crate::topics::Names;

/// Eight bytes for each that was replayed.
#[derive(Debug, Default)]
pub struct Marks {
    /// Fingerprints, sorted.
    replayed: Vec<u64>,
    /// When deliveries were last sent again by hand, Unix milliseconds: as many as people asked for.
    redelivered: HashMap<DeliveryId, i64>,
}

impl Marks {
    /// Reads all of `source` that were replayed since `since_ms`: nothing is replayed before it died or happened.
    /// None if `stop` came first.
    ///
    /// # Errors
    /// Where the replay topic can't be read.
    pub fn load(
        config: &Config,
        source: Source,
        since_ms: Option<i64>,
        stop: &CancellationToken,
        progress: impl FnMut(u64, u64),
    ) -> anyhow::Result<Option<Self>> {
        let start = since_ms.map_or(Start::Oldest, Start::At);
        let topic = Names::new(config).replays();
        let shares = scan::read_all(config, &topic, &start, stop, progress, Self::default, |share, record| {
            share.add(record, source);
        })?;
        if stop.is_cancelled() {
            return Ok(None);
        }
        let mut replayed = Vec::with_capacity(shares.iter().map(|share| share.replayed.len()).sum());
        let mut redelivered = HashMap::new();
        for share in shares {
            replayed.extend_from_slice(&share.replayed);
            redelivered.extend(share.redelivered);
        }
        replayed.sort_unstable();
        replayed.dedup();
        Ok(Some(Self { replayed, redelivered }))
    }

    fn add(&mut self, record: &BorrowedMessage<'_>, source: Source) {
        match origin(record) {
            Some(origin) => self.replayed.extend((origin.source == source).then(|| origin.fingerprint())),
            // What is a replay of nothing was sent again by hand.
            None if source == Source::DeadLetters => self.redelivered.extend(redelivery(record)),
            None => {}
        }
    }

    /// Whether a delivery was sent again by hand at that time or later, Unix milliseconds.
    #[must_use]
    pub fn redelivered_since(&self, delivery: DeliveryId, at_ms: i64) -> bool {
        self.redelivered.get(&delivery).is_some_and(|redelivered| *redelivered >= at_ms)
    }

    /// Whether it was replayed.
    #[must_use]
    pub fn has(&self, origin: Origin) -> bool {
        self.replayed.binary_search(&origin.fingerprint()).is_ok()
    }
}

fn origin(record: &BorrowedMessage<'_>) -> Option<Origin> {
    Origin::from_text(headers::last(record.headers(), record::REPLAY_OF)?)
}

fn redelivery(record: &BorrowedMessage<'_>) -> Option<(DeliveryId, i64)> {
    let id = headers::last(record.headers(), "optio-delivery-id")?.parse().ok()?;
    Some((id, headers::last(record.headers(), "optio-first-seen-at")?.parse().ok()?))
}
