//! The data in Redis: webhooks, delivery logs, marks of settled deliveries, and what workers share with each other.
//!
//! `docs/reference.md`, section "Redis keys", lists every key, its type and its lifetime.

pub mod audit;
pub mod backoffs;
pub mod connection;
mod error;
pub mod failing;
pub(crate) mod latencies;
pub(crate) mod lease;
pub mod log;
pub(crate) mod loss;
pub mod marks;
pub mod missed;
pub(crate) mod notices;
pub(crate) mod primary;
pub(crate) mod reading;
pub(crate) mod recoveries;
pub(crate) mod replaced;
pub(crate) mod replies;
pub(crate) mod server;
pub mod settled;
pub(crate) mod snapshot;
pub mod success;
pub(crate) mod test_rate;
pub mod webhooks;
pub mod workers;

pub use error::{StoreError, is_away, refuses_writes, unaudited};

/// The names of the keys in Redis. Each begins with `redis.prefix`.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: std::sync::Arc<str>,
}

impl Keys {
    /// Creates the names for a value of `redis.prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The prefix of every key.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Hash: webhook id → the webhook as JSON.
    #[must_use]
    pub fn webhooks(&self) -> String {
        format!("{}webhooks", self.prefix)
    }

    /// Counter that every change of a webhook increments. The pub/sub channel that announces changes has the same name.
    #[must_use]
    pub fn webhooks_version(&self) -> String {
        format!("{}webhooks:version", self.prefix)
    }

    /// The number of webhooks after a change, and the version of that change, as `count version`. Older versions of
    /// this program do not update it, so the count is valid only if its version is the current one.
    #[must_use]
    pub fn webhooks_count(&self) -> String {
        format!("{}webhooks:count", self.prefix)
    }

    /// The version at which an operator last declared the stored webhooks complete (`webhooks init`).
    #[must_use]
    pub fn webhooks_declared(&self) -> String {
        format!("{}webhooks:declared", self.prefix)
    }

    /// String: the answer to a request with an `Idempotency-Key`. `id` is the hash of the client and its key.
    #[must_use]
    pub fn reply(&self, id: &str) -> String {
        format!("{}reply:{id}", self.prefix)
    }

    /// String that workers write regularly to test whether Redis accepts writes. It expires.
    #[must_use]
    pub fn probe(&self) -> String {
        format!("{}probe", self.prefix)
    }

    /// The number of the last attempt that the process recorded. It expires one day after its last write.
    #[must_use]
    pub fn settled_sequence(&self, process: uuid::Uuid) -> String {
        format!("{}settled-seq:{process}", self.prefix)
    }

    /// Hash: webhook id → since when, and for how long, the webhook has failed without a success.
    #[must_use]
    pub fn failing(&self) -> String {
        format!("{}failing", self.prefix)
    }

    /// Hash: webhook id → the number of its dead letters that no operational event told of yet, and, with `:since` after
    /// the id, when the first of them died.
    #[must_use]
    pub fn died(&self) -> String {
        format!("{}died", self.prefix)
    }

    /// Hash: what a webhook missed while it was inactive, as positions in the events topic.
    #[must_use]
    pub fn missed(&self, webhook: crate::webhook::WebhookId) -> String {
        format!("{}missed:{webhook}", self.prefix)
    }

    /// Hash: webhook id → what operational events told of it, as JSON.
    #[must_use]
    pub fn notices(&self) -> String {
        format!("{}notices", self.prefix)
    }

    /// The lease of the worker that writes operational events.
    #[must_use]
    pub fn notices_lease(&self) -> String {
        format!("{}notices:lease", self.prefix)
    }

    /// Sorted set: webhook id, scored by the time until which its endpoint is backing off, in Unix milliseconds.
    #[must_use]
    pub fn backing_off(&self) -> String {
        format!("{}left-alone", self.prefix)
    }

    /// Counter of the test events that went to a host within the current minute. It expires.
    #[must_use]
    pub fn tests_to(&self, host: &str) -> String {
        format!("{}tests-to:{host}", self.prefix)
    }

    /// Counter of the test events that a webhook got within the current minute. It expires.
    #[must_use]
    pub fn tests(&self, webhook: crate::webhook::WebhookId) -> String {
        format!("{}tests:{webhook}", self.prefix)
    }

    /// Stream: the delivery log of a webhook.
    #[must_use]
    pub fn log(&self, webhook: crate::webhook::WebhookId) -> String {
        format!("{}log:{webhook}", self.prefix)
    }

    /// Stream: redeliveries, and the time at which each was requested.
    #[must_use]
    pub fn replaced(&self) -> String {
        format!("{}replaced", self.prefix)
    }

    /// Stream: recoveries of endpoints, for all workers.
    #[must_use]
    pub fn recoveries(&self) -> String {
        format!("{}repaired", self.prefix)
    }

    /// Hash: worker → its latest report as JSON.
    #[must_use]
    pub fn reports(&self) -> String {
        format!("{}workers", self.prefix)
    }

    /// Sorted set: workers that have partitions, scored by the time of their latest report, in Unix milliseconds.
    #[must_use]
    pub fn consuming(&self) -> String {
        format!("{}workers:consuming", self.prefix)
    }

    /// Hash: webhook id and `+` or `-` → the number of attempts that succeeded or failed in that hour since 1970.
    #[must_use]
    pub fn success(&self, hour: i64) -> String {
        format!("{}success:{hour}", self.prefix)
    }

    /// Stream: the audit log.
    #[must_use]
    pub fn audit(&self) -> String {
        format!("{}audit", self.prefix)
    }

    /// The random key that signs the sessions of the settings page. Without it, nobody is signed in.
    #[must_use]
    pub fn session_key(&self) -> String {
        format!("{}admin:key", self.prefix)
    }

    /// Exists while a session that somebody signed out of would otherwise be valid.
    #[must_use]
    pub fn revoked_session(&self, session: uuid::Uuid) -> String {
        format!("{}admin:revoked:{session}", self.prefix)
    }

    /// The lease of the replay that is running.
    #[must_use]
    pub fn replay_lease(&self) -> String {
        format!("{}replay:lease", self.prefix)
    }

    /// Stream: marks of the deliveries of a partition that are settled above its committed offset.
    #[must_use]
    pub fn marks(&self, group: &str, topic: &str, partition: i32) -> String {
        format!("{}settled:{group}:{topic}:{partition}", self.prefix)
    }
}
