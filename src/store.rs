//! What Redis holds: the webhooks, the delivery log, the marks of what is settled.

pub mod connection;
pub mod failing;
pub mod lease;
pub mod left_alone;
pub mod log;
pub mod marks;
pub mod repaired;
pub mod replaced;
pub mod reports;
pub mod snapshot;
pub mod success;
pub mod webhooks;

/// Whether Redis didn't take the question, and may take it later. Everything else would fail again: a key of another
/// type, a command that may not be used.
#[must_use]
pub fn is_away(error: &redis::RedisError) -> bool {
    use redis::{ErrorKind, ServerErrorKind};
    match error.kind() {
        ErrorKind::Io | ErrorKind::AuthenticationFailed | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        _ => {
            error.is_timeout()
                || error.is_io_error()
                || ["OOM", "MISCONF", "NOREPLICAS"].contains(&error.code().unwrap_or(""))
        }
    }
}

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
    pub fn repaired(&self) -> String {
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
