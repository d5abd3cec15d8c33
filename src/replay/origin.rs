//! The origin of a replayed record, by which later runs know that it was replayed.

use xxhash_rust::xxh3::xxh3_64;

use crate::webhook::WebhookId;

/// The position of a dead letter, or of a past event for one webhook.
///
/// The timestamp is part of the origin, because a topic that was deleted and recreated has other records at the same
/// offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayOrigin {
    /// The topic of the record.
    pub source: ReplaySource,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record.
    pub offset: i64,
    /// The timestamp of the record, in Unix milliseconds.
    pub timestamp_ms: i64,
}

/// The topic that is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplaySource {
    /// The dead-letter topic.
    DeadLetters,
    /// The topic of the events, for one webhook.
    Log(WebhookId),
}

impl ReplayOrigin {
    /// The value of the header `optio-replay-of`.
    #[must_use]
    pub fn to_text(self) -> String {
        let Self { source, partition, offset, timestamp_ms } = self;
        match source {
            ReplaySource::DeadLetters => format!("dlq/{partition}/{offset}/{timestamp_ms}"),
            ReplaySource::Log(webhook) => format!("log/{partition}/{offset}/{timestamp_ms}/{webhook}"),
        }
    }

    /// Parses the value of the header `optio-replay-of`. None if it is not valid.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let kind = parts.next()?;
        let (partition, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let timestamp_ms = parts.next()?.parse().ok()?;
        let source = match kind {
            "dlq" => ReplaySource::DeadLetters,
            "log" => ReplaySource::Log(parts.next()?.parse().ok()?),
            _ => return None,
        };
        Some(Self { source, partition, offset, timestamp_ms })
    }

    /// A hash of the position, to compare origins of the same source. Among ten million origins, the probability that
    /// any two have the same fingerprint is 3 in a million.
    #[must_use]
    pub fn fingerprint(self) -> u64 {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&self.partition.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..].copy_from_slice(&self.timestamp_ms.to_le_bytes());
        xxh3_64(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_origin_survives_its_header() {
        for source in [ReplaySource::DeadLetters, ReplaySource::Log(WebhookId(Uuid::from_u128(9)))] {
            let origin = ReplayOrigin { source, partition: 3, offset: 1_042, timestamp_ms: 1_742_983_954_000 };
            assert_eq!(ReplayOrigin::from_text(&origin.to_text()), Some(origin));
        }
        assert_eq!(ReplayOrigin::from_text("dlq/3/x/1"), None);
        assert_eq!(ReplayOrigin::from_text("tape/3/1/1"), None);
    }

    #[test]
    fn a_recreated_topic_has_other_fingerprints() {
        let origin = ReplayOrigin { source: ReplaySource::DeadLetters, partition: 0, offset: 0, timestamp_ms: 1 };
        assert_ne!(origin.fingerprint(), ReplayOrigin { timestamp_ms: 2, ..origin }.fingerprint());
        assert_ne!(origin.fingerprint(), ReplayOrigin { partition: 1, ..origin }.fingerprint());
    }
}
