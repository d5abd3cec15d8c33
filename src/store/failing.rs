//! How long each webhook has failed without a success, shared by all workers.
//!
//! A webhook has an entry from its first failed attempt until an attempt succeeds. The batch that records the success
//! removes the entry. The time is the sum of the gaps between failed attempts, and each gap counts up to a bound, so
//! that idle days do not count. All times come from the clock of Redis, so the clocks of the workers do not matter.

use std::time::Duration;

use redis::Script;

use super::connection::Connection;

use super::Keys;
use crate::clock::millis;
use crate::webhook::WebhookId;

/// Updates the entry `since:last:counted`, in milliseconds. An entry that cannot be parsed, as an earlier version wrote
/// it, starts anew. If the webhook was deleted during the attempt, the script writes nothing, because no success would
/// ever remove the entry.
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
    /// The time of the first failure, in Unix milliseconds of the clock of Redis.
    pub since_ms: i64,
    /// How long the webhook has failed. Each gap between failures counts up to the bound.
    pub duration: Duration,
}

/// The webhooks that fail, in a Redis hash.
#[derive(Clone)]
pub struct Failing {
    connection: Connection,
    keys: Keys,
}

impl Failing {
    /// Uses `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys) -> Self {
        Self { connection, keys: keys.clone() }
    }

    /// Records a failed attempt. The time since the previous failed attempt counts up to `gap_max`.
    ///
    /// # Errors
    /// Errors of Redis. The failure may still have been recorded.
    pub async fn failed(&self, webhook: WebhookId, gap_max: Duration) -> redis::RedisResult<Failure> {
        let (since_ms, counted_ms): (i64, u64) = Script::new(FAILED)
            .key(self.keys.failing())
            .key(self.keys.webhooks())
            .arg(webhook.to_string())
            .arg(millis(gap_max))
            .invoke_async(&mut self.connection.clone())
            .await?;
        Ok(Failure { since_ms, duration: Duration::from_millis(counted_ms) })
    }

    /// Removes the recorded failures of a webhook.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn clear(&self, webhook: WebhookId) -> redis::RedisResult<()> {
        let mut pipe = redis::pipe();
        succeeded(&mut pipe, &self.keys, [webhook]);
        pipe.query_async(&mut self.connection.clone()).await
    }
}

/// Adds a command that removes the failures of `webhooks`, of which an attempt succeeded. Its answer is ignored.
pub fn succeeded(pipe: &mut redis::Pipeline, keys: &Keys, webhooks: impl IntoIterator<Item = WebhookId>) {
    let ids: Vec<String> = webhooks.into_iter().map(|webhook| webhook.to_string()).collect();
    if !ids.is_empty() {
        pipe.hdel(keys.failing(), ids).ignore();
    }
}
