//! Seals the secrets of the stored webhooks again (`secrets rotate`).

use redis::{AsyncCommands as _, RedisResult};

use super::WebhookStore;
use super::listing::parsed;
use crate::store::StoreError;
use crate::webhook::WebhookId;

/// The result of sealing the secrets of a webhook again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resealed {
    /// At least one secret was sealed with the first key.
    Now,
    /// There was nothing to do: each secret is sealed with the first key, or there is none.
    Before,
    /// The webhook was removed in the meantime.
    Gone,
}

impl WebhookStore {
    /// The ids of all webhooks, including those that this version cannot read.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn ids(&self) -> RedisResult<Vec<WebhookId>> {
        let names: Vec<Vec<u8>> = self.connection.clone().hkeys(self.keys.webhooks()).await?;
        Ok(names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect())
    }

    /// Seals with the first key each secret of a webhook that is sealed with another key or is plain text. Nothing else
    /// of the webhook changes, so workers go on sending as before.
    ///
    /// # Errors
    /// [`StoreError`] if Redis fails, if this version cannot read the webhook, or if a secret cannot be opened.
    pub async fn reseal(&self, id: WebhookId) -> Result<Resealed, StoreError> {
        loop {
            let before: Option<Vec<u8>> = self.connection.clone().hget(self.keys.webhooks(), id.to_string()).await?;
            let Some(before) = before else { return Ok(Resealed::Gone) };
            let stored = parsed(id, &before)?;
            let resealed = self.sealing.reseal(&stored).map_err(|reason| StoreError::Unopened { id, reason })?;
            let Some(resealed) = resealed else { return Ok(Resealed::Before) };
            if self.swap(id, before, &resealed, false, None).await? {
                return Ok(Resealed::Now);
            }
        }
    }
}
