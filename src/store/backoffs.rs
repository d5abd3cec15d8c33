//! Which endpoints are to be left alone for a while, so that a fresh worker starts informed. Losing it costs a few probes.

use std::time::Duration;

use redis::AsyncCommands as _;

use super::Keys;
use super::connection::Connection;
use crate::clock::{millis, now_ms};
use crate::webhook::WebhookId;

/// A sorted set: webhook id, by until when, Unix milliseconds. Those whose time is over go with the next that is put.
#[derive(Clone)]
pub struct Backoffs {
    connection: Connection,
    key: String,
    /// No worker of these settings asks for more: what is there beyond is cut to it.
    wait_max: Duration,
}

impl Backoffs {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys) -> Self {
        Self { connection, key: keys.left_alone(), wait_max: Duration::MAX }
    }

    /// No endpoint is left alone for longer than `wait_max`.
    #[must_use]
    pub fn up_to(self, wait_max: Duration) -> Self {
        Self { wait_max, ..self }
    }

    /// It is left alone for `wait` from now on.
    ///
    /// # Errors
    /// Redis's.
    pub async fn put(&self, webhook: WebhookId, wait: Duration) -> redis::RedisResult<()> {
        let now_ms = now_ms();
        let mut pipe = redis::pipe();
        pipe.zrembyscore(&self.key, "-inf", now_ms).ignore();
        pipe.zadd(&self.key, webhook.to_string(), now_ms.saturating_add(millis(wait))).ignore();
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// It is back.
    ///
    /// # Errors
    /// Redis's.
    pub async fn remove(&self, webhook: WebhookId) -> redis::RedisResult<()> {
        self.connection.clone().zrem(&self.key, webhook.to_string()).await
    }

    /// Those that are to be left alone, and for how long yet.
    ///
    /// # Errors
    /// Redis's.
    pub async fn all(&self) -> redis::RedisResult<Vec<(WebhookId, Duration)>> {
        let now_ms = now_ms();
        let found: Vec<(Vec<u8>, f64)> =
            self.connection.clone().zrangebyscore_withscores(&self.key, now_ms, "+inf").await?;
        let one = |(name, until_ms): (Vec<u8>, f64)| {
            let id = std::str::from_utf8(&name).ok()?.parse().ok()?;
            Some((id, left(until_ms, now_ms, self.wait_max)))
        };
        Ok(found.into_iter().filter_map(one).collect())
    }
}

/// How long yet. Scores are any number, be it infinite, and another's clock may be wrong.
fn left(until_ms: f64, now_ms: i64, wait_max: Duration) -> Duration {
    let left_ms = until_ms - now_ms as f64;
    // Infinite ones become the largest integer, and what isn't a number none.
    Duration::from_millis(left_ms.max(0.0) as u64).min(wait_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_another_worker_counts_as_the_longest_wait_at_most() {
        let hour = Duration::from_secs(3_600);
        let left = |until_ms| left(until_ms, 1_000_000, hour);
        assert_eq!(left(1_001_000.5), Duration::from_secs(1));
        assert_eq!(left(999_000.0), Duration::ZERO);
        for absurd in [f64::INFINITY, f64::MAX, 9_999_999_999_999.0] {
            assert_eq!(left(absurd), hour);
        }
        assert_eq!(left(f64::NAN), Duration::ZERO);
        assert_eq!(left(f64::NEG_INFINITY), Duration::ZERO);
    }
}
