//! Rewind: past events from `task-events` sent again to one webhook, even if the webhook did not exist then.

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::copying::{Selector, copy};
use super::missed::{Dead, Wanted};
use super::origin::{ReplayOrigin, ReplaySource};
use super::replay_marks::ReplayMarks;
use super::scan::{Scan, Start};
use super::summary::{Group, Summary};
use super::writer::Outgoing;
use super::{Manner, Progress, Watch};
use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{Delivery, DeliveryId, FirstRead};
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
    let source = ReplaySource::Log(webhook.id);
    let progress = &mut *watch.progress;
    // A rewind is later than the events that it sends, so only marks from `since_ms` on matter.
    let marks = ReplayMarks::load(config, source, Some(past.since_ms), watch.stop, |read, total| {
        progress(Progress { reading_marks: true, read, total, replayed: 0 });
    })?;
    let Some(marks) = marks else { return Ok(Summary { interrupted: true, ..Summary::default() }) };
    let scan = Scan::open(config, Names::new(config).events(), Start::At(past.since_ms))?;
    let selector = PastEvents {
        webhook,
        past: past.clone(),
        marks: &marks,
        again: manner.again,
        limits: Limits::new(config),
        public_url: &config.webhooks.public_url,
        // All deliveries are due at the same time, so the order within a task is the order of their offsets.
        due_at_ms: now_ms(),
        wanted: None,
    };
    copy(config, scan, &selector, manner, watch)
}

/// The past events that a rewind selects.
pub(super) struct PastEvents<'a> {
    webhook: &'a Webhook,
    past: Past,
    marks: &'a ReplayMarks,
    /// Whether to send again what an earlier rewind sent.
    again: bool,
    limits: Limits,
    /// The address of Optio's web app, or an empty text.
    public_url: &'a str,
    due_at_ms: i64,
    /// Only these events.
    wanted: Option<&'a Wanted<'a>>,
}

impl<'a> PastEvents<'a> {
    /// The events that a webhook missed, and those of its dead letters.
    pub(super) fn missed(
        config: &'a Config,
        webhook: &'a Webhook,
        wanted: &'a Wanted<'a>,
        marks: &'a ReplayMarks,
    ) -> Self {
        Self {
            webhook,
            past: Past { since_ms: i64::MIN, until_ms: None, events: Vec::new() },
            marks,
            again: false,
            limits: Limits::new(config),
            public_url: &config.webhooks.public_url,
            due_at_ms: now_ms(),
            wanted: Some(wanted),
        }
    }

    /// The dead letter whose event the record is.
    fn dead(&self, record: &BorrowedMessage<'_>, event: &Event) -> Option<&Dead> {
        let dead = self.wanted?.dead.get(&(record.partition(), record.offset()))?;
        (dead.delivery_id == Some(DeliveryId::of(&event.id, self.webhook.id))).then_some(dead)
    }

    fn origin(&self, record: &BorrowedMessage<'_>) -> ReplayOrigin {
        ReplayOrigin {
            source: ReplaySource::Log(self.webhook.id),
            partition: record.partition(),
            offset: record.offset(),
            timestamp_ms: record.timestamp().to_millis().unwrap_or(0),
        }
    }
}

impl Selector for PastEvents<'_> {
    type Item = Event;

    fn select(&self, record: &BorrowedMessage<'_>, summary: &mut Summary) -> Option<(Group, Event)> {
        let origin = self.origin(record);
        if self.wanted.is_some_and(|wanted| !wanted.has(origin.partition, origin.offset)) {
            return None;
        }
        let Past { since_ms, until_ms, events } = &self.past;
        if origin.timestamp_ms < *since_ms || until_ms.is_some_and(|until| origin.timestamp_ms >= until) {
            return None;
        }
        let at = RecordPosition { topic: record.topic().into(), partition: origin.partition, offset: origin.offset };
        let event = match decode(record.payload(), &at, TimestampMs(origin.timestamp_ms), self.limits) {
            Ok(Decoded::Event(event)) => event,
            Ok(Decoded::Nothing(_)) => return None,
            Err(_) => {
                // The worker dead-lettered it when it consumed it.
                summary.foreign += 1;
                return None;
            }
        };
        // A dead letter is sent whatever the webhook subscribes to by now, as by a replay.
        if self.dead(record, &event).is_some() {
            return Some((Group::Events(event.event_type), event));
        }
        let is_selected = events.is_empty() || events.contains(&event.event_type);
        if !is_selected || !self.webhook.wants(&event) {
            return None;
        }
        let is_again = self.wanted.is_some_and(|wanted| wanted.missed.is_missed_again(origin.partition, origin.offset));
        if !self.again && !is_again && self.marks.has(origin) {
            summary.before += 1;
            return None;
        }
        Some((Group::Events(event.event_type), event))
    }

    fn write(
        &self,
        record: &BorrowedMessage<'_>,
        event: &Event,
        write: &mut dyn FnMut(Outgoing<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        // Its age counts from now on, because a slow rewind may take days.
        let mut delivery = first(event, self.webhook, record, now_ms(), self.public_url);
        let mut origin = self.origin(record);
        if let Some(dead) = self.dead(record, event) {
            delivery.replays = dead.replays.saturating_add(1);
            origin = dead.origin;
        }
        let headers = record::headers(&delivery, Some(self.due_at_ms), LastError::default());
        let headers = record::replay(headers, &origin.to_text());
        // The key is the task, so that the events of a task stay in one partition and in order. With the webhook as the
        // key, all events would go to one partition.
        write(Outgoing { key: Some(event.task_id.as_bytes()), value: Some(&delivery.body), headers })?;
        Ok(true)
    }
}

/// The delivery of the event to the webhook, before any attempt.
fn first(event: &Event, webhook: &Webhook, record: &BorrowedMessage<'_>, now_ms: i64, public_url: &str) -> Delivery {
    let read = FirstRead {
        source: RecordPosition { topic: record.topic().into(), partition: record.partition(), offset: record.offset() },
        first_seen_at_ms: now_ms,
        replays: 0,
        traceparent: record::traceparent(record.headers()),
    };
    Delivery::first(event, webhook.id, Bodies::new(public_url).of(event, webhook.format, &webhook.url), read)
}
