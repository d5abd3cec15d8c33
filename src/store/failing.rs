//! Which webhooks fail without one success, and for how long: shared by all workers.
//!
//! A webhook is here from a failed attempt on until an attempt succeeds; the batch that records a success takes it
//! away. So that idle days don't count, the time of failing is added up from one failed attempt to the next, and no
//! gap counts for more than a bound. All times are Redis's own, so the clocks of workers don't matter.

use std::time::Duration;

use redis::Script;

use super::connection::Connection;

use super::Keys;
use crate::clock::millis;
use crate::webhook::WebhookId;

/// Kept as `since:last:counted`, in milliseconds. Of a webhook that was deleted under the attempt nothing is kept:
/// nobody would take it away. What can't be read, as an earlier version wrote it, begins anew.
const FAILED: &str = r"
    if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {0, 0} end
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local since, counted = now, 0
    local known = redis.call('HGET', KEYS[1], ARGV[1])
    local began, last, before = string.match(known or '', '^(%d+):(%d+):(%d+)$')
    if began then
        since = tonumber(began)
        counted = tonumber(before) + math.min(math.max(now - tonumber(last), 0), tonumber(ARGV[2]))
    end
    redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f:%.0f:%.0f', since, now, counted))
    return {since, counted}";

/// The failures of a webhook since its last success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The first of them, Unix milliseconds by Redis's clock.
    pub since_ms: i64,
    /// For how long it fails, without the gaps beyond the bound.
    pub lasts: Duration,
}

/// The hash of webhooks that fail.
#[derive(Clone)]
pub struct Failing {
    connection: Connection,
    keys: Keys,
}

impl Failing {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys) -> Self {
        Self { connection, keys: keys.clone() }
    }

    /// An attempt failed. The time since the failed attempt before counts up to `gap_max`.
    ///
    /// # Errors
    /// Redis's.
    pub async fn failed(&self, webhook: WebhookId, gap_max: Duration) -> redis::RedisResult<Failure> {
        let (since_ms, counted_ms): (i64, u64) = Script::new(FAILED)
            .key(self.keys.failing())
            .key(self.keys.webhooks())
            .arg(webhook.to_string())
            .arg(millis(gap_max))
            .invoke_async(&mut self.connection.clone())
            .await?;
        Ok(Failure { since_ms, lasts: Duration::from_millis(counted_ms) })
    }

    /// What was before counts no more.
    ///
    /// # Errors
    /// Redis's.
    pub async fn clear(&self, webhook: WebhookId) -> redis::RedisResult<()> {
        let mut pipe = redis::pipe();
        succeeded(&mut pipe, &self.keys, [webhook]);
        pipe.query_async(&mut self.connection.clone()).await
    }
}

/// An attempt of each of `webhooks` succeeded. No answer.
pub fn succeeded(pipe: &mut redis::Pipeline, keys: &Keys, webhooks: impl IntoIterator<Item = WebhookId>) {
    let ids: Vec<String> = webhooks.into_iter().map(|webhook| webhook.to_string()).collect();
    if !ids.is_empty() {
        pipe.hdel(keys.failing(), ids).ignore();
    }
}
