//! Sends what a webhook missed: its dead letters, and the events that it did not get while it was paused or disabled.
//!
//! Both are read from the events topic, in the order of their offsets, and are written with the task as the key, so the
//! events of a task stay in order. Dead letters whose events are no longer there are older than all others, and are
//! copied from the dead-letter topic first.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::choice::Choice;
use super::copying::{Selector as _, copy};
use super::dead_letters::{self, DeadLetters, Key};
use super::letter::Letter;
use super::origin::{ReplayOrigin, ReplaySource};
use super::replay_marks::ReplayMarks;
use super::rewind::PastEvents;
use super::scan::{self, Scan, Start};
use super::summary::Summary;
use super::{Manner, Progress, Watch};
use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::DeliveryId;
use crate::record;
use crate::store::missed::Missed;
use crate::topics::Names;
use crate::webhook::Webhook;

/// A dead letter that is sent again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dead {
    /// The position of the dead letter, which marks that it was sent.
    pub(super) origin: ReplayOrigin,
    /// The number of its replays so far.
    pub(super) replays: u32,
    /// The delivery. A topic that was deleted and recreated has other events at the same offsets.
    pub(super) delivery_id: Option<DeliveryId>,
}

/// What is selected from the events topic.
pub(super) struct Wanted<'a> {
    pub(super) missed: &'a Missed,
    /// Dead letters, by the positions of their events.
    pub(super) dead: HashMap<(i32, i64), Dead>,
}

impl Wanted<'_> {
    /// Whether the event at this position is sent.
    pub(super) fn has(&self, partition: i32, offset: i64) -> bool {
        self.dead.contains_key(&(partition, offset)) || self.missed.has(partition, offset)
    }

    /// The first and the last offset of each partition.
    fn spans(&self) -> BTreeMap<i32, (i64, i64)> {
        let mut spans = self.missed.spans();
        for (partition, offset) in self.dead.keys() {
            let span = spans.entry(*partition).or_insert((*offset, *offset));
            *span = (span.0.min(*offset), span.1.max(*offset));
        }
        spans
    }
}

/// Sends what `webhook` missed. Blocks.
///
/// A crash at any point is safe: the records in the replay topic also show what was sent, and the next run goes on from
/// there.
///
/// # Errors
/// The same as [`dead_letters::replay`].
pub fn send(
    config: &Config,
    webhook: &Webhook,
    missed: &Missed,
    manner: &Manner,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let interrupted = || Ok(Summary { interrupted: true, ..Summary::default() });
    let since_ms = missed.sending_since_ms.unwrap_or_else(now_ms);
    let Some(dead_marks) = marks(config, ReplaySource::DeadLetters, None, watch)? else { return interrupted() };
    let Some(log_marks) = marks(config, ReplaySource::Log(webhook.id), Some(since_ms), watch)? else {
        return interrupted();
    };
    let choice = Choice { webhooks: vec![webhook.id], ..Choice::default() };
    let active = HashSet::from([webhook.id]);
    let letters =
        DeadLetters { choice: &choice, marks: &dead_marks, active: &active, again: false, key: Key::Task, only: None };
    let (found, mut summary) = find(config, &letters, watch)?;
    if summary.interrupted {
        return Ok(summary);
    }

    let events = Names::new(config).events().to_owned();
    let mut scan = Scan::locate(config, &events, Start::Oldest)?;
    let is_there = |topic: &str, partition: i32, offset: i64| {
        topic == events && scan.spans().get(&partition).is_some_and(|(low, high)| (*low..*high).contains(&offset))
    };
    let mut wanted = Wanted { missed, dead: HashMap::new() };
    let mut only = HashSet::new();
    for (dead, source) in found {
        match source.filter(|source| is_there(&source.topic, source.partition, source.offset)) {
            Some(source) => drop(wanted.dead.insert((source.partition, source.offset), dead)),
            None => drop(only.insert((dead.origin.partition, dead.origin.offset))),
        }
    }
    let mut before = Progress::default();
    if !only.is_empty() {
        let mut report = |now: Progress| {
            before = now;
            (watch.progress)(now);
        };
        let mut watch = Watch { progress: &mut report, stop: watch.stop, still_ours: watch.still_ours };
        let letters = DeadLetters { only: Some(&only), ..letters };
        let topic = Scan::open(config, &Names::new(config).dead_letters(), Start::Oldest)?;
        summary.add(copy(config, topic, &letters, manner, &mut watch)?);
        if summary.interrupted {
            return Ok(summary);
        }
    }
    let spans = wanted.spans().into_iter().filter_map(|(partition, (first, last))| {
        let (low, high) = *scan.spans().get(&partition)?;
        let from = first.clamp(low, high);
        Some((partition, (from, last.saturating_add(1).clamp(from, high))))
    });
    let spans = spans.collect();
    scan.read_spans(spans)?;
    let mut report = |now: Progress| {
        let (read, total) = (before.read + now.read, before.total + now.total);
        (watch.progress)(Progress { read, total, replayed: before.replayed + now.replayed, ..now });
    };
    let mut watch = Watch { progress: &mut report, stop: watch.stop, still_ours: watch.still_ours };
    let selector = PastEvents::missed(config, webhook, &wanted, &log_marks);
    summary.add(copy(config, scan, &selector, manner, &mut watch)?);
    Ok(summary)
}

fn marks(
    config: &Config,
    source: ReplaySource,
    since_ms: Option<i64>,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Option<ReplayMarks>> {
    let progress = &mut *watch.progress;
    ReplayMarks::load(config, source, since_ms, watch.stop, |read, total| {
        progress(Progress { reading_marks: true, read, total, replayed: 0 });
    })
}

/// A dead letter, and the position of its event.
type Found = (Dead, Option<crate::position::RecordPosition>);

/// Finds the dead letters that were not sent again yet.
fn find(config: &Config, letters: &DeadLetters<'_>, watch: &mut Watch<'_>) -> anyhow::Result<(Vec<Found>, Summary)> {
    let progress = &mut *watch.progress;
    let report = |read, total| progress(Progress { reading_marks: true, read, total, replayed: 0 });
    let topic = Names::new(config).dead_letters();
    let new = || (Vec::new(), Summary::default());
    let parts = scan::read_all(config, &topic, &Start::Oldest, watch.stop, report, new, |(found, part), record| {
        let Some((_, Letter { replays, delivery_id, .. })) = letters.select(record, part) else { return };
        let source = record::delivery(rdkafka::Message::payload(record), rdkafka::Message::headers(record)).ok();
        let source = source.map(|(delivery, _)| delivery.source);
        found.push((Dead { origin: dead_letters::origin(record), replays, delivery_id }, source));
    })?;
    let mut summary = Summary { interrupted: watch.stop.is_cancelled(), ..Summary::default() };
    let mut all = Vec::new();
    for (found, part) in parts {
        all.extend(found);
        summary.add(part);
    }
    // They are looked at, and counted, again when they are sent.
    (summary.looked_at, summary.before) = (0, 0);
    Ok((all, summary))
}
