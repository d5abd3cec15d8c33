//! Endpoints that people, or other workers' probes, say are worth trying again: each worker hears of it within a moment.
//!
//! A stream that every worker reads on. What it holds matters for a second; losing it costs waiting for the circuit's
//! own time.

use redis::streams::StreamRangeReply;
use uuid::Uuid;

use super::Keys;
use super::connection::Connection;
use crate::webhook::WebhookId;

/// Entries that are kept: far more than are written between two looks of a worker.
const KEPT: usize = 1_000;
/// Entries that one look reads.
const READ_MAX: usize = 500;
/// A fresh worker looks back so far, in milliseconds: what is told while it starts must not be missed.
const LOOK_BACK_MS: u64 = 60_000;

/// What is said of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// A person asks for it to be tried now.
    TryNow,
    /// It answered with success.
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

/// Says it to all workers but `by`. No answer.
pub fn tell(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, recovery: Recovery, by: Uuid) {
    pipe.cmd("XADD").arg(keys.recoveries()).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
    pipe.arg("webhook")
        .arg(webhook.to_string())
        .arg("how")
        .arg(recovery.as_str())
        .arg("by")
        .arg(by.to_string())
        .ignore();
}

/// The same in a step with what Redis has of the endpoint: it is left alone no more, and doesn't fail any more. No
/// answer.
pub fn works(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, by: Uuid) {
    pipe.zrem(keys.left_alone(), webhook.to_string()).ignore();
    pipe.hdel(keys.failing(), webhook.to_string()).ignore();
    tell(pipe, keys, webhook, Recovery::Succeeded, by);
}

/// Reads on in the stream.
#[derive(Clone)]
pub struct Recoveries {
    connection: Connection,
    keys: Keys,
    /// Whose entries are no news here.
    pub me: Uuid,
    /// The last entry that was read.
    last: Option<String>,
}

impl Recoveries {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys, me: Uuid::new_v4(), last: None }
    }

    /// Says it to all other workers.
    ///
    /// # Errors
    /// Redis's.
    pub async fn put(&self, webhook: WebhookId, recovery: Recovery) -> redis::RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        match recovery {
            Recovery::TryNow => tell(&mut pipe, &self.keys, webhook, recovery, self.me),
            Recovery::Succeeded => works(&mut pipe, &self.keys, webhook, self.me),
        }
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// What others said since the last call, oldest first.
    ///
    /// # Errors
    /// Redis's.
    pub async fn read_new(&mut self) -> redis::RedisResult<Vec<(WebhookId, Recovery)>> {
        let after = match &self.last {
            Some(last) => last.clone(),
            None => self.beginning().await?,
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
                Some((webhook, Recovery::named(&entry.get::<String>("how")?)?))
            })
            .collect())
    }

    /// Where a fresh worker begins, by Redis's own clock.
    async fn beginning(&mut self) -> redis::RedisResult<String> {
        let (seconds, _micros): (u64, u64) = redis::cmd("TIME").query_async(&mut self.connection).await?;
        Ok(format!("{}-0", (seconds * 1_000).saturating_sub(LOOK_BACK_MS)))
    }
}
