//! Rewind: the past of the events' topic, told to one webhook as if it had been there.

use std::collections::BTreeMap;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::marks::Marks;
use super::origin::{Origin, Source};
use super::scan::{Scan, Start};
use super::writer::{Outgoing, Writer};
use super::{Manner, Progress, Watch};
use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{self, Delivery, DeliveryId};
use crate::event::body::Bodies;
use crate::event::{Decoded, Event, EventType, Limits, Position, decode};
use crate::record::{self, LastError};
use crate::topics::Names;
use crate::webhook::Webhook;

/// Which past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Events written then or later, Unix milliseconds.
    pub since_ms: i64,
    /// Events written before, Unix milliseconds.
    pub until_ms: Option<i64>,
    /// Of what the webhook subscribes to, only these; all where empty.
    pub events: Vec<EventType>,
}

/// What a rewind came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records that were looked at.
    pub looked_at: u64,
    /// Told, or what would be.
    pub replayed: BTreeMap<EventType, u64>,
    /// Told by an earlier rewind.
    pub before: u64,
    /// Records that can't be read; the worker dead-lettered them when they came.
    pub unreadable: u64,
    /// Ended before its end.
    pub interrupted: bool,
}

impl Summary {
    /// Told altogether.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.replayed.values().sum()
    }
}

/// How many records pass between two words on the progress.
const PROGRESS_EVERY: u64 = 1_000;

/// Tells `webhook` the past: what it subscribes to, each event under the delivery id that it has or would have had,
/// those of one task in their order. Blocks.
///
/// # Errors
/// As [`super::dead_letters::replay`].
pub fn rewind(
    config: &Config,
    webhook: &Webhook,
    past: &Past,
    manner: &Manner,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let source = Source::Log(webhook.id);
    let loading = &mut *watch.progress;
    // A rewind is later than what it tells: what was told since then is all that matters.
    let marks = Marks::load(config, source, Some(past.since_ms), watch.stop, |read, total| {
        loading(Progress { reading_marks: true, read, total, replayed: 0 });
    })?;
    let Some(marks) = marks else { return Ok(Summary { interrupted: true, ..summary }) };
    let mut writer = if manner.dry_run { None } else { Some(Writer::new(config, manner.rate)?) };
    let mut scan = Scan::open(config, Names::new(config).events(), Start::At(past.since_ms))?;
    let total = scan.total();
    // All are due at once: the order within a task is that of their offsets.
    let due_at_ms = now_ms();
    let mut replayed = 0;
    while manner.limit.is_none_or(|limit| replayed < limit) {
        let Some(record) = scan.next(watch.stop)? else { break };
        summary.looked_at += 1;
        let origin = Origin {
            source,
            partition: record.partition(),
            offset: record.offset(),
            timestamp_ms: record.timestamp().to_millis().unwrap_or(0),
        };
        if let Some(event) = summary.wanted(&record, origin, config, webhook, past)
            && (manner.again || !summary.told_before(&marks, origin))
        {
            if let Some(writer) = &mut writer {
                if writer.is_at_rest() {
                    (watch.still_ours)()?;
                }
                let delivery = first(&event, webhook, &record, due_at_ms);
                let headers = record::headers(&delivery, Some(due_at_ms), LastError::default());
                let headers = record::replay(headers, &origin.to_text());
                // By task, not by webhook: one partition for a task keeps its order, and one webhook gets them all.
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
    /// The event that a record is, if the webhook wants it.
    fn wanted(
        &mut self,
        record: &BorrowedMessage<'_>,
        origin: Origin,
        config: &Config,
        webhook: &Webhook,
        past: &Past,
    ) -> Option<Event> {
        if origin.timestamp_ms < past.since_ms || past.until_ms.is_some_and(|until| origin.timestamp_ms >= until) {
            return None;
        }
        let at = Position {
            topic: record.topic(),
            partition: origin.partition,
            offset: origin.offset,
            timestamp_ms: origin.timestamp_ms,
        };
        match decode(record.payload(), at, Limits::new(config)) {
            Ok(Decoded::Event(event)) => {
                let is_meant = past.events.is_empty() || past.events.contains(&event.event_type);
                (is_meant && webhook.events.contains(&event.event_type)).then_some(event)
            }
            Ok(Decoded::Nothing(_)) => None,
            Err(_) => {
                self.unreadable += 1;
                None
            }
        }
    }

    fn told_before(&mut self, marks: &Marks, origin: Origin) -> bool {
        let told = marks.has(origin);
        self.before += u64::from(told);
        told
    }
}

/// The delivery that the event has, or would have had.
fn first(event: &Event, webhook: &Webhook, record: &BorrowedMessage<'_>, now_ms: i64) -> Delivery {
    Delivery {
        id: DeliveryId::of(&event.id, webhook.id),
        webhook_id: webhook.id,
        event_type: event.event_type,
        event_id: event.id.clone(),
        task_id: event.task_id.clone(),
        body: Bodies::default().of(event, webhook.format, &webhook.url),
        attempts: 0,
        deferrals: 0,
        first_seen_at_ms: now_ms,
        source: delivery::Source {
            topic: record.topic().into(),
            partition: record.partition(),
            offset: record.offset(),
        },
        replays: 0,
        traceparent: record::traceparent(record.headers()),
        by_hand: false,
    }
}
