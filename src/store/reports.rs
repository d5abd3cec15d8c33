//! What each worker says of itself, for the status page of any admin server.

use crate::store::connection::Connection;
use redis::AsyncCommands as _;

use super::{Keys, is_away};
use crate::clock::now_ms;
use crate::report::Report;

/// A worker that hasn't said anything for so long is gone, in milliseconds.
const GONE_AFTER_MS: i64 = 5_000;
/// Another machine's clock may be ahead of ours by so much; beyond that a time isn't one of a worker.
const AHEAD_MAX_MS: i64 = 60_000;
/// More workers than this don't share a webhook's rate.
const WORKERS_MAX: u32 = 10_000;

/// The reports of all workers: a hash of JSON by worker.
#[derive(Clone)]
pub struct Reports {
    connection: Connection,
    key: String,
    consuming: String,
}

impl Reports {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys) -> Self {
        Self { connection, key: keys.reports(), consuming: keys.consuming() }
    }

    /// Replaces a worker's report. How many workers have partitions now.
    ///
    /// # Errors
    /// Redis's.
    pub async fn put(&self, report: &Report) -> redis::RedisResult<u32> {
        let json = serde_json::to_string(report).expect("strings and numbers always serialize");
        let mut pipe = redis::pipe();
        // One of the two keys that can't be written costs what it is for.
        pipe.ignore_errors();
        pipe.hset(&self.key, &report.worker, json);
        if report.partitions.is_empty() {
            pipe.zrem(&self.consuming, &report.worker).ignore();
        } else {
            pipe.zadd(&self.consuming, &report.worker, report.at_ms).ignore();
        }
        pipe.zrembyscore(&self.consuming, "-inf", report.at_ms - GONE_AFTER_MS).ignore();
        pipe.zcount(&self.consuming, report.at_ms - GONE_AFTER_MS, report.at_ms + AHEAD_MAX_MS);
        let answers: Vec<redis::RedisResult<i64>> = pipe.query_async(&mut self.connection.clone()).await?;
        // The report itself first: what is refused of it is said before the count is used.
        let mut answers = answers.into_iter();
        answers.next().transpose()?;
        let workers = answers.next().transpose()?.unwrap_or(1);
        Ok(u32::try_from(workers).unwrap_or(1).clamp(1, WORKERS_MAX))
    }

    /// A worker ends.
    ///
    /// # Errors
    /// Redis's; then the report grows old by itself.
    pub async fn remove(&self, worker: &str) -> redis::RedisResult<()> {
        self.remove_entry(worker.as_bytes()).await
    }

    async fn remove_entry(&self, worker: &[u8]) -> redis::RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.hdel(&self.key, worker).ignore().zrem(&self.consuming, worker).ignore();
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// Those of workers that live, by name. What dead ones left is removed.
    ///
    /// # Errors
    /// Redis's.
    pub async fn all(&self) -> redis::RedisResult<Vec<Report>> {
        let found: redis::RedisResult<Vec<(Vec<u8>, Vec<u8>)>> = self.connection.clone().hgetall(&self.key).await;
        let found = match found {
            Err(error) if !is_away(&error) => {
                tracing::warn!(%error, key = self.key, "what workers report can't be read");
                return Ok(Vec::new());
            }
            found => found?,
        };
        let now_ms = now_ms();
        let lives = |report: &Report| (now_ms - GONE_AFTER_MS..=now_ms + AHEAD_MAX_MS).contains(&report.at_ms);
        let mut reports = Vec::with_capacity(found.len());
        for (worker, json) in found {
            match serde_json::from_slice::<Report>(&json) {
                Ok(report) if lives(&report) => reports.push(report),
                // Of a dead one, or of none.
                _ => self.remove_entry(&worker).await?,
            }
        }
        reports.sort_by(|one, other| one.worker.cmp(&other.worker));
        Ok(reports)
    }
}
