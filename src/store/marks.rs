//! Marks of the deliveries that are settled above a partition's commit, so that a crash repeats only what was in
//! flight.
//!
//! The batch that writes the delivery log adds one entry per partition to a stream: the highest offset that it settles,
//! and a fingerprint of each settled delivery. When a commit passes an entry, the entry is trimmed. A new owner of the
//! partition loads the stream and skips the deliveries that it contains.
//!
//! A fingerprint covers the id of the delivery and the offset and timestamp of the record. The same delivery in another
//! record of a retry tier, or in a topic that was deleted and recreated, therefore has another fingerprint.

use redis::streams::StreamRangeReply;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::Keys;
use super::connection::Connection;
use crate::delivery::DeliveryId;
use crate::position::{Offset, TimestampMs};
use crate::topics::Names;

/// The time after which a stream expires if nothing is added to it, in seconds.
pub const EXPIRE_S: i64 = 7 * 86_400;

/// The fingerprint of a delivery in one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(u64);

/// The part of a record that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// One of its deliveries.
    Delivery(DeliveryId),
    /// The whole record. It cannot be decoded, so it has no deliveries.
    Record,
}

impl Mark {
    /// The mark of `what` in the record at this offset with this timestamp.
    #[must_use]
    pub fn of(what: Settled, Offset(offset): Offset, TimestampMs(timestamp_ms): TimestampMs) -> Self {
        let id = match what {
            Settled::Delivery(id) => id.0,
            Settled::Record => Uuid::nil(),
        };
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(id.as_bytes());
        bytes[16..24].copy_from_slice(&offset.to_le_bytes());
        bytes[24..].copy_from_slice(&timestamp_ms.to_le_bytes());
        Self(xxh3_64(&bytes))
    }
}

/// An entry in a partition's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkEntry {
    /// The id of the entry in the stream.
    pub id: String,
    /// The highest offset that the entry marks as settled.
    pub highest: i64,
}

/// The number of entries that are read at once. Each has the marks of a batch, so an answer has about half a MiB, and Redis
/// gives it within `redis.timeout`.
const PAGE: usize = 200;
/// The most marks of one partition that are kept, about 64 MiB.
pub const MARKS_MAX: usize = 4_000_000;

/// The content of a stream, as far as it was read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The entries, oldest first.
    pub entries: Vec<MarkEntry>,
    /// The marks of all entries.
    pub marks: std::collections::HashSet<u64>,
    /// The id of the last entry that was read, whether it has marks or not.
    read_up_to: Option<String>,
}

/// The result of reading a part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// There may be more entries.
    More,
    /// All entries were read.
    Last,
    /// The stream has more than [`MARKS_MAX`] marks, and the rest of them is not read.
    Full,
}

impl Loaded {
    /// Whether the stream contains `mark`, which means that the delivery is settled.
    #[must_use]
    pub fn contains(&self, mark: Mark) -> bool {
        self.marks.contains(&mark.0)
    }
}

/// Encodes the value of an entry: the highest offset, then the marks, each as 8 bytes in little-endian order.
#[must_use]
pub fn encode(highest: i64, marks: &[Mark]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 * (marks.len() + 1));
    bytes.extend_from_slice(&highest.to_le_bytes());
    for mark in marks {
        bytes.extend_from_slice(&mark.0.to_le_bytes());
    }
    bytes
}

/// An entry to append to the stream of a partition. The script of [`super::settled`] appends it.
#[derive(Debug)]
pub struct NewEntry {
    /// The stream's key.
    pub key: String,
    /// The highest offset and the marks, from [`encode`].
    pub value: Vec<u8>,
}

/// The mark streams of one installation.
#[derive(Clone)]
pub struct MarkStreams {
    connection: Connection,
    keys: Keys,
    names: Names,
}

impl MarkStreams {
    /// The streams that `keys` and `names` name.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys, names: Names) -> Self {
        Self { connection, keys, names }
    }

    /// The key of the stream of a partition. Each consumer group has its own streams.
    #[must_use]
    pub fn key(&self, topic: &str, partition: i32) -> String {
        let group =
            if self.names.is_waiting(topic) { self.names.retry_group() } else { self.names.events_group().to_owned() };
        self.keys.marks(&group, topic, partition)
    }

    /// Reads the part of a stream that follows what is loaded, and adds it.
    ///
    /// # Errors
    /// Errors of Redis. What was loaded before stays.
    pub async fn load(&self, key: &str, loaded: &mut Loaded) -> redis::RedisResult<Page> {
        let mut connection = self.connection.clone();
        let from = loaded.read_up_to.as_ref().map_or_else(|| "-".to_owned(), |last| format!("({last}"));
        let mut range = redis::cmd("XRANGE");
        let reply: StreamRangeReply =
            range.arg(key).arg(from).arg("+").arg("COUNT").arg(PAGE).query_async(&mut connection).await?;
        let page = if reply.ids.len() < PAGE { Page::Last } else { Page::More };
        for entry in reply.ids {
            if loaded.marks.len() >= MARKS_MAX {
                return Ok(Page::Full);
            }
            loaded.read_up_to = Some(entry.id.clone());
            let Some(value) = entry.get::<Vec<u8>>("m") else { continue };
            let mut words = value.as_chunks::<8>().0.iter();
            let Some(highest) = words.next().map(|bytes| i64::from_le_bytes(*bytes)) else { continue };
            loaded.marks.extend(words.map(|bytes| u64::from_le_bytes(*bytes)));
            loaded.entries.push(MarkEntry { id: entry.id, highest });
        }
        Ok(page)
    }

    /// Removes a stream whose marks are no longer valid.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn discard(&self, key: &str) -> redis::RedisResult<()> {
        redis::cmd("DEL").arg(key).query_async(&mut self.connection.clone()).await
    }

    /// Removes the entries up to and including `passed`, which a commit has passed. If this fails, the entries only use
    /// memory until a later trim or until the stream expires.
    pub async fn trim(&self, key: &str, passed: &str) {
        let mut pipe = redis::pipe();
        pipe.cmd("XTRIM").arg(key).arg("MINID").arg(passed).ignore();
        // MINID keeps the entry itself, which the commit has passed as well.
        pipe.cmd("XDEL").arg(key).arg(passed).ignore();
        if let Err(error) = pipe.query_async::<()>(&mut self.connection.clone()).await {
            tracing::debug!(%error, key, "marks cannot be trimmed");
        }
    }
}

/// Adds commands that append an entry and renew the expiry of its stream, for use without the script.
pub fn append(pipe: &mut redis::Pipeline, entry: &NewEntry) {
    pipe.cmd("XADD").arg(&entry.key).arg("*").arg("m").arg(&entry.value);
    pipe.cmd("EXPIRE").arg(&entry.key).arg(EXPIRE_S);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_identifies_one_delivery_in_one_record() {
        let (id, other) = (DeliveryId(Uuid::from_u128(1)), DeliveryId(Uuid::from_u128(2)));
        assert_eq!(
            Mark::of(Settled::Delivery(id), Offset(5), TimestampMs(100)),
            Mark::of(Settled::Delivery(id), Offset(5), TimestampMs(100))
        );
        assert_ne!(
            Mark::of(Settled::Delivery(id), Offset(5), TimestampMs(100)),
            Mark::of(Settled::Delivery(other), Offset(5), TimestampMs(100))
        );
        assert_ne!(
            Mark::of(Settled::Delivery(id), Offset(5), TimestampMs(100)),
            Mark::of(Settled::Delivery(id), Offset(6), TimestampMs(100)),
            "the same delivery in another record"
        );
        assert_ne!(
            Mark::of(Settled::Delivery(id), Offset(5), TimestampMs(100)),
            Mark::of(Settled::Delivery(id), Offset(5), TimestampMs(101)),
            "a recreated topic"
        );
    }
}
