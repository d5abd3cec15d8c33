//! Replay of dead letters.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, OwnedHeaders};

use super::choice::Choice;
use super::letter::Letter;
use super::origin::{ReplayOrigin, ReplaySource};
use super::replay_marks::ReplayMarks;
use super::scan::{self, Scan, Start};
use super::writer::{Outgoing, Writer};
use super::{Manner, Progress, Watch};
use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::DeadReason;
use crate::record::{self, LastError};
use crate::topics::Names;
use crate::webhook::WebhookId;

/// The result of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of records that were read.
    pub looked_at: u64,
    /// The number of dead letters that were replayed, or would be in a dry run, by webhook and reason. The webhook is
    /// None for records that could not be read.
    pub replayed: BTreeMap<(Option<WebhookId>, DeadReason), u64>,
    /// The number of selected dead letters that were skipped because an earlier run replayed them.
    pub before: u64,
    /// The number of selected dead letters that were skipped because their webhook is deleted or inactive, by webhook.
    pub gone: BTreeMap<WebhookId, u64>,
    /// The number of selected dead letters that were skipped because they were shortened. Their headers name the
    /// position of the original.
    pub shortened: u64,
    /// The number of records that this program did not write as dead letters.
    pub foreign: u64,
    /// Whether the replay was stopped early.
    pub interrupted: bool,
}

impl Summary {
    /// The number of dead letters that were replayed, or would be in a dry run.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.replayed.values().sum()
    }
}

/// The number of records between two progress reports.
const PROGRESS_EVERY: u64 = 1_000;

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
    let mut summary = Summary::default();
    let progress = &mut *watch.progress;
    let marks = ReplayMarks::load(config, ReplaySource::DeadLetters, choice.since_ms, watch.stop, |read, total| {
        progress(Progress { reading_marks: true, read, total, replayed: 0 });
    })?;
    let Some(marks) = marks else { return Ok(Summary { interrupted: true, ..summary }) };
    let start = choice.since_ms.map_or(Start::Oldest, Start::At);
    if manner.dry_run && manner.limit.is_none() {
        return count(config, choice, manner, &marks, active, start, watch);
    }
    let mut writer = if manner.dry_run { None } else { Some(Writer::new(config, manner.rate)?) };
    let mut scan = Scan::open(config, &Names::new(config).dead_letters(), start)?;
    let total = scan.total();
    let mut replayed = 0;
    while manner.limit.is_none_or(|limit| replayed < limit) {
        let Some(record) = scan.next(watch.stop)? else { break };
        summary.looked_at += 1;
        if let Some((letter, reason)) = summary.select(&record, choice, manner, &marks, active) {
            if let Some(writer) = &mut writer {
                if writer.is_between_batches() {
                    (watch.still_ours)()?;
                }
                let Some(headers) = headers(&record, &letter) else {
                    summary.foreign += 1;
                    continue;
                };
                writer.write(Outgoing { key: record.key(), value: record.payload(), headers }, watch.stop)?;
            }
            *summary.replayed.entry((letter.webhook_id, reason)).or_default() += 1;
            replayed += 1;
        }
        if summary.looked_at % PROGRESS_EVERY == 0 || manner.rate.is_some() {
            (watch.progress)(Progress { reading_marks: false, read: scan.read(), total, replayed });
        }
    }
    if let Some(writer) = &mut writer {
        writer.flush()?;
    }
    summary.interrupted = watch.stop.is_cancelled();
    (watch.progress)(Progress { reading_marks: false, read: scan.read(), total, replayed });
    Ok(summary)
}

/// Counts all selected dead letters for a dry run. It writes nothing, so several readers can work at once.
fn count(
    config: &Config,
    choice: &Choice,
    manner: &Manner,
    marks: &ReplayMarks,
    active: &HashSet<WebhookId>,
    start: Start,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let found = AtomicU64::new(0);
    let progress = &mut *watch.progress;
    let report = |read, total| {
        progress(Progress { reading_marks: false, read, total, replayed: found.load(Ordering::Relaxed) });
    };
    let topic = Names::new(config).dead_letters();
    let summaries = scan::read_all(config, &topic, &start, watch.stop, report, Summary::default, |part, record| {
        part.looked_at += 1;
        if let Some((letter, reason)) = part.select(record, choice, manner, marks, active) {
            *part.replayed.entry((letter.webhook_id, reason)).or_default() += 1;
            found.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    let mut summary = Summary { interrupted: watch.stop.is_cancelled(), ..Summary::default() };
    for part in summaries {
        summary.add(part);
    }
    Ok(summary)
}

impl Summary {
    fn add(&mut self, part: Self) {
        self.looked_at += part.looked_at;
        self.before += part.before;
        self.foreign += part.foreign;
        self.shortened += part.shortened;
        for (key, count) in part.replayed {
            *self.replayed.entry(key).or_default() += count;
        }
        for (webhook, count) in part.gone {
            *self.gone.entry(webhook).or_default() += count;
        }
    }

    /// Returns the dead letter and its reason if the record is to be replayed. Otherwise counts why it is not.
    fn select(
        &mut self,
        record: &BorrowedMessage<'_>,
        choice: &Choice,
        manner: &Manner,
        marks: &ReplayMarks,
        active: &HashSet<WebhookId>,
    ) -> Option<(Letter, DeadReason)> {
        if !choice.may_select_at(record.partition(), record.offset()) || !choice.may_select(record.key()) {
            return None;
        }
        let letter = Letter::read(record);
        let Some(reason) = letter.reason else {
            self.foreign += 1;
            return None;
        };
        if !choice.selects(&letter) {
            return None;
        }
        let was_redelivered = letter.delivery_id.is_some_and(|id| marks.redelivered_since(id, letter.died_at_ms));
        if !manner.again && (was_redelivered || marks.has(origin(record))) {
            self.before += 1;
            return None;
        }
        if let Some(webhook) = letter.webhook_id.filter(|webhook| !active.contains(webhook)) {
            *self.gone.entry(webhook).or_default() += 1;
            return None;
        }
        if letter.is_shortened {
            self.shortened += 1;
            return None;
        }
        Some((letter, reason))
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
fn headers(record: &BorrowedMessage<'_>, letter: &Letter) -> Option<OwnedHeaders> {
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
