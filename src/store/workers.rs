//! The reports of the workers, for the status page of every admin server.

use crate::store::connection::Connection;
use redis::AsyncCommands as _;

use super::{Keys, is_away};
use crate::clock::now_ms;
use crate::report::Report;

/// The age of a report after which its worker counts as gone, in milliseconds.
const GONE_AFTER_MS: i64 = 5_000;
/// How far the clock of another machine may be ahead, in milliseconds. A report with a later time is removed.
const AHEAD_MAX_MS: i64 = 60_000;
/// The largest number of workers among which the rate of a webhook is divided.
const WORKERS_MAX: u32 = 10_000;

/// The reports of all workers: a hash from the name of a worker to its report as JSON.
#[derive(Clone)]
pub struct Reports {
    connection: Connection,
    key: String,
    consuming: String,
}

impl Reports {
    /// Uses `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys) -> Self {
        Self { connection, key: keys.reports(), consuming: keys.consuming() }
    }

    /// Replaces the report of a worker. Returns the number of workers that have partitions, at least 1.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn put(&self, report: &Report) -> redis::RedisResult<u32> {
        let json = serde_json::to_string(report).expect("strings and numbers always serialize");
        let mut pipe = redis::pipe();
        // If one of the two keys cannot be written, the other one still is.
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
        // The answer for the report comes first, so its error is returned before the count is used.
        let mut answers = answers.into_iter();
        answers.next().transpose()?;
        let workers = answers.next().transpose()?.unwrap_or(1);
        Ok(u32::try_from(workers).unwrap_or(1).clamp(1, WORKERS_MAX))
    }

    /// Removes the report of a worker that ends.
    ///
    /// # Errors
    /// Errors of Redis. The report then becomes outdated by itself.
    pub async fn remove(&self, worker: &str) -> redis::RedisResult<()> {
        self.remove_entry(worker.as_bytes()).await
    }

    async fn remove_entry(&self, worker: &[u8]) -> redis::RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.hdel(&self.key, worker).ignore().zrem(&self.consuming, worker).ignore();
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// The reports of the workers that run, by name. Removes outdated reports from Redis, as far as Redis allows it.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn all(&self) -> redis::RedisResult<Vec<Report>> {
        let found: redis::RedisResult<Vec<(Vec<u8>, Vec<u8>)>> = self.connection.clone().hgetall(&self.key).await;
        let found = match found {
            Err(error) if !is_away(&error) => {
                tracing::warn!(%error, key = self.key, "the reports of the workers cannot be read");
                return Ok(Vec::new());
            }
            found => found?,
        };
        let now_ms = now_ms();
        let is_recent = |report: &Report| (now_ms - GONE_AFTER_MS..=now_ms + AHEAD_MAX_MS).contains(&report.at_ms);
        let mut reports = Vec::with_capacity(found.len());
        for (worker, json) in found {
            match serde_json::from_slice::<Report>(&json) {
                Ok(report) if is_recent(&report) => reports.push(report),
                // The worker is gone, or another program wrote the entry.
                // A Redis that refuses writes can still be read.
                _ => {
                    if let Err(error) = self.remove_entry(&worker).await {
                        tracing::debug!(%error, "an outdated report of a worker stays in Redis");
                    }
                }
            }
        }
        reports.sort_by(|left, right| left.worker.cmp(&right.worker));
        Ok(reports)
    }
}
