//! What a replayed record is a replay of: the name under which it is known to have been replayed.

use xxhash_rust::xxh3::xxh3_64;

use crate::webhook::WebhookId;

/// A dead letter, or an event of the past for one webhook, by where it stands.
///
/// The timestamp is part of it: a topic that was deleted and made anew has the same offsets with other records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Which topic it stands in.
    pub source: Source,
    /// The record's partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, Unix milliseconds.
    pub timestamp_ms: i64,
}

/// Which topic is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The dead-letter topic.
    DeadLetters,
    /// The events' topic, for one webhook.
    Log(WebhookId),
}

impl Origin {
    /// As the header `optio-replay-of` has it.
    #[must_use]
    pub fn to_text(self) -> String {
        let Self { source, partition, offset, timestamp_ms } = self;
        match source {
            Source::DeadLetters => format!("dlq/{partition}/{offset}/{timestamp_ms}"),
            Source::Log(webhook) => format!("log/{partition}/{offset}/{timestamp_ms}/{webhook}"),
        }
    }

    /// Reads the header.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let kind = parts.next()?;
        let (partition, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let timestamp_ms = parts.next()?.parse().ok()?;
        let source = match kind {
            "dlq" => Source::DeadLetters,
            "log" => Source::Log(parts.next()?.parse().ok()?),
            _ => return None,
        };
        Some(Self { source, partition, offset, timestamp_ms })
    }

    /// Among the origins of one source; two of ten million share one with a chance of 3 in a million.
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
    fn an_origin_comes_back_from_its_header() {
        for source in [Source::DeadLetters, Source::Log(WebhookId(Uuid::from_u128(9)))] {
            let origin = Origin { source, partition: 3, offset: 1_042, timestamp_ms: 1_742_983_954_000 };
            assert_eq!(Origin::from_text(&origin.to_text()), Some(origin));
        }
        assert_eq!(Origin::from_text("dlq/3/x/1"), None);
        assert_eq!(Origin::from_text("tape/3/1/1"), None);
    }

    #[test]
    fn a_topic_made_anew_has_other_fingerprints() {
        let origin = Origin { source: Source::DeadLetters, partition: 0, offset: 0, timestamp_ms: 1 };
        assert_ne!(origin.fingerprint(), Origin { timestamp_ms: 2, ..origin }.fingerprint());
        assert_ne!(origin.fingerprint(), Origin { partition: 1, ..origin }.fingerprint());
    }
}
