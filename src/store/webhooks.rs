//! The webhooks in Redis: each change raises a version, counts the webhooks and is announced, in one script.

mod scripts;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::{AsyncCommands as _, RedisResult, Script, Value};

use super::connection::Connection;
use super::reading::{Peek, Version};
use super::{Keys, StoreError, is_away, replaced};
use crate::delivery::DeliveryId;
use crate::event::rfc3339;
use crate::webhook::unsupported::Unsupported;
use crate::webhook::{Webhook, WebhookId};

/// The webhooks as they stand in Redis.
#[derive(Clone)]
pub struct WebhookStore {
    connection: Connection,
    keys: Keys,
}

/// All webhooks as they stand.
#[derive(Debug, Default)]
pub struct Listing {
    /// Oldest first.
    pub webhooks: Vec<Webhook>,
    /// Those that this version can't read.
    pub unsupported: Vec<Unsupported>,
    /// Entries that can't be a webhook of any version: their names aren't ids.
    pub foreign: Vec<String>,
    /// The names of all entries.
    pub names: HashSet<String>,
}

/// What the store looked like when a webhook was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Webhooks that should be there by now, this one among them.
    pub expected: u64,
    /// Webhooks that are there by now.
    pub found: u64,
    /// The store's version by now.
    pub version: u64,
    /// Whether nothing had ever been written here before.
    pub is_first: bool,
}

impl WebhookStore {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys }
    }

    /// Adds or replaces one. Workers see it by their next message.
    ///
    /// # Errors
    /// Redis's.
    pub async fn put(&self, webhook: &Webhook) -> RedisResult<Added> {
        let json = serde_json::to_string(webhook).expect("a webhook always serializes");
        let (expected, found, version, is_first) = self
            .script(&scripts::PUT)
            .arg(webhook.id.to_string())
            .arg(json)
            .invoke_async(&mut self.connection.clone())
            .await?;
        Ok(Added { expected, found, version, is_first })
    }

    /// Removes one; whether it was there. Nothing more is sent to it.
    ///
    /// # Errors
    /// Redis's.
    pub async fn remove(&self, id: WebhookId) -> RedisResult<bool> {
        self.script(&scripts::REMOVE)
            .key(self.keys.failing())
            .key(self.keys.left_alone())
            .key(self.keys.log(id))
            .arg(id.to_string())
            .invoke_async(&mut self.connection.clone())
            .await
    }

    /// Disables the webhook that was `sent_to`, with the reason that its owner is shown. False if it is gone, inactive
    /// already, or was changed since: what its owner has just mended isn't disabled for what was before.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn disable(&self, sent_to: &Webhook, reason: &str, now_ms: i64) -> Result<bool, StoreError> {
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
    /// [`StoreError`]
    pub async fn change<E>(
        &self,
        id: WebhookId,
        mut change: impl FnMut(&mut Webhook) -> Result<(), E>,
    ) -> Result<Option<Result<Webhook, E>>, StoreError> {
        loop {
            let before: Option<Vec<u8>> = self.connection.clone().hget(self.keys.webhooks(), id.to_string()).await?;
            let Some(before) = before else { return Ok(None) };
            let mut webhook = readable(id, &before)?;
            let (was_active, old_url) = (webhook.active, webhook.url.clone());
            if let Err(refused) = change(&mut webhook) {
                return Ok(Some(Err(refused)));
            }
            let begins_anew = (webhook.active && !was_active) || webhook.url != old_url;
            let after = serde_json::to_string(&webhook).expect("a webhook always serializes");
            let swapped: bool = self
                .script(&scripts::SWAP)
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
    pub async fn replace(&self, delivery: DeliveryId, at_ms: i64, age_max: Duration) -> RedisResult<()> {
        let mut pipe = redis::pipe();
        replaced::append(&mut pipe, &self.keys, delivery, at_ms, age_max);
        pipe.query_async::<()>(&mut self.connection.clone()).await?;
        self.script(&scripts::ANNOUNCE).invoke_async(&mut self.connection.clone()).await
    }

    /// Until when records of a delivery are replaced, Unix milliseconds.
    ///
    /// # Errors
    /// Redis's.
    pub async fn replaced(&self) -> RedisResult<HashMap<DeliveryId, i64>> {
        replaced::load(&mut self.connection.clone(), &self.keys).await
    }

    /// Declares that what stands here is right, for workers that saw `seen` or any version before it too. How many
    /// webhooks that are.
    ///
    /// # Errors
    /// Redis's.
    pub async fn declare(&self, seen: u64, now_ms: i64) -> RedisResult<u64> {
        let connection = &mut self.connection.clone();
        self.script(&scripts::DECLARE)
            .key(self.keys.webhooks_declared())
            .arg(seen)
            .arg(now_ms)
            .invoke_async(connection)
            .await
    }

    /// Makes the store one that was written to, if it never was.
    ///
    /// # Errors
    /// Redis's.
    pub async fn begin(&self) -> RedisResult<()> {
        self.script(&scripts::BEGIN).invoke_async(&mut self.connection.clone()).await
    }

    /// With the keys that every change needs.
    fn script(&self, script: &'static Script) -> redis::ScriptInvocation<'static> {
        let mut call = script.prepare_invoke();
        call.key(self.keys.webhooks()).key(self.keys.webhooks_version()).key(self.keys.webhooks_count());
        call
    }

    /// The one with that id.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn get(&self, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
        let json: Option<Vec<u8>> = self.connection.clone().hget(self.keys.webhooks(), id.to_string()).await?;
        json.map(|json| readable(id, &json)).transpose()
    }

    /// Those that can be read, oldest first, and the version they were at least at.
    ///
    /// # Errors
    /// Redis's.
    pub async fn all(&self) -> RedisResult<(u64, Vec<Webhook>)> {
        let (peek, listing) = self.read().await?;
        let version = if let Version::Number(version) = peek.version { version } else { 0 };
        Ok((version, listing.webhooks))
    }

    /// All of them, with those that can't be read.
    ///
    /// # Errors
    /// Redis's.
    pub async fn listing(&self) -> RedisResult<Listing> {
        Ok(listing(self.connection.clone().hgetall(self.keys.webhooks()).await?))
    }

    /// All of them, with what the store says of itself at that moment.
    ///
    /// # Errors
    /// Redis's.
    pub async fn read(&self) -> RedisResult<(Peek, Listing)> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        self.ask(&mut pipe).cmd("HGETALL").arg(self.keys.webhooks());
        let (mut peek, entries) = self.answers(&pipe).await?;
        let listing = listing(redis::from_redis_value(entries)?);
        peek.found = listing.names.len() as u64;
        Ok((peek, listing))
    }

    /// What the store says of itself, which tells whether there is anything new to read.
    ///
    /// # Errors
    /// Redis's.
    pub async fn peek(&self) -> RedisResult<Peek> {
        let mut pipe = redis::pipe();
        self.ask(&mut pipe).cmd("HLEN").arg(self.keys.webhooks());
        let (peek, found) = self.answers(&pipe).await?;
        Ok(Peek { found: redis::from_redis_value(found)?, ..peek })
    }

    fn ask<'a>(&self, pipe: &'a mut redis::Pipeline) -> &'a mut redis::Pipeline {
        pipe.ignore_errors();
        pipe.get(self.keys.webhooks_version()).get(self.keys.webhooks_count()).get(self.keys.webhooks_declared())
    }

    /// The answers to [`Self::ask`], and the one after them.
    async fn answers(&self, pipe: &redis::Pipeline) -> RedisResult<(Peek, Value)> {
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
            Err(error) => Version::Odd(error.to_string()),
        };
        // What these say only sharpens the judgement: a value that can't be read is one that isn't there.
        let optional = |value: Value| text(value).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let count = optional(count).and_then(|text| {
            let (count, at) = text.split_once(' ')?;
            Some((count.parse().ok()?, at.parse().ok()?))
        });
        let declared = optional(declared).and_then(|text| text.parse().ok());
        Ok((Peek { version, count, declared, found: 0 }, last.extract_error()?))
    }
}

fn readable(id: WebhookId, json: &[u8]) -> Result<Webhook, StoreError> {
    serde_json::from_slice(json)
        .map_err(|error| StoreError::Unreadable { id, problem: Unsupported::read(id, json, &error).problem })
}

fn listing(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Listing {
    let mut listing = Listing::default();
    for (name, json) in entries {
        let name = String::from_utf8_lossy(&name).into_owned();
        listing.names.insert(name.clone());
        let Ok(id) = name.parse::<WebhookId>() else {
            listing.foreign.push(name);
            continue;
        };
        match serde_json::from_slice::<Webhook>(&json) {
            // The entry's name is what deliveries and changes go by.
            Ok(webhook) => listing.webhooks.push(Webhook { id, ..webhook }),
            Err(error) => listing.unsupported.push(Unsupported::read(id, &json, &error)),
        }
    }
    listing.webhooks.sort_by(|a, b| (&a.created_at, a.id).cmp(&(&b.created_at, b.id)));
    listing.unsupported.sort_by_key(|unsupported| unsupported.id);
    listing
}
