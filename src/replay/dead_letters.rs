//! Replay of dead letters.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, OwnedHeaders};

use super::choice::Choice;
use super::copying::{Selector, copy};
use super::letter::Letter;
use super::origin::{ReplayOrigin, ReplaySource};
use super::replay_marks::ReplayMarks;
use super::scan::{self, Scan, Start};
use super::summary::{Group, Summary};
use super::writer::Outgoing;
use super::{Manner, Progress, Watch};
use crate::clock::now_ms;
use crate::config::Config;
use crate::kafka::headers;
use crate::record::header_names as names;
use crate::record::{self, LastError};
use crate::topics::Names;
use crate::webhook::WebhookId;

/// Replays the dead letters that `choice` selects and whose webhooks are in `active`. Blocks the calling thread.
///
/// A crash at any point is safe, because the record in the replay topic also shows that the dead letter was replayed: a
/// dead letter that was written there is never written again, and the next run with the same choice finds the others.
///
/// # Errors
/// Fails if Kafka refuses a record, or if [`Watch::still_ours`] returns an error. Even then nothing is lost or written
/// twice.
pub fn replay(
    config: &Config,
    choice: &Choice,
    manner: &Manner,
    active: &HashSet<WebhookId>,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let progress = &mut *watch.progress;
    let marks = ReplayMarks::load(config, ReplaySource::DeadLetters, choice.since_ms, watch.stop, |read, total| {
        progress(Progress { reading_marks: true, read, total, replayed: 0 });
    })?;
    let Some(marks) = marks else { return Ok(Summary { interrupted: true, ..Summary::default() }) };
    let start = choice.since_ms.map_or(Start::Oldest, Start::At);
    let selector = DeadLetters { choice, marks: &marks, active, again: manner.again, key: Key::Same, only: None };
    if manner.dry_run && manner.limit.is_none() {
        return count(config, &selector, start, watch);
    }
    let scan = Scan::open(config, &Names::new(config).dead_letters(), start)?;
    copy(config, scan, &selector, manner, watch)
}

/// The key of a replayed dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The key that the dead letter has: its webhook.
    Same,
    /// The task, so that a replay keeps the order with events that a rewind sends.
    Task,
}

/// Counts all selected dead letters for a dry run. It writes nothing, so several readers can work at once.
fn count(config: &Config, selector: &DeadLetters<'_>, start: Start, watch: &mut Watch<'_>) -> anyhow::Result<Summary> {
    let found = AtomicU64::new(0);
    let progress = &mut *watch.progress;
    let report = |read, total| {
        progress(Progress { reading_marks: false, read, total, replayed: found.load(Ordering::Relaxed) });
    };
    let topic = Names::new(config).dead_letters();
    let new = || (Summary::default(), 0);
    let parts = scan::read_all(config, &topic, &start, watch.stop, report, new, |(part, uncounted), record| {
        part.looked_at += 1;
        if let Some((group, _)) = selector.select(record, part) {
            part.count(group);
            *uncounted += 1;
        }
        // The readers would wait for each other if they counted each record together.
        if part.looked_at % scan::COUNT_EVERY == 0 {
            found.fetch_add(std::mem::take(uncounted), Ordering::Relaxed);
        }
    })?;
    let mut summary = Summary { interrupted: watch.stop.is_cancelled(), ..Summary::default() };
    for (part, _) in parts {
        summary.add(part);
    }
    Ok(summary)
}

/// The dead letters that a choice selects.
#[derive(Clone, Copy)]
pub(super) struct DeadLetters<'a> {
    pub(super) choice: &'a Choice,
    pub(super) marks: &'a ReplayMarks,
    pub(super) active: &'a HashSet<WebhookId>,
    /// Whether to replay what was already replayed.
    pub(super) again: bool,
    pub(super) key: Key,
    /// Only the dead letters at these partitions and offsets.
    pub(super) only: Option<&'a HashSet<(i32, i64)>>,
}

impl Selector for DeadLetters<'_> {
    type Item = Letter;

    fn select(&self, record: &BorrowedMessage<'_>, summary: &mut Summary) -> Option<(Group, Letter)> {
        if self.only.is_some_and(|only| !only.contains(&(record.partition(), record.offset())))
            || !self.choice.may_select_at(record.partition(), record.offset())
            || !self.choice.may_select(record.key())
        {
            return None;
        }
        let letter = Letter::read(record);
        let Some(reason) = letter.reason else {
            summary.foreign += 1;
            return None;
        };
        if !self.choice.selects(&letter) {
            return None;
        }
        let was_redelivered = letter.delivery_id.is_some_and(|id| self.marks.redelivered_since(id, letter.died_at_ms));
        if !self.again && (was_redelivered || self.marks.has(origin(record))) {
            summary.before += 1;
            return None;
        }
        if let Some(webhook) = letter.webhook_id.filter(|webhook| !self.active.contains(webhook)) {
            *summary.gone.entry(webhook).or_default() += 1;
            return None;
        }
        if letter.is_shortened {
            summary.shortened += 1;
            return None;
        }
        Some((Group::DeadLetters(letter.webhook_id, reason), letter))
    }

    fn write(
        &self,
        record: &BorrowedMessage<'_>,
        letter: &Letter,
        write: &mut dyn FnMut(Outgoing<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let Some(headers) = replay_headers(record, letter) else { return Ok(false) };
        let task = match self.key {
            Key::Same => None,
            Key::Task => headers::last(record.headers(), names::TASK_ID),
        };
        let key = task.map(str::as_bytes).or(record.key());
        write(Outgoing { key, value: record.payload(), headers })?;
        Ok(true)
    }
}

pub(super) fn origin(record: &BorrowedMessage<'_>) -> ReplayOrigin {
    ReplayOrigin {
        source: ReplaySource::DeadLetters,
        partition: record.partition(),
        offset: record.offset(),
        timestamp_ms: record.timestamp().to_millis().unwrap_or(0),
    }
}

/// The headers of the replay: the same delivery, due now, with attempts starting again. None if this program did not
/// write the record as a dead letter.
fn replay_headers(record: &BorrowedMessage<'_>, letter: &Letter) -> Option<OwnedHeaders> {
    let replay_of = origin(record).to_text();
    if letter.is_unread() {
        let mut origin = record::unread_origin(record.headers())?;
        origin.replays = origin.replays.saturating_add(1);
        return Some(record::replay_unread(record::untouched(record.headers()), &origin, &replay_of));
    }
    let (mut delivery, _) = record::delivery(record.payload(), record.headers()).ok()?;
    let now = now_ms();
    delivery.attempts = 0;
    delivery.deferrals = 0;
    // The age starts again too: otherwise an expired delivery would be dead-lettered again at once.
    delivery.first_seen_at_ms = now;
    delivery.replays = delivery.replays.saturating_add(1);
    delivery.by_hand = false;
    Some(record::replay(record::headers(&delivery, Some(now), LastError::default()), &replay_of))
}
