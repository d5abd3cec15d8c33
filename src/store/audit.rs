//! The audit log: who changed what, when and from where. A stream in Redis that is bounded by its count.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::streams::StreamRangeReply;
use redis::{RedisError, RedisResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Keys;
use super::connection::Connection;
use super::log::EntryId;
use crate::clock::rfc3339;
use crate::metrics;

/// The field of a stream's entry that holds the JSON.
pub(super) const FIELD: &str = "entry";

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditAuthor)]
pub struct Author {
    /// The way in.
    pub via: Via,
    /// The name of the token, or for the command line the user name of the operating system. Null if the token was
    /// wrong.
    pub name: Option<String>,
    /// The address of the client; null for the command line.
    pub address: Option<String>,
}

/// The way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditVia)]
pub enum Via {
    /// A person who signed in to the settings page.
    Session,
    /// A program with a bearer token.
    Bearer,
    /// A command on a machine that reaches Redis.
    CommandLine,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditAction)]
pub enum Action {
    /// A webhook was added.
    WebhookAdded,
    /// A webhook was changed.
    WebhookChanged,
    /// A webhook was removed.
    WebhookRemoved,
    /// The secret of a webhook was replaced.
    SecretRotated,
    /// The secrets of all webhooks were sealed with the first key.
    SecretsResealed,
    /// The stored webhooks were declared complete.
    WebhooksDeclared,
    /// A test event was sent.
    TestSent,
    /// A delivery was sent again.
    Redelivered,
    /// A replay or a rewind was started.
    ReplayStarted,
    /// A replay or a rewind was stopped.
    ReplayStopped,
    /// Somebody signed in.
    SignedIn,
    /// A token was wrong, at the sign-in or as a bearer token.
    SignInFailed,
    /// Somebody signed out.
    SignedOut,
    /// All sessions were ended.
    SessionsRevoked,
}

/// What is written for one action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Who did it.
    pub who: Author,
    /// What was done.
    pub what: Action,
    /// The webhook, delivery or replay that it was done to.
    pub target: Option<String>,
    /// What was there before, with secrets masked.
    #[schema(value_type = Option<Object>)]
    pub old: Option<Value>,
    /// What is there now, with secrets masked.
    #[schema(value_type = Option<Object>)]
    pub new: Option<Value>,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub struct Entry {
    /// The id of the entry.
    pub id: String,
    /// The time of the action, in RFC 3339.
    pub at: String,
    /// What was written.
    #[serde(flatten)]
    pub record: Record,
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditPage)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<Entry>,
    /// The value of `before` for the next page; null on the last page.
    pub next: Option<String>,
}

/// Access to the log.
#[derive(Clone)]
pub struct AuditLog {
    connection: Connection,
    pub(super) key: String,
    pub(super) entries_max: usize,
    told: Arc<Mutex<Told>>,
}

/// What the log of this process says about missing entries.
#[derive(Default)]
struct Told {
    at: Option<Instant>,
    /// The entries that are missing and weren't told of.
    missing: u64,
}

/// The time between two log lines about missing entries.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Author {
    /// An author on the command line.
    #[must_use]
    pub fn command_line(user: String) -> Self {
        Self { via: Via::CommandLine, name: Some(user), address: None }
    }
}

impl Record {
    /// A record without a target and values.
    #[must_use]
    pub fn new(who: &Author, what: Action) -> Self {
        Self { who: who.clone(), what, target: None, old: None, new: None }
    }

    /// Sets the target.
    #[must_use]
    pub fn of(mut self, target: impl ToString) -> Self {
        self.target = Some(target.to_string());
        self
    }

    /// Sets the new values. `shown` must be what may be shown: its secrets are masked.
    #[must_use]
    pub fn to(mut self, shown: &impl Serialize) -> Self {
        self.new = serde_json::to_value(shown).ok();
        self
    }

    /// Sets the old values. `shown` must be what may be shown: its secrets are masked.
    #[must_use]
    pub fn from(mut self, shown: &impl Serialize) -> Self {
        self.old = serde_json::to_value(shown).ok();
        self
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a record always serializes")
    }
}

impl AuditLog {
    /// Uses `connection`. About `entries_max` entries are kept.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys, entries_max: usize) -> Self {
        Self { connection, key: keys.audit(), entries_max, told: Arc::default() }
    }

    /// Writes a record.
    ///
    /// # Errors
    /// Errors of Redis. The record may still have been written.
    pub async fn write(&self, record: &Record) -> RedisResult<()> {
        let written = redis::cmd("XADD")
            .arg(&self.key)
            .arg("MAXLEN")
            .arg("~")
            .arg(self.entries_max)
            .arg("*")
            .arg(FIELD)
            .arg(record.to_json())
            .query_async(&mut self.connection.clone())
            .await;
        if let Err(error) = &written {
            self.lacks(record.what, error);
        }
        written
    }

    /// Counts an entry that Redis didn't take, and logs it once a minute at most.
    pub(super) fn lacks(&self, what: Action, error: &RedisError) {
        metrics::AUDIT_MISSING.increment();
        let mut told = self.told.lock().expect("nothing panics while it holds this");
        told.missing += 1;
        if told.at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            tracing::warn!(%error, ?what, missing = told.missing, "the audit log doesn't take entries");
            *told = Told { at: Some(Instant::now()), missing: 0 };
        }
    }

    /// Writes the record of something that is done already. The action stands even if its record can't be written, for
    /// example because the process dies in between: the log line of the action, written before, is then all there is.
    pub async fn note(&self, record: &Record) {
        // A failure is logged and counted already.
        let _ = self.write(record).await;
    }

    /// A page of at most `limit` entries, newest first, that are older than `before`.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn page(&self, before: Option<EntryId>, limit: usize) -> RedisResult<Page> {
        let newest = before.map_or_else(|| "+".to_owned(), |before| format!("({before}"));
        let mut range = redis::cmd("XREVRANGE");
        range.arg(&self.key).arg(newest).arg("-").arg("COUNT").arg(limit + 1);
        let reply: StreamRangeReply = range.query_async(&mut self.connection.clone()).await?;
        let is_last = reply.ids.len() <= limit;
        // An entry that a newer version wrote may be unreadable. It is left out, and the page goes on after it.
        let readable = |entry: &redis::streams::StreamId| {
            let record = serde_json::from_slice(&entry.get::<Vec<u8>>(FIELD)?).ok()?;
            let at: EntryId = entry.id.parse().ok()?;
            Some(Entry { id: entry.id.clone(), at: rfc3339(at.at_ms()), record })
        };
        let page = &reply.ids[..reply.ids.len().min(limit)];
        let next = page.last().filter(|_| !is_last).map(|entry| entry.id.clone());
        Ok(Page { entries: page.iter().filter_map(readable).collect(), next })
    }
}
