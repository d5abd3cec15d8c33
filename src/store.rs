//! What Redis holds: the webhooks, the delivery log, the marks of what is settled.

pub mod backoffs;
pub mod connection;
mod error;
pub mod failing;
pub mod lease;
pub mod log;
pub mod loss;
pub mod marks;
pub mod reading;
pub mod recoveries;
pub mod replaced;
pub mod reports;
pub mod server;
pub mod settled;
pub mod snapshot;
pub mod success;
pub mod webhooks;

pub use error::{StoreError, is_away, refuses_writes};

/// Names of keys in Redis; every one begins with `redis.prefix`.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: std::sync::Arc<str>,
}

impl Keys {
    /// For `redis.prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// What every key begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Hash: webhook id → JSON.
    #[must_use]
    pub fn webhooks(&self) -> String {
        format!("{}webhooks", self.prefix)
    }

    /// Counter: raised by every change of a webhook. Also the channel that tells of it.
    #[must_use]
    pub fn webhooks_version(&self) -> String {
        format!("{}webhooks:version", self.prefix)
    }

    /// How many webhooks there are after the last change, and its version, as `count version`. Only versions of this
    /// program that know the key keep it: it speaks of the present version alone.
    #[must_use]
    pub fn webhooks_count(&self) -> String {
        format!("{}webhooks:count", self.prefix)
    }

    /// The version at which an operator last declared that what stands here is right.
    #[must_use]
    pub fn webhooks_declared(&self) -> String {
        format!("{}webhooks:declared", self.prefix)
    }

    /// Written again and again, to see whether writes are taken; goes by itself.
    #[must_use]
    pub fn probe(&self) -> String {
        format!("{}probe", self.prefix)
    }

    /// The number of the last settlement of a process that was recorded; goes a day after it.
    #[must_use]
    pub fn settled_sequence(&self, process: uuid::Uuid) -> String {
        format!("{}settled-seq:{process}", self.prefix)
    }

    /// Hash: webhook id → since when it fails without one success.
    #[must_use]
    pub fn failing(&self) -> String {
        format!("{}failing", self.prefix)
    }

    /// Sorted set: webhook id, by until when its endpoint is left alone.
    #[must_use]
    pub fn left_alone(&self) -> String {
        format!("{}left-alone", self.prefix)
    }

    /// Stream: a webhook's delivery log.
    #[must_use]
    pub fn log(&self, webhook: crate::webhook::WebhookId) -> String {
        format!("{}log:{webhook}", self.prefix)
    }

    /// Stream: deliveries that were sent again by hand.
    #[must_use]
    pub fn replaced(&self) -> String {
        format!("{}replaced", self.prefix)
    }

    /// Stream: endpoints that people or probes say are worth trying again.
    #[must_use]
    pub fn recoveries(&self) -> String {
        format!("{}repaired", self.prefix)
    }

    /// Hash: worker → what it says of itself.
    #[must_use]
    pub fn reports(&self) -> String {
        format!("{}workers", self.prefix)
    }

    /// Sorted set: workers that have partitions, by when they last said so.
    #[must_use]
    pub fn consuming(&self) -> String {
        format!("{}workers:consuming", self.prefix)
    }

    /// Hash: webhook id and `+` or `-` → attempts in that hour since 1970.
    #[must_use]
    pub fn success(&self, hour: i64) -> String {
        format!("{}success:{hour}", self.prefix)
    }

    /// Held by the one replay that runs.
    #[must_use]
    pub fn replay_lease(&self) -> String {
        format!("{}replay:lease", self.prefix)
    }

    /// Stream: what is settled of a partition above its commit.
    #[must_use]
    pub fn marks(&self, group: &str, topic: &str, partition: i32) -> String {
        format!("{}settled:{group}:{topic}:{partition}", self.prefix)
    }
}
