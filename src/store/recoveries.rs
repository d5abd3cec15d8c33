//! Recoveries: endpoints that answered with success, or that a person wants tried now. All workers learn of them.
//!
//! They are in a Redis stream that every worker reads several times a second. An entry is of no use after every worker
//! has read it. If the stream is lost, workers wait until the circuit becomes half open by itself.

use redis::streams::StreamRangeReply;
use uuid::Uuid;

use super::Keys;
use super::connection::Connection;
use crate::webhook::WebhookId;

/// The approximate number of entries that the stream keeps: far more than are written between two reads by a worker.
const ENTRIES_MAX: usize = 1_000;
/// The largest number of entries that one read returns.
const READ_MAX: usize = 500;
/// How far back a worker's first read goes, in milliseconds, so that the worker misses nothing while it starts.
const LOOK_BACK_MS: u64 = 60_000;
/// How far back successes count in that read. An older one is over: the endpoint may have begun to back off again since, as
/// the worker read when it started.
const LOOK_BACK_SUCCESS_MS: u64 = 5_000;

/// The kind of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// A person wants the endpoint to be tried now.
    TryNow,
    /// The endpoint answered with success.
    Succeeded,
}

impl Recovery {
    fn as_str(self) -> &'static str {
        match self {
            Self::TryNow => "asked",
            Self::Succeeded => "works",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::TryNow, Self::Succeeded].into_iter().find(|recovery| recovery.as_str() == name)
    }
}

/// Adds a command that announces a recovery to all workers except `by`. Its answer is ignored.
fn announce(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, recovery: Recovery, by: Uuid) {
    pipe.cmd("XADD").arg(keys.recoveries()).arg("MAXLEN").arg("~").arg(ENTRIES_MAX).arg("*");
    pipe.arg("webhook")
        .arg(webhook.to_string())
        .arg("how")
        .arg(recovery.as_str())
        .arg("by")
        .arg(by.to_string())
        .ignore();
}

/// Adds commands that announce a success to all workers except `by`, and remove the back-off and the failures of the
/// endpoint from Redis. Their answers are ignored.
pub fn announce_success(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, by: Uuid) {
    pipe.zrem(keys.backing_off(), webhook.to_string()).ignore();
    pipe.hdel(keys.failing(), webhook.to_string()).ignore();
    announce(pipe, keys, webhook, Recovery::Succeeded, by);
}

/// The stream of recoveries, with a reading position.
#[derive(Clone)]
pub struct Recoveries {
    connection: Connection,
    keys: Keys,
    /// The id under which this process announces recoveries. The process skips entries with this id when it reads.
    pub me: Uuid,
    /// The id of the last entry that was read. None before the first read.
    last: Option<String>,
}

impl Recoveries {
    /// Uses `connection`, with a new id for this process.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys, me: Uuid::new_v4(), last: None }
    }

    /// Announces a recovery to all other workers.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn put(&self, webhook: WebhookId, recovery: Recovery) -> redis::RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        match recovery {
            Recovery::TryNow => announce(&mut pipe, &self.keys, webhook, recovery, self.me),
            Recovery::Succeeded => announce_success(&mut pipe, &self.keys, webhook, self.me),
        }
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// The recoveries that other processes announced since the last call, oldest first.
    ///
    /// # Errors
    /// Errors of Redis. The next call reads the same entries again.
    pub async fn read_new(&mut self) -> redis::RedisResult<Vec<(WebhookId, Recovery)>> {
        let (after, success_from_ms) = match &self.last {
            Some(last) => (last.clone(), 0),
            None => {
                let now_ms = self.now_ms().await?;
                let from = format!("{}-0", now_ms.saturating_sub(LOOK_BACK_MS));
                (from, now_ms.saturating_sub(LOOK_BACK_SUCCESS_MS))
            }
        };
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(self.keys.recoveries())
            .arg(format!("({after}"))
            .arg("+")
            .arg("COUNT")
            .arg(READ_MAX)
            .query_async(&mut self.connection)
            .await?;
        self.last = Some(reply.ids.last().map_or(after, |entry| entry.id.clone()));
        let me = self.me.to_string();
        let entries = reply.ids.iter().filter(|entry| entry.get::<String>("by").is_none_or(|by| by != me));
        Ok(entries
            .filter_map(|entry| {
                let webhook = entry.get::<String>("webhook")?.parse().ok()?;
                let recovery = Recovery::named(&entry.get::<String>("how")?)?;
                let at_ms: u64 = entry.id.split('-').next()?.parse().ok()?;
                (recovery == Recovery::TryNow || at_ms >= success_from_ms).then_some((webhook, recovery))
            })
            .collect())
    }

    /// The clock of Redis, in Unix milliseconds.
    async fn now_ms(&mut self) -> redis::RedisResult<u64> {
        let (seconds, _micros): (u64, u64) = redis::cmd("TIME").query_async(&mut self.connection).await?;
        Ok(seconds.saturating_mul(1_000))
    }
}
