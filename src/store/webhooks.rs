//! The webhooks in Redis: each change raises a version and is announced, in one transaction.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{AsyncCommands as _, Script};

use super::{Keys, replaced};
use crate::delivery::DeliveryId;
use crate::event::rfc3339;
use crate::webhook::{Webhook, WebhookId};

/// The webhooks as they stand in Redis.
#[derive(Clone)]
pub struct WebhookStore {
    connection: ConnectionManager,
    keys: Keys,
}

impl WebhookStore {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: ConnectionManager, keys: Keys) -> Self {
        Self { connection, keys }
    }

    /// Adds or replaces one. Workers see it by their next message.
    ///
    /// # Errors
    /// Redis's.
    pub async fn put(&self, webhook: &Webhook) -> redis::RedisResult<()> {
        let json = serde_json::to_string(webhook).expect("a webhook always serializes");
        let mut pipe = redis::pipe();
        pipe.atomic().hset(self.keys.webhooks(), webhook.id.to_string(), json).ignore();
        self.announce(pipe).await
    }

    /// Removes one; whether it was there. Nothing more is sent to it.
    ///
    /// # Errors
    /// Redis's.
    pub async fn remove(&self, id: WebhookId) -> redis::RedisResult<bool> {
        if self.get(id).await?.is_none() {
            return Ok(false);
        }
        let mut pipe = redis::pipe();
        pipe.atomic()
            .hdel(self.keys.webhooks(), id.to_string())
            .ignore()
            .del(self.keys.log(id))
            .ignore()
            .hdel(self.keys.failing(), id.to_string())
            .ignore()
            .zrem(self.keys.left_alone(), id.to_string())
            .ignore();
        self.announce(pipe).await?;
        Ok(true)
    }

    /// Disables the webhook that was `sent_to`, with the reason that its owner is shown. False if it is gone, inactive
    /// already, or was changed since: what its owner has just mended isn't disabled for what was before.
    ///
    /// # Errors
    /// Redis's.
    pub async fn disable(&self, sent_to: &Webhook, reason: &str, now_ms: i64) -> redis::RedisResult<bool> {
        let changed = self
            .change(sent_to.id, |webhook| {
                if !webhook.active || webhook.updated_at != sent_to.updated_at {
                    return Err(());
                }
                webhook.active = false;
                webhook.disabled_reason = Some(reason.to_owned());
                webhook.updated_at = rfc3339(now_ms);
                Ok(())
            })
            .await?;
        Ok(matches!(changed, Some(Ok(_))))
    }

    /// Changes one; None if it is gone. `change` may refuse, and may be asked again: someone else may change the
    /// webhook at the same moment, and neither change is lost. Enabled again, or with another URL, it begins anew: what is
    /// kept of its failures goes with the same step, so that a failure right after it doesn't count what was before.
    ///
    /// # Errors
    /// Redis's.
    pub async fn change<E>(
        &self,
        id: WebhookId,
        mut change: impl FnMut(&mut Webhook) -> Result<(), E>,
    ) -> redis::RedisResult<Option<Result<Webhook, E>>> {
        loop {
            let key = self.keys.webhooks();
            let before: Option<String> = self.connection.clone().hget(&key, id.to_string()).await?;
            let Some(mut webhook) = before.as_deref().and_then(read) else { return Ok(None) };
            let (was_active, old_url) = (webhook.active, webhook.url.clone());
            if let Err(refused) = change(&mut webhook) {
                return Ok(Some(Err(refused)));
            }
            let begins_anew = (webhook.active && !was_active) || webhook.url != old_url;
            let after = serde_json::to_string(&webhook).expect("a webhook always serializes");
            let swapped: bool = Script::new(SWAP)
                .key(key)
                .key(self.keys.webhooks_version())
                .key(self.keys.failing())
                .key(self.keys.left_alone())
                .arg(id.to_string())
                .arg(before)
                .arg(after)
                .arg(u8::from(begins_anew))
                .invoke_async(&mut self.connection.clone())
                .await?;
            if swapped {
                return Ok(Some(Ok(webhook)));
            }
        }
    }

    /// A delivery was sent again at `at_ms`: what of it still waits is replaced by that. Workers know it at once.
    ///
    /// # Errors
    /// Redis's.
    pub async fn replace(&self, delivery: DeliveryId, at_ms: i64, age_max: Duration) -> redis::RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        replaced::append(&mut pipe, &self.keys, delivery, at_ms, age_max);
        self.announce(pipe).await
    }

    /// Until when records of a delivery are replaced, Unix milliseconds.
    ///
    /// # Errors
    /// Redis's.
    pub async fn replaced(&self) -> redis::RedisResult<HashMap<DeliveryId, i64>> {
        replaced::load(&mut self.connection.clone(), &self.keys).await
    }

    async fn announce(&self, mut pipe: redis::Pipeline) -> redis::RedisResult<()> {
        let version = self.keys.webhooks_version();
        pipe.incr(&version, 1).ignore().publish(&version, "changed").ignore();
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// The one with that id.
    ///
    /// # Errors
    /// Redis's.
    pub async fn get(&self, id: WebhookId) -> redis::RedisResult<Option<Webhook>> {
        let json: Option<String> = self.connection.clone().hget(self.keys.webhooks(), id.to_string()).await?;
        Ok(json.and_then(|json| read(&json)))
    }

    /// All of them, oldest first, and the version they were at least at.
    ///
    /// # Errors
    /// Redis's.
    pub async fn all(&self) -> redis::RedisResult<(u64, Vec<Webhook>)> {
        // The version first: a change in between is read again, never missed.
        let version = self.version().await?;
        let values: Vec<String> = self.connection.clone().hvals(self.keys.webhooks()).await?;
        let mut webhooks: Vec<Webhook> = values.iter().filter_map(|json| read(json)).collect();
        webhooks.sort_by(|a, b| (&a.created_at, a.id).cmp(&(&b.created_at, b.id)));
        Ok((version, webhooks))
    }

    /// Raised by every change.
    ///
    /// # Errors
    /// Redis's.
    pub async fn version(&self) -> redis::RedisResult<u64> {
        let version: Option<u64> = self.connection.clone().get(self.keys.webhooks_version()).await?;
        Ok(version.unwrap_or(0))
    }
}

/// Replaces a webhook if it still is what it was, and announces the change.
const SWAP: &str = "
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] == '1' then
    redis.call('HDEL', KEYS[3], ARGV[1])
    redis.call('ZREM', KEYS[4], ARGV[1])
end
redis.call('INCR', KEYS[2])
redis.call('PUBLISH', KEYS[2], 'changed')
return 1
";

fn read(json: &str) -> Option<Webhook> {
    serde_json::from_str(json)
        .inspect_err(|error| tracing::error!(%error, "a webhook in redis can't be read and gets nothing"))
        .ok()
}
