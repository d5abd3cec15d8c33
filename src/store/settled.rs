//! Recording of settled deliveries: one script writes the log entries, counts and marks of a batch.
//!
//! A batch whose answer timed out may have been executed, may be executed later, or may never be. It is sent again,
//! whole or in parts. Each line therefore has a number that grows within its process, and Redis keeps the highest
//! recorded number. The script skips lines up to that number. Marks form a set, so it does no harm to add them twice.
//!
//! The script tries each key separately. If a key has another type or an ACL forbids it, only the data for that key is
//! lost, and the answer names the key. For this reason only the key of the number is passed as one of the `KEYS` of the
//! script, by which a cluster finds the node: another forbidden key would then fail the whole call. If the server refuses
//! all writes, or a part of the keys is on another node, the whole batch fails and nothing is recorded.

mod script;

use std::time::Duration;

use std::collections::BTreeSet;

use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};
use uuid::Uuid;

use super::connection::Connection;
use super::marks::{self, NewEntry};
use super::missed::{FIELDS_MAX, MissedSpan};
use super::notices::SINCE;
use super::{Keys, is_away, latencies, log, refuses_writes, success};
use crate::config::{self, redis_servers::has_hash_tag};
use crate::webhook::WebhookId;
use script::{CODE, SCRIPT};

/// How many seconds Redis keeps the highest line number of a process.
const SEQUENCE_EXPIRE_S: i64 = 86_400;

/// What [`Recorded::refused`] names if an ACL forbids scripts.
pub const SCRIPTS: &str = "scripts (EVALSHA, EVAL)";

/// An attempt to record in the log and the counts.
#[derive(Debug)]
pub struct Line<'a> {
    /// The number of the line, which grows with each line of this process.
    pub number: u64,
    /// The webhook whose log gets the entry.
    pub webhook: WebhookId,
    /// The attempt and its payload, from [`log::Logged::packed`].
    pub packed: &'a [u8],
    /// Whether the attempt succeeded.
    pub succeeded: bool,
    /// How long the attempt took.
    pub duration: Duration,
    /// Whether the log is also trimmed by age.
    pub cut: bool,
}

/// A delivery that became a dead letter.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    /// The number of its settlement. Lines and deaths are numbered together.
    pub number: u64,
    /// The webhook of the delivery.
    pub webhook: WebhookId,
}

/// The attempts, deaths and marks that one script call records.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// The lines, in the order of their numbers.
    pub lines: Vec<Line<'a>>,
    /// The deaths, in the order of their numbers.
    pub died: Vec<Death>,
    /// The events that webhooks missed, in the order of their numbers.
    pub missed: Vec<MissedSpan<'a>>,
    /// The mark entries, one for each partition.
    pub marks: Vec<NewEntry>,
}

/// The result of recording a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The ids of the mark entries, in the order of [`Batch::marks`]. An id is None if Redis refused the entry.
    pub entries: Vec<Option<String>>,
    /// The keys for which a write was refused, each with the first error message.
    pub refused: Vec<(String, String)>,
}

/// Records batches in Redis.
pub struct Recorder {
    connection: Connection,
    keys: Keys,
    log: config::Log,
    sequence_key: String,
    /// Whether the keys may be in a cluster, whose nodes hand over keys one by one.
    may_move: bool,
}

impl Recorder {
    /// Uses `connection`. Each recorder numbers its lines separately.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys, log: config::Log) -> Self {
        let sequence_key = keys.settled_sequence(Uuid::now_v7());
        let may_move = has_hash_tag(keys.prefix());
        Self { connection, keys, log, sequence_key, may_move }
    }

    /// Replaces the connection. After a timeout, much unsent data may be queued on the old one.
    pub fn renew_connection(&self) {
        self.connection.renew();
    }

    /// Records a batch. If the batch is sent again after an error, Redis skips the lines that it has already recorded.
    ///
    /// # Errors
    /// Errors of Redis. The batch may still have been recorded.
    pub async fn record(&mut self, batch: &Batch<'_>, now_ms: i64) -> RedisResult<Recorded> {
        let answer = self.call(batch, now_ms).await;
        match answer {
            // An ACL forbids scripts. Recording without the protection against duplicates is better than never
            // recording.
            Err(error) if !is_away(&error) => {
                let mut recorded = self.record_without_script(batch, now_ms).await?;
                recorded.refused.insert(0, (SCRIPTS.to_owned(), error.to_string()));
                Ok(recorded)
            }
            answer => answer,
        }
    }

    async fn call(&mut self, batch: &Batch<'_>, now_ms: i64) -> RedisResult<Recorded> {
        let by_hash = self.arguments(redis::cmd("EVALSHA").arg(SCRIPT.get_hash()), batch, now_ms).to_owned();
        let answer = by_hash.query_async::<(Vec<String>, Vec<String>)>(&mut self.connection).await;
        drop(by_hash);
        let (entries, refused) = match answer {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut call = redis::cmd("EVAL");
                self.arguments(call.arg(CODE), batch, now_ms).query_async(&mut self.connection).await?
            }
            answer => answer?,
        };
        let mut refused = refused.into_iter();
        Ok(Recorded {
            entries: entries.into_iter().map(|id| Some(id).filter(|id| !id.is_empty())).collect(),
            refused: std::iter::from_fn(|| Some((refused.next()?, refused.next()?))).collect(),
        })
    }

    fn arguments<'c>(&self, call: &'c mut Cmd, batch: &Batch<'_>, now_ms: i64) -> &'c mut Cmd {
        let numbers = [
            batch.lines.last().map(|line| line.number),
            batch.died.last().map(|death| death.number),
            batch.missed.last().map(|span| span.number),
        ];
        let highest = numbers.into_iter().flatten().max().unwrap_or(0);
        let probed = if self.may_move { self.used(batch, now_ms) } else { BTreeSet::new() };
        // The node of a cluster judges by this key whether it has the slot. Without a key it would run the script in any case.
        call.arg(1)
            .arg(&self.sequence_key)
            .arg(&self.sequence_key)
            .arg(highest)
            .arg(SEQUENCE_EXPIRE_S)
            .arg(self.log.entries_max)
            .arg(log::expire_ms(&self.log))
            .arg(log::oldest_ms(&self.log, now_ms))
            .arg(success::key(&self.keys, now_ms))
            .arg(success::EXPIRE_S)
            .arg(marks::EXPIRE_S)
            .arg(batch.lines.len())
            .arg(batch.marks.len())
            .arg(self.keys.failing())
            .arg(batch.died.len())
            .arg(self.keys.died())
            .arg(now_ms)
            .arg(batch.missed.len())
            .arg(FIELDS_MAX)
            .arg(self.keys.webhooks())
            .arg(probed.len());
        for line in &batch.lines {
            call.arg(line.number)
                .arg(self.keys.log(line.webhook))
                .arg(success::field(line.webhook, line.succeeded))
                .arg(latencies::field(line.webhook, line.duration))
                .arg(u8::from(line.cut))
                .arg(line.packed);
        }
        for Death { number, webhook } in &batch.died {
            call.arg(*number).arg(webhook.to_string());
        }
        for MissedSpan { number, webhook, field, offsets, count } in &batch.missed {
            call.arg(*number).arg(self.keys.missed(*webhook)).arg(*field);
            call.arg(offsets.0).arg(offsets.1).arg(*count).arg(webhook.to_string());
        }
        for entry in &batch.marks {
            call.arg(&entry.key).arg(&entry.value);
        }
        for key in probed {
            call.arg(key);
        }
        call
    }

    /// The keys that a batch uses.
    pub fn used(&self, batch: &Batch<'_>, now_ms: i64) -> BTreeSet<String> {
        let sequence = self.sequence_key.clone();
        let keys =
            [sequence, success::key(&self.keys, now_ms), self.keys.failing(), self.keys.died(), self.keys.webhooks()];
        let logs = batch.lines.iter().map(|line| self.keys.log(line.webhook));
        let missed = batch.missed.iter().map(|span| self.keys.missed(span.webhook));
        let marks = batch.marks.iter().map(|entry| entry.key.clone());
        keys.into_iter().chain(logs).chain(missed).chain(marks).collect()
    }

    /// Records a batch with single commands. If the batch is sent again after an error, it may be recorded twice.
    async fn record_without_script(&mut self, batch: &Batch<'_>, now_ms: i64) -> RedisResult<Recorded> {
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        let mut keys = Vec::with_capacity(batch.lines.len() * 5 + batch.marks.len() * 2);
        let success_key = success::key(&self.keys, now_ms);
        for line in &batch.lines {
            let key = self.keys.log(line.webhook);
            log::append(&mut pipe, &self.keys, line.webhook, line.packed, &self.log);
            keys.push(key.clone());
            if line.cut {
                pipe.cmd("XTRIM").arg(&key).arg("MINID").arg("~").arg(log::oldest_ms(&self.log, now_ms));
                pipe.cmd("PEXPIRE").arg(&key).arg(log::expire_ms(&self.log));
                keys.extend([key.clone(), key]);
            }
            pipe.hincr(&success_key, success::field(line.webhook, line.succeeded), 1);
            pipe.hincr(&success_key, latencies::field(line.webhook, line.duration), 1);
            keys.extend([success_key.clone(), success_key.clone()]);
            if line.succeeded {
                pipe.hdel(self.keys.failing(), line.webhook.to_string());
                keys.push(self.keys.failing());
            }
        }
        if !batch.lines.is_empty() {
            pipe.cmd("EXPIRE").arg(&success_key).arg(success::EXPIRE_S);
            keys.push(success_key);
        }
        for Death { webhook, .. } in &batch.died {
            let id = webhook.to_string();
            pipe.hset_nx(self.keys.died(), format!("{id}{SINCE}"), now_ms).hincr(self.keys.died(), id, 1);
            keys.extend([self.keys.died(), self.keys.died()]);
        }
        for MissedSpan { webhook, field, offsets, count, .. } in &batch.missed {
            let key = self.keys.missed(*webhook);
            // Without the script a range can't be extended, so each batch has ranges of its own.
            let (field, value) = match field.starts_with('r') {
                true => (format!("{field}/{}", offsets.0), format!("{}:{}", offsets.0, offsets.1)),
                false => ((*field).to_owned(), now_ms.to_string()),
            };
            pipe.hset(&key, field, value).hset_nx(&key, "since", now_ms).hincr(&key, "count", *count);
            keys.extend([key.clone(), key.clone(), key]);
        }
        let marks_at = keys.len();
        for entry in &batch.marks {
            marks::append(&mut pipe, entry);
            keys.extend([entry.key.clone(), entry.key.clone()]);
        }
        let answers: Vec<Value> = pipe.query_async(&mut self.connection).await?;
        let mut recorded = Recorded::default();
        for (at, (key, answer)) in keys.into_iter().zip(answers).enumerate() {
            let answer = answer.extract_error();
            if at >= marks_at && (at - marks_at).is_multiple_of(2) {
                let id = answer.as_ref().ok().and_then(|id| redis::from_redis_value(id.clone()).ok());
                recorded.entries.push(id);
            }
            let Err(error) = answer else { continue };
            if refuses_writes(&error).is_some() || is_away(&error) {
                return Err(error);
            }
            if !recorded.refused.iter().any(|(refused, _)| *refused == key) {
                recorded.refused.push((key, error.to_string()));
            }
        }
        Ok(recorded)
    }
}
