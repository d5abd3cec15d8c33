//! Since when webhooks fail without one success, shared by all workers.

use crate::store::connection::Connection;
use redis::{AsyncCommands as _, Script};

use super::Keys;
use crate::webhook::WebhookId;

/// Of a webhook that was deleted under the attempt nothing is kept: nobody would take it away.
const SINCE: &str = r"
    if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return tonumber(ARGV[2]) end
    local now = tonumber(ARGV[2])
    local since = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '')
    if since and since <= now and since > now - tonumber(ARGV[3]) then return since end
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    return now";

/// Nothing has failed for longer than this: a time before it, or in the future, or that is no number, is as good as
/// none, and failing begins now. Ten years, in milliseconds.
const FAILING_MAX_MS: i64 = 10 * 365 * 86_400_000;

/// The hash of webhooks that fail: id → Unix milliseconds.
#[derive(Clone)]
pub struct Failing {
    connection: Connection,
    failing: String,
    webhooks: String,
}

impl Failing {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys) -> Self {
        Self { connection, failing: keys.failing(), webhooks: keys.webhooks() }
    }

    /// It failed at `now_ms`. Since when it does, as the first worker saw it; of a deleted webhook, since now.
    ///
    /// # Errors
    /// Redis's.
    pub async fn since(&self, webhook: WebhookId, now_ms: i64) -> redis::RedisResult<i64> {
        Script::new(SINCE)
            .key(&self.failing)
            .key(&self.webhooks)
            .arg(webhook.to_string())
            .arg(now_ms)
            .arg(FAILING_MAX_MS)
            .invoke_async(&mut self.connection.clone())
            .await
    }

    /// It succeeded, or was enabled anew: what was before counts no more.
    ///
    /// # Errors
    /// Redis's.
    pub async fn clear(&self, webhook: WebhookId) -> redis::RedisResult<()> {
        self.connection.clone().hdel(&self.failing, webhook.to_string()).await
    }
}
