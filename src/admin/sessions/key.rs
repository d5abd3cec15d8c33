//! The random key that signs sessions. All admin servers share it through Redis.

use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use redis::RedisResult;
use sha2::Sha256;
use tokio::sync::Mutex;

use super::stored_key::StoredKey;
use crate::secret::Secret;
use crate::secret::keyring::Keyring;
use crate::store::Keys;
use crate::store::connection::Connection;

/// How long an answer of Redis about sessions is used.
pub const FRESH_FOR: Duration = Duration::from_secs(1);
/// The number of random bytes in a key.
const KEY_LEN: usize = 32;

/// The key.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(Secret);

/// The key that Redis holds, read at most once every [`FRESH_FOR`].
pub struct SharedKey {
    stored: StoredKey,
    last: Mutex<Option<(Instant, RedisResult<Option<SessionKey>>)>>,
}

impl SessionKey {
    /// The key in a text. One that somebody set by hand may be short, and then be guessed.
    pub(super) fn usable(text: Secret) -> Option<Self> {
        Some(Self(text)).filter(|key| key.0.expose().len() >= 2 * KEY_LEN)
    }

    /// The text of the key.
    pub(super) fn text(&self) -> &Secret {
        &self.0
    }

    /// A new key.
    pub fn random() -> Self {
        Self(hex::encode(rand::random::<[u8; KEY_LEN]>()).into())
    }

    /// The HMAC of `parts` for one purpose. The parts can't run into each other.
    pub fn mac(&self, purpose: &str, parts: &[&str]) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.expose().as_bytes()).expect("HMAC takes a key of any length");
        for part in std::iter::once(&purpose).chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        hex::encode(mac.finalize().into_bytes())
    }
}

impl SharedKey {
    /// The key of the Redis behind `connection`, sealed with `keyring` if that has a key.
    pub fn new(connection: Connection, keys: &Keys, keyring: Keyring) -> Self {
        Self { stored: StoredKey::new(connection, keys, keyring), last: Mutex::default() }
    }

    /// The key; None if there is none, so that nobody is signed in.
    pub async fn current(&self) -> RedisResult<Option<SessionKey>> {
        // Requests that come at the same time wait for one answer. A failure is kept as well, so that they don't wait
        // for a Redis that is away one after another.
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH_FOR
        {
            return answer.clone();
        }
        let answer = self.stored.read().await.map(|text| self.stored.key_in(text.as_deref()));
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    /// The key, which is made if there is none that can be used. If several servers do this at once, all get the same
    /// key.
    pub async fn create(&self) -> RedisResult<SessionKey> {
        let key = self.stored.create().await?;
        *self.last.lock().await = Some((Instant::now(), Ok(Some(key.clone()))));
        Ok(key)
    }
}
