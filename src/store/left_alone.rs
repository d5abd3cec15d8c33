//! Which endpoints are to be left alone for a while, so that a fresh worker starts informed. Losing it costs a few probes.

use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;

use super::Keys;
use crate::delivery::{millis, now_ms};
use crate::webhook::WebhookId;

/// A sorted set: webhook id, by until when, Unix milliseconds. Those whose time is over go with the next that is put.
#[derive(Clone)]
pub struct LeftAlone {
    connection: ConnectionManager,
    key: String,
}

impl LeftAlone {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: ConnectionManager, keys: &Keys) -> Self {
        Self { connection, key: keys.left_alone() }
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
        let found: Vec<(String, i64)> =
            self.connection.clone().zrangebyscore_withscores(&self.key, now_ms, "+inf").await?;
        let left = |until_ms: i64| Duration::from_millis(u64::try_from(until_ms - now_ms).unwrap_or(0));
        Ok(found.into_iter().filter_map(|(id, until_ms)| Some((id.parse().ok()?, left(until_ms)))).collect())
    }
}
