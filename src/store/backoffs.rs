//! The endpoints that are backing off, shared so that a worker that starts sends them no requests either.
//!
//! If this set is lost, workers that start send a few requests to endpoints that are still down.

use std::time::Duration;

use redis::AsyncCommands as _;

use super::Keys;
use super::connection::Connection;
use crate::clock::{millis, now_ms};
use crate::webhook::WebhookId;

/// A sorted set of webhook ids, scored by the end of the back-off in Unix milliseconds. [`Backoffs::put`] removes the
/// entries whose back-off is over.
#[derive(Clone)]
pub struct Backoffs {
    connection: Connection,
    key: String,
    /// The longest back-off that this configuration allows. Longer ones in Redis are shortened to it when they are
    /// read.
    wait_max: Duration,
}

impl Backoffs {
    /// Uses `connection`. The back-offs that are read have no upper bound.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys) -> Self {
        Self { connection, key: keys.backing_off(), wait_max: Duration::MAX }
    }

    /// Shortens every back-off that is read to at most `wait_max`.
    #[must_use]
    pub fn up_to(self, wait_max: Duration) -> Self {
        Self { wait_max, ..self }
    }

    /// Records that the endpoint of `webhook` is backing off for `wait` from now on.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn put(&self, webhook: WebhookId, wait: Duration) -> redis::RedisResult<()> {
        let now_ms = now_ms();
        let mut pipe = redis::pipe();
        pipe.zrembyscore(&self.key, "-inf", now_ms).ignore();
        pipe.zadd(&self.key, webhook.to_string(), now_ms.saturating_add(millis(wait))).ignore();
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// Records that the endpoint of `webhook` is no longer backing off.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn remove(&self, webhook: WebhookId) -> redis::RedisResult<()> {
        self.connection.clone().zrem(&self.key, webhook.to_string()).await
    }

    /// The webhooks whose endpoints are backing off, each with the remaining time.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn all(&self) -> redis::RedisResult<Vec<(WebhookId, Duration)>> {
        let now_ms = now_ms();
        let found: Vec<(Vec<u8>, f64)> =
            self.connection.clone().zrangebyscore_withscores(&self.key, now_ms, "+inf").await?;
        let backoff = |(name, until_ms): (Vec<u8>, f64)| {
            let id = std::str::from_utf8(&name).ok()?.parse().ok()?;
            Some((id, remaining(until_ms, now_ms, self.wait_max)))
        };
        Ok(found.into_iter().filter_map(backoff).collect())
    }
}

/// The remaining time of a back-off. The score may be any number, even infinite, and the clock of the worker that wrote
/// it may be wrong.
fn remaining(until_ms: f64, now_ms: i64, wait_max: Duration) -> Duration {
    let remaining_ms = until_ms - now_ms as f64;
    // The conversion saturates: infinity becomes the largest integer. NaN becomes 0, because `max` ignores it.
    Duration::from_millis(remaining_ms.max(0.0) as u64).min(wait_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_off_is_never_longer_than_the_maximum() {
        let hour = Duration::from_secs(3_600);
        let remaining = |until_ms| remaining(until_ms, 1_000_000, hour);
        assert_eq!(remaining(1_001_000.5), Duration::from_secs(1));
        assert_eq!(remaining(999_000.0), Duration::ZERO);
        for absurd in [f64::INFINITY, f64::MAX, 9_999_999_999_999.0] {
            assert_eq!(remaining(absurd), hour);
        }
        assert_eq!(remaining(f64::NAN), Duration::ZERO);
        assert_eq!(remaining(f64::NEG_INFINITY), Duration::ZERO);
    }
}
