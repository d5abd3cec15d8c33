//! Dead letters back into delivery.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, OwnedHeaders};

use super::choice::Choice;
use super::letter::Letter;
use super::marks::Marks;
use super::origin::{Origin, Source};
use super::scan::{self, Scan, Start};
use super::writer::{Outgoing, Writer};
use super::{Manner, Progress, Watch};
use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::DeadReason;
use crate::record::{self, LastError};
use crate::topics::Names;
use crate::webhook::WebhookId;

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Dead letters that were looked at.
    pub looked_at: u64,
    /// Put back, or what would be: by webhook (None for what couldn't be read) and reason.
    pub replayed: BTreeMap<(Option<WebhookId>, DeadReason), u64>,
    /// Chosen, but replayed by an earlier run.
    pub before: u64,
    /// Chosen, but of a webhook that is deleted or disabled.
    pub gone: BTreeMap<WebhookId, u64>,
    /// Chosen, but cut to what their topic took: the original stands where the letter says.
    pub shortened: u64,
    /// Records of the topic that aren't dead letters of ours.
    pub foreign: u64,
    /// Ended before its end.
    pub interrupted: bool,
}

impl Summary {
    /// Put back altogether.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.replayed.values().sum()
    }
}

/// How many records pass between two words on the progress.
const PROGRESS_EVERY: u64 = 1_000;

/// Puts the dead letters that `choice` means back into delivery, those of webhooks that are `active`. Blocks.
///
/// Crash order: a dead letter's record in the replay topic is its mark. One that was written is never written again,
/// one that wasn't is found by the next run with the same choice.
///
/// # Errors
/// Where Kafka refuses, or where [`Watch::still_ours`] does. Until then nothing is lost or written twice.
pub fn replay(
    config: &Config,
    choice: &Choice,
    manner: &Manner,
    active: &HashSet<WebhookId>,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let loading = &mut *watch.progress;
    let marks = Marks::load(config, Source::DeadLetters, choice.since_ms, watch.stop, |read, total| {
        loading(Progress { reading_marks: true, read, total, replayed: 0 });
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
        if let Some((letter, reason)) = summary.chosen(&record, choice, manner, &marks, active) {
            if let Some(writer) = &mut writer {
                if writer.is_at_rest() {
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

/// A dry run of all that is chosen: nothing is written, so several readers may count.
fn count(
    config: &Config,
    choice: &Choice,
    manner: &Manner,
    marks: &Marks,
    active: &HashSet<WebhookId>,
    start: Start,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let found = AtomicU64::new(0);
    let progress = &mut *watch.progress;
    let tell = |read, total| {
        progress(Progress { reading_marks: false, read, total, replayed: found.load(Ordering::Relaxed) });
    };
    let topic = Names::new(config).dead_letters();
    let shares = scan::read_all(config, &topic, &start, watch.stop, tell, Summary::default, |share, record| {
        share.looked_at += 1;
        if let Some((letter, reason)) = share.chosen(record, choice, manner, marks, active) {
            *share.replayed.entry((letter.webhook_id, reason)).or_default() += 1;
            found.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    let mut summary = Summary { interrupted: watch.stop.is_cancelled(), ..Summary::default() };
    for share in shares {
        summary.add(share);
    }
    Ok(summary)
}

impl Summary {
    fn add(&mut self, share: Self) {
        self.looked_at += share.looked_at;
        self.before += share.before;
        self.foreign += share.foreign;
        self.shortened += share.shortened;
        for (whom, count) in share.replayed {
            *self.replayed.entry(whom).or_default() += count;
        }
        for (webhook, count) in share.gone {
            *self.gone.entry(webhook).or_default() += count;
        }
    }

    /// Whether a record is to be replayed; counts it where it isn't.
    fn chosen(
        &mut self,
        record: &BorrowedMessage<'_>,
        choice: &Choice,
        manner: &Manner,
        marks: &Marks,
        active: &HashSet<WebhookId>,
    ) -> Option<(Letter, DeadReason)> {
        if !choice.may_take_at(record.partition(), record.offset()) || !choice.may_take(record.key()) {
            return None;
        }
        let letter = Letter::read(record);
        let Some(reason) = letter.reason else {
            self.foreign += 1;
            return None;
        };
        if !choice.takes(&letter) {
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

pub(super) fn origin(record: &BorrowedMessage<'_>) -> Origin {
    Origin {
        source: Source::DeadLetters,
        partition: record.partition(),
        offset: record.offset(),
        timestamp_ms: record.timestamp().to_millis().unwrap_or(0),
    }
}

/// The replay's headers: the same delivery, attempts begun anew, due now. None where it isn't a dead letter of ours.
fn headers(record: &BorrowedMessage<'_>, letter: &Letter) -> Option<OwnedHeaders> {
    let of = origin(record).to_text();
    if letter.is_unread() {
        let mut origin = record::unread_origin(record.headers())?;
        origin.replays = origin.replays.saturating_add(1);
        return Some(record::replay_unread(record::untouched(record.headers()), &origin, &of));
    }
    let (mut delivery, _) = record::delivery(record.payload(), record.headers()).ok()?;
    let now = now_ms();
    delivery.attempts = 0;
    delivery.deferrals = 0;
    // Its age counts anew as well: an expired one would be given up again at once.
    delivery.first_seen_at_ms = now;
    delivery.replays = delivery.replays.saturating_add(1);
    delivery.by_hand = false;
    Some(record::replay(record::headers(&delivery, Some(now), LastError::default()), &of))
}
