//! Since when webhooks fail without one success, shared by all workers.

use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;

use super::Keys;
use crate::webhook::WebhookId;

/// The hash of webhooks that fail: id → Unix milliseconds.
#[derive(Clone)]
pub struct Failing {
    connection: ConnectionManager,
    key: String,
}

impl Failing {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: ConnectionManager, keys: &Keys) -> Self {
        Self { connection, key: keys.failing() }
    }

    /// It failed at `now_ms`. Since when it does, as the first worker saw it.
    ///
    /// # Errors
    /// Redis's.
    pub async fn since(&self, webhook: WebhookId, now_ms: i64) -> redis::RedisResult<i64> {
        let field = webhook.to_string();
        let (since,): (i64,) = redis::pipe()
            .hset_nx(&self.key, &field, now_ms)
            .ignore()
            .hget(&self.key, &field)
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(since)
    }

    /// It succeeded, or was enabled anew: what was before counts no more.
    ///
    /// # Errors
    /// Redis's.
    pub async fn clear(&self, webhook: WebhookId) -> redis::RedisResult<()> {
        self.connection.clone().hdel(&self.key, webhook.to_string()).await
    }
}
