//! Rewind: past events from `task-events` sent again to one webhook, even if the webhook did not exist then.

use std::collections::BTreeMap;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::origin::{ReplayOrigin, ReplaySource};
use super::replay_marks::ReplayMarks;
use super::scan::{Scan, Start};
use super::writer::{Outgoing, Writer};
use super::{Manner, Progress, Watch};
use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{Delivery, FirstRead};
use crate::event::{Decoded, Event, EventType, Limits, decode};
use crate::payload::Bodies;
use crate::position::{RecordPosition, TimestampMs};
use crate::record::{self, LastError};
use crate::topics::Names;
use crate::webhook::Webhook;

/// The past events of a rewind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Only events written at or after this time, in Unix milliseconds.
    pub since_ms: i64,
    /// Only events written before this time, in Unix milliseconds.
    pub until_ms: Option<i64>,
    /// Only these types among those that the webhook subscribes to. Empty for all.
    pub events: Vec<EventType>,
}

/// The result of a rewind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of records that were read.
    pub looked_at: u64,
    /// The number of events that were sent again, or would be in a dry run, by type.
    pub replayed: BTreeMap<EventType, u64>,
    /// The number of events that were skipped because an earlier rewind sent them.
    pub before: u64,
    /// The number of records that cannot be read. The worker dead-lettered them when it consumed them.
    pub unreadable: u64,
    /// Whether the rewind was stopped early.
    pub interrupted: bool,
}

impl Summary {
    /// The number of events that were sent again, or would be in a dry run.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.replayed.values().sum()
    }
}

/// The number of records between two progress reports.
const PROGRESS_EVERY: u64 = 1_000;

/// Sends the past events that `webhook` subscribes to and `past` selects to it again. Blocks.
///
/// Each event keeps the delivery id that it has, or would have had. The events of one task keep their order.
///
/// # Errors
/// The same as [`super::dead_letters::replay`].
pub fn rewind(
    config: &Config,
    webhook: &Webhook,
    past: &Past,
    manner: &Manner,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let source = ReplaySource::Log(webhook.id);
    let loading = &mut *watch.progress;
    // A rewind is later than the events that it sends, so only marks from `since_ms` on matter.
    let marks = ReplayMarks::load(config, source, Some(past.since_ms), watch.stop, |read, total| {
        loading(Progress { reading_marks: true, read, total, replayed: 0 });
    })?;
    let Some(marks) = marks else { return Ok(Summary { interrupted: true, ..summary }) };
    let mut writer = if manner.dry_run { None } else { Some(Writer::new(config, manner.rate)?) };
    let mut scan = Scan::open(config, Names::new(config).events(), Start::At(past.since_ms))?;
    let total = scan.total();
    // All deliveries are due at the same time, so the order within a task is the order of their offsets.
    let due_at_ms = now_ms();
    let mut replayed = 0;
    while manner.limit.is_none_or(|limit| replayed < limit) {
        let Some(record) = scan.next(watch.stop)? else { break };
        summary.looked_at += 1;
        let origin = ReplayOrigin {
            source,
            partition: record.partition(),
            offset: record.offset(),
            timestamp_ms: record.timestamp().to_millis().unwrap_or(0),
        };
        if let Some(event) = summary.wanted(&record, origin, config, webhook, past)
            && (manner.again || !summary.was_rewound_before(&marks, origin))
        {
            if let Some(writer) = &mut writer {
                if writer.is_between_batches() {
                    (watch.still_ours)()?;
                }
                let delivery = first(&event, webhook, &record, due_at_ms);
                let headers = record::headers(&delivery, Some(due_at_ms), LastError::default());
                let headers = record::replay(headers, &origin.to_text());
                // The key is the task, so that the events of a task stay in one partition and in order. With the
                // webhook as the key, all events would go to one partition.
                let key = Some(event.task_id.as_bytes());
                writer.write(Outgoing { key, value: Some(&delivery.body), headers }, watch.stop)?;
            }
            *summary.replayed.entry(event.event_type).or_default() += 1;
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

impl Summary {
    /// The event in a record, if the webhook subscribes to it and the rewind selects it.
    fn wanted(
        &mut self,
        record: &BorrowedMessage<'_>,
        origin: ReplayOrigin,
        config: &Config,
        webhook: &Webhook,
        past: &Past,
    ) -> Option<Event> {
        if origin.timestamp_ms < past.since_ms || past.until_ms.is_some_and(|until| origin.timestamp_ms >= until) {
            return None;
        }
        let at = RecordPosition { topic: record.topic().into(), partition: origin.partition, offset: origin.offset };
        let written = TimestampMs(origin.timestamp_ms);
        match decode(record.payload(), &at, written, Limits::new(config)) {
            Ok(Decoded::Event(event)) => {
                let is_selected = past.events.is_empty() || past.events.contains(&event.event_type);
                (is_selected && webhook.events.contains(&event.event_type)).then_some(event)
            }
            Ok(Decoded::Nothing(_)) => None,
            Err(_) => {
                self.unreadable += 1;
                None
            }
        }
    }

    fn was_rewound_before(&mut self, marks: &ReplayMarks, origin: ReplayOrigin) -> bool {
        let was_rewound = marks.has(origin);
        self.before += u64::from(was_rewound);
        was_rewound
    }
}

/// The delivery of the event to the webhook, before any attempt.
fn first(event: &Event, webhook: &Webhook, record: &BorrowedMessage<'_>, now_ms: i64) -> Delivery {
    let read = FirstRead {
        source: RecordPosition { topic: record.topic().into(), partition: record.partition(), offset: record.offset() },
        first_seen_at_ms: now_ms,
        replays: 0,
        traceparent: record::traceparent(record.headers()),
    };
    Delivery::first(event, webhook.id, Bodies::default().of(event, webhook.format, &webhook.url), read)
}
