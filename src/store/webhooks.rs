//! The webhooks in Redis. One script makes each change, increments the version, updates the count and announces the
//! change.

mod audited;
mod listing;
mod redelivered;
mod resealing;
mod scripts;
mod summary;

use std::collections::HashMap;

use redis::{AsyncCommands as _, RedisResult, Script};

use super::audit::{Action, AuditLog, Author};
use super::connection::Connection;
use super::error::UNAUDITED;
use super::reading::Version;
use super::{Keys, StoreError};
use crate::clock::rfc3339;
use crate::config::{BadConfig, Config};
use crate::webhook::draft::Replaces;
use crate::webhook::stored::{Sealing, StoredWebhook};
use crate::webhook::{Webhook, WebhookId};
use audited::Audit;
pub use listing::Listing;
use listing::parsed;
pub use resealing::Resealed;

/// Access to the webhooks in Redis.
#[derive(Clone)]
pub struct WebhookStore {
    connection: Connection,
    keys: Keys,
    sealing: Sealing,
    audit: Option<Audit>,
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
        Self { connection, keys, sealing, audit: None }
    }

    /// Uses `connection` with the prefix and the sealing keys of the settings.
    ///
    /// # Errors
    /// [`BadConfig`] if a sealing key or the file of the keys can't be read.
    pub fn open(config: &Config, connection: Connection) -> Result<Self, BadConfig> {
        Ok(Self::new(connection, Keys::new(&config.redis.prefix), Sealing::of(&config.secrets)?))
    }

    /// The same store, whose changes are recorded in the audit log.
    #[must_use]
    pub fn audited(&self, log: &AuditLog, who: &Author, what: Action) -> Self {
        Self { audit: Some(Audit { log: log.clone(), who: who.clone(), what }), ..self.clone() }
    }

    /// Adds a webhook, and announces it to the workers. Returns None, and changes nothing, if there is one with its id.
    ///
    /// # Errors
    /// [`StoreError`] if its secret can't be sealed, or if Redis fails. In the second case the webhook may still have
    /// been stored.
    pub async fn add(&self, webhook: &Webhook) -> Result<Option<Added>, StoreError> {
        let added = self.store(&scripts::ADD, webhook).await?;
        Ok(Some(added).filter(|added| added.version > 0))
    }

    /// Adds or replaces a webhook, whatever is there, and announces it to the workers.
    ///
    /// # Errors
    /// The same as [`Self::add`].
    pub async fn put(&self, webhook: &Webhook) -> Result<Added, StoreError> {
        self.store(&scripts::PUT, webhook).await
    }

    async fn store(&self, script: &'static Script, webhook: &Webhook) -> Result<Added, StoreError> {
        let json = json(&self.sealing.seal(webhook, None)?);
        let mut call = self.script(script);
        call.arg(webhook.id.to_string()).arg(json);
        audited::append(self.audit.as_ref(), &self.keys, &mut call, webhook.id, None, Some(webhook));
        let (expected, found, version, is_first) = self.make(call).await?;
        Ok(Added { expected, found, version, is_first })
    }

    /// Removes a webhook and its log. Returns whether it existed. Workers drop its deliveries.
    ///
    /// # Errors
    /// Errors of Redis. The webhook may still have been removed.
    pub async fn remove(&self, id: WebhookId) -> RedisResult<bool> {
        // A change between this and the removal is not shown as the old value, but has its own entry in the audit log.
        let old = if self.audit.is_some() { self.get(id).await.ok().flatten() } else { None };
        let mut call = self.script(&scripts::REMOVE);
        call.key(self.keys.failing()).key(self.keys.backing_off()).key(self.keys.log(id)).key(self.keys.missed(id));
        call.arg(id.to_string());
        audited::append(self.audit.as_ref(), &self.keys, &mut call, id, old.as_ref(), None);
        self.make(call).await
    }

    /// Disables a webhook, with a reason that its owner sees. `sent_to` is the webhook as it was when the attempt was
    /// sent. Returns false if the webhook no longer exists, is already inactive, or was changed since: a webhook that
    /// its owner has just corrected must not be disabled because of earlier failures.
    ///
    /// # Errors
    /// [`StoreError`] if Redis fails or this version cannot read the webhook.
    pub async fn disable(&self, sent_to: &Webhook, reason: &str, now_ms: i64) -> Result<bool, StoreError> {
        let changed = self
            .change(sent_to.id, Replaces::default(), |webhook| {
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
    /// The secrets that `change` replaces or removes need not open. One of them that does not open is left out.
    ///
    /// # Errors
    /// [`StoreError`] if Redis fails, if this version cannot read the webhook, or if a secret cannot be opened or
    /// sealed.
    pub async fn change<E>(
        &self,
        id: WebhookId,
        replaces: Replaces,
        mut change: impl FnMut(&mut Webhook) -> Result<(), E>,
    ) -> Result<Option<Result<Webhook, E>>, StoreError> {
        loop {
            let before: Option<Vec<u8>> = self.connection.clone().hget(self.keys.webhooks(), id.to_string()).await?;
            let Some(before) = before else { return Ok(None) };
            let stored = parsed(id, &before)?;
            let opened = self.sealing.open_to_change(stored.clone(), replaces);
            let mut webhook = opened.map_err(|reason| StoreError::Unopened { id, reason })?;
            let old = webhook.clone();
            if let Err(refused) = change(&mut webhook) {
                return Ok(Some(Err(refused)));
            }
            let starts_anew = (webhook.active && !old.active) || webhook.url != old.url;
            let after = self.sealing.seal(&webhook, Some(&stored))?;
            if self.swap(id, before, &after, starts_anew, Some((&old, &webhook))).await? {
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
        audited: Option<(&Webhook, &Webhook)>,
    ) -> RedisResult<bool> {
        let mut call = self.script(&scripts::SWAP);
        call.key(self.keys.failing()).key(self.keys.backing_off()).arg(id.to_string());
        call.arg(before).arg(json(after)).arg(u8::from(starts_anew));
        let (old, new) = audited.unzip();
        audited::append(self.audit.as_ref(), &self.keys, &mut call, id, old, new);
        self.make(call).await
    }

    /// Makes a change. It is refused if its entry in the audit log is.
    async fn make<T: redis::FromRedisValue>(&self, call: redis::ScriptInvocation<'_>) -> RedisResult<T> {
        let made = call.invoke_async(&mut self.connection.clone()).await;
        if let (Some(Audit { log, what, .. }), Err(error)) = (&self.audit, &made)
            && error.code() == Some(UNAUDITED)
        {
            log.lacks(*what, error);
        }
        made
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

    /// How people call these webhooks: by their descriptions, or by their URLs. Those that are gone or that this version
    /// cannot read are left out. No secret is opened.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn names(&self, ids: impl IntoIterator<Item = WebhookId>) -> RedisResult<HashMap<WebhookId, String>> {
        let ids: Vec<WebhookId> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut get = redis::cmd("HMGET");
        get.arg(self.keys.webhooks()).arg(ids.iter().map(WebhookId::to_string).collect::<Vec<_>>());
        let found: Vec<Option<Vec<u8>>> = get.query_async(&mut self.connection.clone()).await?;
        let name = |(id, json): (WebhookId, Option<Vec<u8>>)| {
            let StoredWebhook { description, url, .. } = parsed(id, &json?).ok()?;
            Some((id, description.unwrap_or_else(|| url.to_string())))
        };
        Ok(ids.into_iter().zip(found).filter_map(name).collect())
    }

    /// All webhooks, including those that this version cannot read.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn listing(&self) -> RedisResult<Listing> {
        Ok(Listing::read(self.connection.clone().hgetall(self.keys.webhooks()).await?, &self.sealing))
    }
}

fn json(webhook: &StoredWebhook) -> String {
    serde_json::to_string(webhook).expect("a webhook always serializes")
}
