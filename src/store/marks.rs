//! Marks of what is settled above a partition's commit, so that a crash repeats no more than was in flight.
//!
//! The batch that writes the delivery log adds an entry per partition to a stream: the highest offset it
//! settles, and a fingerprint for each settled delivery. When a commit passes an entry, it is trimmed. A new
//! owner of the partition loads the stream and skips what it finds. A fingerprint covers the delivery's id, the
//! record's offset and its timestamp: the same delivery written to a tier again, or a record of a topic that
//! was deleted and made anew, has another one.

use redis::streams::StreamRangeReply;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::Keys;
use super::connection::Connection;
use crate::topics::Names;

/// The stream of a partition that nobody owns any more expires after this, in seconds.
pub const EXPIRE_S: i64 = 7 * 86_400;

/// Identifies a delivery in one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(u64);

impl Mark {
    /// Of delivery `id` in the record at `offset` with that timestamp.
    #[must_use]
    pub fn of(id: Uuid, offset: i64, timestamp_ms: i64) -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(id.as_bytes());
        bytes[16..24].copy_from_slice(&offset.to_le_bytes());
        bytes[24..].copy_from_slice(&timestamp_ms.to_le_bytes());
        Self(xxh3_64(&bytes))
    }
}

/// An entry in a partition's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The stream's id for it.
    pub id: String,
    /// The highest offset that it marks.
    pub highest: i64,
}

/// What a stream says.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Its entries, oldest first.
    pub entries: Vec<Entry>,
    /// All marks.
    pub marks: std::collections::HashSet<u64>,
}

impl Loaded {
    /// Whether the stream says that this is settled.
    #[must_use]
    pub fn contains(&self, mark: Mark) -> bool {
        self.marks.contains(&mark.0)
    }
}

/// The value of an entry: the highest offset, then the marks.
#[must_use]
pub fn encode(highest: i64, marks: &[Mark]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 * (marks.len() + 1));
    bytes.extend_from_slice(&highest.to_le_bytes());
    for mark in marks {
        bytes.extend_from_slice(&mark.0.to_le_bytes());
    }
    bytes
}

/// An entry for a partition's stream. The script of [`super::settled`] appends it.
#[derive(Debug)]
pub struct NewEntry {
    /// The stream's key.
    pub key: String,
    /// The highest offset and the marks, from [`encode`].
    pub value: Vec<u8>,
}

/// The streams of one installation.
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

    /// The key of a partition's stream. Each consumer group has streams of its own.
    #[must_use]
    pub fn key(&self, topic: &str, partition: i32) -> String {
        let group =
            if self.names.is_waiting(topic) { self.names.retry_group() } else { self.names.events_group().to_owned() };
        self.keys.marks(&group, topic, partition)
    }

    /// Reads a stream.
    ///
    /// # Errors
    /// An error of Redis.
    pub async fn load(&self, key: &str) -> redis::RedisResult<Loaded> {
        let mut connection = self.connection.clone();
        let reply: StreamRangeReply =
            redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut connection).await?;
        let mut loaded = Loaded::default();
        for entry in reply.ids {
            let Some(value) = entry.get::<Vec<u8>>("m") else { continue };
            let mut words = value.as_chunks::<8>().0.iter();
            let Some(highest) = words.next().map(|bytes| i64::from_le_bytes(*bytes)) else { continue };
            loaded.marks.extend(words.map(|bytes| u64::from_le_bytes(*bytes)));
            loaded.entries.push(Entry { id: entry.id, highest });
        }
        Ok(loaded)
    }

    /// Removes a stream whose marks are void.
    ///
    /// # Errors
    /// An error of Redis.
    pub async fn discard(&self, key: &str) -> redis::RedisResult<Loaded> {
        redis::cmd("DEL").arg(key).query_async::<()>(&mut self.connection.clone()).await?;
        Ok(Loaded::default())
    }

    /// Trims a stream up to the entry `passed`, which a commit has passed. A trim that fails only takes room.
    pub async fn trim(&self, key: &str, passed: &str) {
        let mut pipe = redis::pipe();
        pipe.cmd("XTRIM").arg(key).arg("MINID").arg(passed).ignore();
        // MINID keeps the entry itself, which the commit has passed as well.
        pipe.cmd("XDEL").arg(key).arg(passed).ignore();
        if let Err(error) = pipe.query_async::<()>(&mut self.connection.clone()).await {
            tracing::debug!(%error, key, "marks can't be trimmed");
        }
    }
}

/// Appends an entry without the script.
pub fn append(pipe: &mut redis::Pipeline, entry: &NewEntry) {
    pipe.cmd("XADD").arg(&entry.key).arg("*").arg("m").arg(&entry.value);
    pipe.cmd("EXPIRE").arg(&entry.key).arg(EXPIRE_S);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_delivery_in_one_record() {
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(Mark::of(id, 5, 100), Mark::of(id, 5, 100));
        assert_ne!(Mark::of(id, 5, 100), Mark::of(other, 5, 100));
        assert_ne!(Mark::of(id, 5, 100), Mark::of(id, 6, 100), "the same delivery, written again");
        assert_ne!(Mark::of(id, 5, 100), Mark::of(id, 5, 101), "a topic made anew");
    }
}
