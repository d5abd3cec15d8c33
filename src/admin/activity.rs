//! The attempts of a webhook by hour: how many succeeded and failed, and how long they took.

use super::state::Admin;
use crate::clock::now_ms;
use crate::store::latencies::{self, Histogram};
use crate::store::success::{self, Counts, HOUR_MS};
use crate::webhook::WebhookId;

/// The attempts of one hour.
#[derive(Debug, Clone)]
pub struct Hour {
    /// The beginning of the hour, in Unix milliseconds.
    pub from_ms: i64,
    /// The outcomes.
    pub counts: Counts,
    /// How long they took.
    pub latencies: Histogram,
}

impl Admin {
    /// The attempts in each hour of the last 7 days, oldest first. The last hour is not over yet.
    ///
    /// # Errors
    /// Errors of Redis if it is unavailable.
    pub async fn activity(&self, webhook: WebhookId) -> redis::RedisResult<Vec<Hour>> {
        let now = now_ms();
        let redis = &mut self.redis.clone();
        let counts = success::by_hour(redis, &self.keys, &[webhook], success::WEEK, now).await?;
        let latencies = latencies::by_hour(redis, &self.keys, webhook, success::WEEK, now).await?;
        let first_hour = now / HOUR_MS + 1 - success::WEEK as i64;
        let hour = |(number, (counts, latencies))| Hour { from_ms: (first_hour + number) * HOUR_MS, counts, latencies };
        Ok((0..).zip(counts.into_iter().flatten().zip(latencies)).map(hour).collect())
    }
}
