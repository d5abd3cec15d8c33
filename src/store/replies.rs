//! The answers to requests that had an `Idempotency-Key`, so that the same request again gets the same answer.

use std::time::Duration;

use redis::AsyncCommands as _;
use redis::RedisResult;
use serde::{Deserialize, Serialize};

use super::Keys;
use super::connection::Connection;
use crate::secret::Secret;
use crate::secret::keyring::{Keyring, Sealed};

/// How long an answer is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(86_400);
/// How long a request may take in addition to `delivery.timeout`, which a test event may take. After a crash of the
/// server, the key can be used again after this time.
const PENDING_MARGIN: Duration = Duration::from_secs(120);
/// The place that a sealed answer is bound to.
const PLACE: &str = "idempotency-key";

/// What is known about a key.
#[derive(Debug)]
pub enum Known {
    /// Nothing: the request goes ahead, and its answer must be kept or its key be released.
    New,
    /// The same request is under way.
    Pending,
    /// The key belongs to another request.
    Other,
    /// The same request was answered, and the answer can't be opened: its sealing key is gone.
    Unopened,
    /// The same request was answered so.
    Answered(Answer),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, which is JSON or empty. It may have a generated secret.
    pub body: Secret,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<Sealed>,
    /// The body, if there is no key that seals it.
    #[serde(skip_serializing_if = "Option::is_none")]
    plain: Option<String>,
}

/// The answers in Redis.
#[derive(Clone)]
pub struct Replies {
    connection: Connection,
    keys: Keys,
    keyring: Keyring,
    pending_for: Duration,
}

impl Replies {
    /// Keeps answers with `connection`, sealed with `keyring`. A test event takes at most `delivery_timeout`.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys, keyring: Keyring, delivery_timeout: Duration) -> Self {
        Self { connection, keys, keyring, pending_for: PENDING_MARGIN + delivery_timeout }
    }

    /// Claims `id`, which stands for a client and its key, for a request with this fingerprint.
    ///
    /// # Errors
    /// Errors of Redis. The key may have been claimed.
    pub async fn claim(&self, id: &str, fingerprint: &str) -> RedisResult<Known> {
        let pending = Stored { fingerprint: fingerprint.to_owned(), status: None, sealed: None, plain: None };
        let key = self.keys.reply(id);
        let connection = &mut self.connection.clone();
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(json(&pending)).arg("NX").arg("PX").arg(self.pending_for.as_millis() as u64);
        let is_new: bool = set.query_async::<Option<String>>(connection).await?.is_some();
        if is_new {
            return Ok(Known::New);
        }
        let stored: Option<Vec<u8>> = connection.get(&key).await?;
        let stored = stored.and_then(|json| serde_json::from_slice::<Stored>(&json).ok());
        // A key that expired between the two is as good as one under way: the client tries again.
        let Some(Stored { fingerprint: of, status, sealed, plain }) = stored else { return Ok(Known::Pending) };
        if of != fingerprint {
            return Ok(Known::Other);
        }
        let body = match (sealed, plain) {
            (Some(sealed), _) => self.keyring.open(PLACE, &sealed).ok(),
            (None, plain) => plain.map(Secret::from),
        };
        Ok(match (status, body) {
            (Some(status), Some(body)) => Known::Answered(Answer { status, body }),
            (Some(_), None) => Known::Unopened,
            (None, _) => Known::Pending,
        })
    }

    /// Keeps the answer to a request that claimed `id`.
    ///
    /// # Errors
    /// Errors of Redis. The key stays claimed until it expires.
    pub async fn keep(&self, id: &str, fingerprint: &str, answer: &Answer) -> RedisResult<()> {
        let sealed = self.keyring.seal(PLACE, &answer.body);
        let plain = sealed.is_none().then(|| answer.body.expose().to_owned());
        let stored = Stored { fingerprint: fingerprint.to_owned(), status: Some(answer.status), sealed, plain };
        self.connection.clone().set_ex(self.keys.reply(id), json(&stored), KEPT_FOR.as_secs()).await
    }

    /// Releases `id`, because its request changed nothing.
    ///
    /// # Errors
    /// Errors of Redis. The key stays claimed until it expires.
    pub async fn release(&self, id: &str) -> RedisResult<()> {
        self.connection.clone().del(self.keys.reply(id)).await
    }
}

fn json(stored: &Stored) -> Vec<u8> {
    serde_json::to_vec(stored).expect("texts and numbers always serialize")
}
