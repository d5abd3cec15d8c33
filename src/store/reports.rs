//! What each worker says of itself, for the status page of any admin server.

use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;

use super::Keys;
use crate::delivery::now_ms;
use crate::report::Report;

/// A worker that hasn't said anything for so long is gone, in milliseconds.
const GONE_AFTER_MS: i64 = 5_000;

/// The reports of all workers: a hash of JSON by worker.
#[derive(Clone)]
pub struct Reports {
    connection: ConnectionManager,
    key: String,
    consuming: String,
}

impl Reports {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: ConnectionManager, keys: &Keys) -> Self {
        Self { connection, key: keys.reports(), consuming: keys.consuming() }
    }

    /// Replaces a worker's report. How many workers have partitions now.
    ///
    /// # Errors
    /// Redis's.
    pub async fn put(&self, report: &Report) -> redis::RedisResult<u32> {
        let json = serde_json::to_string(report).expect("strings and numbers always serialize");
        let mut pipe = redis::pipe();
        pipe.hset(&self.key, &report.worker, json).ignore();
        if report.partitions.is_empty() {
            pipe.zrem(&self.consuming, &report.worker).ignore();
        } else {
            pipe.zadd(&self.consuming, &report.worker, report.at_ms).ignore();
        }
        pipe.zrembyscore(&self.consuming, "-inf", report.at_ms - GONE_AFTER_MS).ignore();
        pipe.zcard(&self.consuming);
        let (workers,) = pipe.query_async(&mut self.connection.clone()).await?;
        Ok(workers)
    }

    /// A worker ends.
    ///
    /// # Errors
    /// Redis's; then the report grows old by itself.
    pub async fn remove(&self, worker: &str) -> redis::RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.hdel(&self.key, worker).ignore().zrem(&self.consuming, worker).ignore();
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// Those of workers that live, by name. What dead ones left is removed.
    ///
    /// # Errors
    /// Redis's.
    pub async fn all(&self) -> redis::RedisResult<Vec<Report>> {
        let found: Vec<(String, String)> = self.connection.clone().hgetall(&self.key).await?;
        let oldest = now_ms() - GONE_AFTER_MS;
        let mut reports = Vec::with_capacity(found.len());
        for (worker, json) in found {
            match serde_json::from_str::<Report>(&json) {
                Ok(report) if report.at_ms >= oldest => reports.push(report),
                _ => self.remove(&worker).await?,
            }
        }
        reports.sort_by(|one, other| one.worker.cmp(&other.worker));
        Ok(reports)
    }
}
