//! The webhooks in Redis. One script makes each change, increments the version, updates the count and announces the
//! change.

mod listing;
mod redelivered;
mod resealing;
mod scripts;

use redis::{AsyncCommands as _, RedisResult, Script, Value};

use super::connection::Connection;
use super::reading::{StoreSummary, Version};
use super::{Keys, StoreError, is_away};
use crate::clock::rfc3339;
use crate::config::{BadConfig, Config};
use crate::webhook::stored::{Sealing, StoredWebhook};
use crate::webhook::{Webhook, WebhookId};
pub use listing::Listing;
use listing::parsed;
pub use resealing::Resealed;

/// Access to the webhooks in Redis.
#[derive(Clone)]
pub struct WebhookStore {
    connection: Connection,
    keys: Keys,
    sealing: Sealing,
}

/// The state of the store after a webhook was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// The number of webhooks that there should be, including the added one.
    pub expected: u64,
    /// The number of webhooks that there are.
    pub found: u64,
    /// The version of the store.
    pub version: u64,
    /// Whether the store had no version before.
    pub is_first: bool,
}

impl WebhookStore {
    /// Uses `connection`, and seals secrets with `sealing`.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys, sealing: Sealing) -> Self {
        Self { connection, keys, sealing }
    }

    /// Uses `connection` with the prefix and the sealing keys of the settings.
    ///
    /// # Errors
    /// [`BadConfig`] if a sealing key or the file of the keys can't be read.
    pub fn open(config: &Config, connection: Connection) -> Result<Self, BadConfig> {
        Ok(Self::new(connection, Keys::new(&config.redis.prefix), Sealing::of(&config.secrets)?))
    }

    /// Adds or replaces a webhook, and announces it to the workers.
    ///
    /// # Errors
    /// [`StoreError`] if its secret can't be sealed, or if Redis fails. In the second case the webhook may still have
    /// been stored.
    pub async fn put(&self, webhook: &Webhook) -> Result<Added, StoreError> {
        let json = json(&self.sealing.seal(webhook, None)?);
        let (expected, found, version, is_first) = self
            .script(&scripts::PUT)
            .arg(webhook.id.to_string())
            .arg(json)
            .invoke_async(&mut self.connection.clone())
            .await?;
        Ok(Added { expected, found, version, is_first })
    }

    /// Removes a webhook and its log. Returns whether it existed. Workers drop its deliveries.
    ///
    /// # Errors
    /// Errors of Redis. The webhook may still have been removed.
    pub async fn remove(&self, id: WebhookId) -> RedisResult<bool> {
        self.script(&scripts::REMOVE)
            .key(self.keys.failing())
            .key(self.keys.backing_off())
            .key(self.keys.log(id))
            .arg(id.to_string())
            .invoke_async(&mut self.connection.clone())
            .await
    }

    /// Disables a webhook, with a reason that its owner sees. `sent_to` is the webhook as it was when the attempt was
    /// sent. Returns false if the webhook no longer exists, is already inactive, or was changed since: a webhook that
    /// its owner has just corrected must not be disabled because of earlier failures.
    ///
    /// # Errors
    /// [`StoreError`] if Redis fails or this version cannot read the webhook.
    pub async fn disable(&self, sent_to: &Webhook, reason: &str, now_ms: i64) -> Result<bool, StoreError> {
        let changed = self
            .change(sent_to.id, false, |webhook| {
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

    /// Changes a webhook. Returns None if it no longer exists, and the error of `change` if `change` refuses.
    ///
    /// `change` may be called several times: if someone else changes the webhook at the same time, this call starts
    /// again from the new state, and neither change is lost. If the webhook is enabled again or gets another URL, the
    /// same script removes its back-off and recorded failures. A failure right afterwards then does not count the
    /// earlier ones.
    ///
    /// With `replaces_secret`, the old secrets need not open, because `change` replaces or removes them. One that does
    /// not open is left out.
    ///
    /// # Errors
    /// [`StoreError`] if Redis fails, if this version cannot read the webhook, or if a secret cannot be opened or
    /// sealed.
    pub async fn change<E>(
        &self,
        id: WebhookId,
        replaces_secret: bool,
        mut change: impl FnMut(&mut Webhook) -> Result<(), E>,
    ) -> Result<Option<Result<Webhook, E>>, StoreError> {
        loop {
            let before: Option<Vec<u8>> = self.connection.clone().hget(self.keys.webhooks(), id.to_string()).await?;
            let Some(before) = before else { return Ok(None) };
            let stored = parsed(id, &before)?;
            let mut webhook = match self.opened(stored.clone()) {
                Err(_) if replaces_secret => self.sealing.open_what_can_be(stored.clone()),
                opened => opened?,
            };
            let (was_active, old_url) = (webhook.active, webhook.url.clone());
            if let Err(refused) = change(&mut webhook) {
                return Ok(Some(Err(refused)));
            }
            let starts_anew = (webhook.active && !was_active) || webhook.url != old_url;
            let after = self.sealing.seal(&webhook, Some(&stored))?;
            if self.swap(id, before, &after, starts_anew).await? {
                return Ok(Some(Ok(webhook)));
            }
        }
    }

    /// Replaces a webhook, unless somebody has changed it since it was read as `before`.
    async fn swap(
        &self,
        id: WebhookId,
        before: Vec<u8>,
        after: &StoredWebhook,
        starts_anew: bool,
    ) -> RedisResult<bool> {
        self.script(&scripts::SWAP)
            .key(self.keys.failing())
            .key(self.keys.backing_off())
            .arg(id.to_string())
            .arg(before)
            .arg(json(after))
            .arg(u8::from(starts_anew))
            .invoke_async(&mut self.connection.clone())
            .await
    }

    fn opened(&self, stored: StoredWebhook) -> Result<Webhook, StoreError> {
        let id = stored.id;
        self.sealing.open(stored).map_err(|reason| StoreError::Unopened { id, reason })
    }

    /// Declares the stored webhooks complete, and returns their number. The new version is higher than `seen`, so that
    /// workers accept the declaration that have last seen that version or an earlier one.
    ///
    /// # Errors
    /// Errors of Redis. The declaration may still have been made.
    pub async fn declare(&self, seen: u64, now_ms: i64) -> RedisResult<u64> {
        let connection = &mut self.connection.clone();
        self.script(&scripts::DECLARE)
            .key(self.keys.webhooks_declared())
            .arg(seen)
            .arg(now_ms)
            .invoke_async(connection)
            .await
    }

    /// Writes the first version of an empty store, if the store has no version.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn initialize(&self) -> RedisResult<()> {
        self.script(&scripts::INITIALIZE).invoke_async(&mut self.connection.clone()).await
    }

    /// Prepares a call of `script` with the keys that every change needs.
    fn script(&self, script: &'static Script) -> redis::ScriptInvocation<'static> {
        let mut call = script.prepare_invoke();
        call.key(self.keys.webhooks()).key(self.keys.webhooks_version()).key(self.keys.webhooks_count());
        call
    }

    /// The webhook with this id.
    ///
    /// # Errors
    /// [`StoreError`] if Redis fails or this version cannot read the webhook.
    pub async fn get(&self, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
        let json: Option<Vec<u8>> = self.connection.clone().hget(self.keys.webhooks(), id.to_string()).await?;
        json.map(|json| self.opened(parsed(id, &json)?)).transpose()
    }

    /// The version of the store (0 if it has none), and the webhooks that this version can read, oldest first.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn all(&self) -> RedisResult<(u64, Vec<Webhook>)> {
        let (peek, listing) = self.read().await?;
        let version = if let Version::Number(version) = peek.version { version } else { 0 };
        Ok((version, listing.webhooks))
    }

    /// All webhooks, including those that this version cannot read.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn listing(&self) -> RedisResult<Listing> {
        Ok(Listing::read(self.connection.clone().hgetall(self.keys.webhooks()).await?, &self.sealing))
    }

    /// All webhooks and the metadata of the store, read in one transaction.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn read(&self) -> RedisResult<(StoreSummary, Listing)> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        self.query_metadata(&mut pipe).cmd("HGETALL").arg(self.keys.webhooks());
        let (mut peek, entries) = self.answers(&pipe).await?;
        let listing = Listing::read(redis::from_redis_value(entries)?, &self.sealing);
        peek.found = listing.names.len() as u64;
        Ok((peek, listing))
    }

    /// The metadata of the store. If it is unchanged, there is nothing new to read.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn peek(&self) -> RedisResult<StoreSummary> {
        let mut pipe = redis::pipe();
        self.query_metadata(&mut pipe).cmd("HLEN").arg(self.keys.webhooks());
        let (peek, found) = self.answers(&pipe).await?;
        Ok(StoreSummary { found: redis::from_redis_value(found)?, ..peek })
    }

    /// Adds the commands that read the metadata.
    fn query_metadata<'a>(&self, pipe: &'a mut redis::Pipeline) -> &'a mut redis::Pipeline {
        pipe.ignore_errors();
        pipe.get(self.keys.webhooks_version()).get(self.keys.webhooks_count()).get(self.keys.webhooks_declared())
    }

    /// Runs `pipe`. Returns the metadata from the answers to [`Self::query_metadata`], and the last answer.
    async fn answers(&self, pipe: &redis::Pipeline) -> RedisResult<(StoreSummary, Value)> {
        let answers: Vec<Value> = pipe.query_async(&mut self.connection.clone()).await?;
        let [version, count, declared, last] = <[Value; 4]>::try_from(answers).map_err(|answers| {
            redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "four answers", format!("{answers:?}")))
        })?;
        let text = |value: Value| {
            value.extract_error().and_then(|value| Ok(redis::from_redis_value::<Option<Vec<u8>>>(value)?))
        };
        let version = match text(version) {
            Ok(value) => Version::of(value.as_deref()),
            Err(error) if is_away(&error) => return Err(error),
            Err(error) => Version::Invalid(error.to_string()),
        };
        // The count and the declaration are optional, so a value that cannot be read counts as absent.
        let optional = |value: Value| text(value).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let count = optional(count).and_then(|text| {
            let (count, at) = text.split_once(' ')?;
            Some((count.parse().ok()?, at.parse().ok()?))
        });
        let declared = optional(declared).and_then(|text| text.parse().ok());
        Ok((StoreSummary { version, count, declared, found: 0 }, last.extract_error()?))
    }
}

fn json(webhook: &StoredWebhook) -> String {
    serde_json::to_string(webhook).expect("a webhook always serializes")
}
