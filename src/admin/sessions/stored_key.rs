//! The key of sessions as Redis holds it: sealed like the secrets of webhooks, or plain text without `secrets.keys`.

use std::sync::LazyLock;

use redis::{AsyncCommands as _, RedisResult, Script};

use super::key::SessionKey;
use crate::secret::Secret;
use crate::secret::keyring::{Keyring, Sealed, Unopened};
use crate::store::Keys;
use crate::store::connection::Connection;

/// The place that a sealed key is bound to, so that no other sealed text can be taken for it.
const PLACE: &str = "admin/session-key";
/// The most attempts to write a key while others write one.
const ATTEMPTS_MAX: usize = 5;

/// Replaces the key if it is still what was read. An empty text stands for none, and for a value of another type.
static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
local found = redis.pcall('GET', KEYS[1])
if (type(found) == 'string' and found or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1",
    )
});

/// Access to the stored key.
pub struct StoredKey {
    connection: Connection,
    name: String,
    keyring: Keyring,
}

/// The result of sealing the key again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resealed {
    /// It was sealed with the first of `secrets.keys`.
    Now,
    /// There was nothing to do, or there is no key.
    Before,
    /// It can't be opened. The next sign-in replaces it, which ends all sessions.
    Unopened(Unopened),
}

/// A stored text, read with a keyring.
enum Read {
    /// It is sealed with the first key, or nothing can be sealed.
    Current(Secret),
    /// It is plain text or sealed with another key, and can be sealed with the first one.
    Outdated(Secret),
    Unopened(Unopened),
}

impl StoredKey {
    /// The key of the Redis behind `connection`.
    pub fn new(connection: Connection, keys: &Keys, keyring: Keyring) -> Self {
        Self { connection, name: keys.session_key(), keyring }
    }

    /// The stored value. A value of another type is read as an empty one, which can't be used either.
    pub async fn read(&self) -> RedisResult<Option<Vec<u8>>> {
        match self.connection.clone().get(&self.name).await {
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Some(Vec::new())),
            answer => answer,
        }
    }

    /// The key in a stored value; None if there is none that can be used.
    pub fn key_in(&self, stored: Option<&[u8]>) -> Option<SessionKey> {
        match opened(&self.keyring, std::str::from_utf8(stored?).ok()?) {
            Read::Current(key) | Read::Outdated(key) => SessionKey::usable(key),
            Read::Unopened(_) => None,
        }
    }

    /// The stored key. A plain one is sealed, and one that can't be used is replaced.
    pub async fn create(&self) -> RedisResult<SessionKey> {
        for _ in 0..ATTEMPTS_MAX {
            let before = self.read().await?;
            let found = self.key_in(before.as_deref());
            let is_plain = before
                .as_deref()
                .and_then(|stored| std::str::from_utf8(stored).ok())
                .is_some_and(|text| sealed(text).is_none());
            if let Some(key) = &found
                && (!is_plain || self.keyring.is_empty())
            {
                return Ok(key.clone());
            }
            let key = found.clone().unwrap_or_else(SessionKey::random);
            if self.swap(before.as_deref(), &key).await? {
                if before.is_some() && found.is_none() {
                    tracing::warn!(
                        "the key of sessions could not be used and is replaced; earlier sessions have ended"
                    );
                }
                return Ok(key);
            }
        }
        Err((redis::ErrorKind::Client, "others keep changing the key of sessions", self.name.clone()).into())
    }

    /// Seals the key with the first of the keyring.
    pub async fn reseal(&self) -> RedisResult<Resealed> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(before) = self.read().await? else { return Ok(Resealed::Before) };
            let Ok(text) = std::str::from_utf8(&before) else { return Ok(Resealed::Before) };
            let key = match opened(&self.keyring, text) {
                Read::Current(_) => return Ok(Resealed::Before),
                Read::Unopened(why) => return Ok(Resealed::Unopened(why)),
                Read::Outdated(key) => key,
            };
            let Some(key) = SessionKey::usable(key) else { return Ok(Resealed::Before) };
            if self.swap(Some(&before), &key).await? {
                return Ok(Resealed::Now);
            }
        }
        Err((redis::ErrorKind::Client, "others keep changing the key of sessions", self.name.clone()).into())
    }

    async fn swap(&self, before: Option<&[u8]>, key: &SessionKey) -> RedisResult<bool> {
        let sealed = self.keyring.seal(PLACE, key.text());
        let sealed = sealed.map(|sealed| serde_json::to_string(&sealed).expect("a sealed text always serializes"));
        let text = sealed.as_deref().unwrap_or(key.text().expose());
        let mut call = SWAP.key(&self.name);
        call.arg(before.unwrap_or_default()).arg(text).invoke_async(&mut self.connection.clone()).await
    }
}

fn sealed(text: &str) -> Option<Sealed> {
    serde_json::from_str(text).ok()
}

fn opened(keyring: &Keyring, text: &str) -> Read {
    let Some(sealed) = sealed(text) else {
        let plain = Secret::from(text);
        return if keyring.is_empty() { Read::Current(plain) } else { Read::Outdated(plain) };
    };
    match keyring.open(PLACE, &sealed) {
        Ok(key) if keyring.sealing_id() == Some(&sealed.key) => Read::Current(key),
        Ok(key) => Read::Outdated(key),
        Err(why) => Read::Unopened(why),
    }
}
