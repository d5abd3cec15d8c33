//! What was replayed before, as the replay topic itself says.

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::record;
use crate::replay::origin::{Origin, Source};
use crate::replay::scan::{self, Start};
use crate::topics::Names;

/// Eight bytes for each that was replayed.
#[derive(Debug, Default)]
pub struct Marks {
    /// Fingerprints, sorted.
    replayed: Vec<u64>,
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
        let shares = scan::read_all(
            config,
            &Names::new(config).replays(),
            &start,
            stop,
            progress,
            Vec::new,
            |found, record| {
                found.extend(origin(record).filter(|origin| origin.source == source).map(Origin::fingerprint));
            },
        )?;
        if stop.is_cancelled() {
            return Ok(None);
        }
        let mut replayed = Vec::with_capacity(shares.iter().map(Vec::len).sum());
        for share in shares {
            replayed.extend_from_slice(&share);
        }
        replayed.sort_unstable();
        replayed.dedup();
        Ok(Some(Self { replayed }))
    }

    /// Whether it was replayed.
    #[must_use]
    pub fn has(&self, origin: Origin) -> bool {
        self.replayed.binary_search(&origin.fingerprint()).is_ok()
    }
}

fn origin(record: &BorrowedMessage<'_>) -> Option<Origin> {
    let header = record.headers()?.iter().filter(|header| header.key == record::REPLAY_OF).last()?;
    Origin::from_text(std::str::from_utf8(header.value?).ok()?)
}
