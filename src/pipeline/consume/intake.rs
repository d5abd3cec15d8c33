//! Decodes the records that a poll thread reads, and holds deliveries from the retry tiers and the replay topic until
//! they are due.

mod raw;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::message::{BorrowedHeaders, OwnedHeaders};

use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{DeadReason, Delivery};
use crate::detail::Detail;
use crate::event::{Decoded, Limits, Undecodable, check_waiting, decode};
use crate::pipeline::incoming::{BATCH_MAX, Batch, Incoming, Unreadable};
use crate::pipeline::panics;
use crate::pipeline::partition::Partition;
use crate::pipeline::receipt::Receipt;
use crate::pipeline::window::{Window, bytes_part};
use crate::position::{Offset, RecordPosition, TimestampMs};
use crate::record::{self, LastError, UnreadOrigin};
use crate::topics::{self, Names};
pub(in crate::pipeline) use raw::Record;

/// The kind of records that a poll thread reads.
pub enum Intake {
    /// Task transitions.
    Events {
        /// `events.bytes_max`, `delivery.payload_max`
        limits: Limits,
    },
    /// Deliveries in the retry tiers and the replay topic.
    Retries(Retries),
}

type Waiting = (Arc<Delivery>, LastError, Arc<Receipt>);

/// The result of decoding one record.
enum Read {
    /// The record goes on at once.
    Ready(Incoming),
    /// The delivery waits until it is due, at a time in Unix milliseconds.
    Waits(Box<Delivery>, i64, LastError),
}

/// The windows of the partitions of the retry tiers and the replay topic.
pub struct Retries {
    config: Arc<Config>,
    names: Names,
    limits: Limits,
    /// The windows, keyed by the address of their partition. Each entry keeps its partition alive, so that no other
    /// partition can have the same address.
    windows: HashMap<usize, (Arc<Partition>, Window<Waiting>)>,
    /// The window that is served first. It changes each time, so that a window with a large backlog doesn't hold up
    /// others.
    turn: usize,
}

/// A window has at most `kafka.open_offsets_max` divided by this many deliveries.
const WINDOW_DIVISOR: usize = 4;
/// The approximate bytes that a waiting delivery takes in addition to its body.
const DELIVERY_BYTES: usize = 512;

impl Retries {
    /// Creates the intake of the retry tiers and the replay topic.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Self {
        let names = Names::new(config);
        Self { names, limits: Limits::new(config), config: config.clone(), windows: HashMap::new(), turn: 0 }
    }

    fn read(&self, record: &Record<'_>, partition: &Arc<Partition>) -> Read {
        if record::is_replay_of_unread(record.headers) {
            return Read::Ready(self.unread(record, partition));
        }
        if let Err(error) = check_waiting(record.value, self.limits) {
            return Read::Ready(undecodable(record, here(record, partition), &error));
        }
        match record::read(record.value, record.headers) {
            Ok((delivery, due_at_ms, last)) => Read::Waits(Box::new(delivery), due_at_ms, last),
            Err(error) => Read::Ready(malformed(record, here(record, partition), error.detail())),
        }
    }

    /// Decodes a replayed record that could not be read before. It goes through the decoder of its original topic.
    fn unread(&self, record: &Record<'_>, partition: &Arc<Partition>) -> Incoming {
        let Some(origin) = record::unread_origin(record.headers) else {
            let detail = Detail::new("a replayed record without its original position");
            return malformed(record, here(record, partition), detail);
        };
        if !self.names.is_waiting(&origin.source.topic) {
            return transition(record, origin, self.limits);
        }
        if let Err(error) = check_waiting(record.value, self.limits) {
            return undecodable(record, origin, &error);
        }
        let headers = record::untouched(record.headers);
        match record::delivery(record.value, Some(headers.as_borrowed())) {
            Ok((delivery, last)) => Incoming::Due { delivery: Arc::new(delivery), last },
            Err(error) => malformed(record, origin, error.detail()),
        }
    }

    fn window(&mut self, partition: &Arc<Partition>) -> &mut Window<Waiting> {
        let (names, config) = (&self.names, &self.config);
        let (_, window) = self.windows.entry(Arc::as_ptr(partition).addr()).or_insert_with(|| {
            let waits = topics::waits(config, names.tier_of(&partition.topic));
            // A window that alone could fill the open offsets would hand its deliveries off again and again, to free the
            // watermark.
            let window_max = config.delivery.retry.window_max.min(config.kafka.open_offsets_max / WINDOW_DIVISOR);
            (partition.clone(), Window::new(window_max.max(1), waits))
        });
        window
    }

    /// The number of bytes that a window may hold if it holds `own` now.
    fn bytes_part(&self, own: usize) -> usize {
        let used = self.windows.values().map(|(_, window)| window.bytes()).sum();
        bytes_part(self.config.worker.waiting_bytes_max, self.windows.len(), used, own)
    }
}

impl Intake {
    /// The time that a poll may wait, at most `longest`.
    pub(super) fn wait(&self, longest: Duration) -> Duration {
        let Self::Retries(retries) = self else { return longest };
        let next = retries.windows.values().filter_map(|(_, window)| window.next_due_ms()).min();
        let left = |due: i64| Duration::from_millis(u64::try_from(due.saturating_sub(now_ms())).unwrap_or(0));
        next.map_or(longest, |due| left(due).min(longest))
    }

    /// Takes a record that was read. No record stops the thread: one whose decoding panics twice counts as malformed.
    pub(in crate::pipeline) fn take(&mut self, record: &Record<'_>, partition: &Arc<Partition>, ready: &mut Batch) {
        let timestamp_ms = record.timestamp_ms;
        let Some(receipt) = partition.open_in(Offset(record.offset), TimestampMs(timestamp_ms), record.epoch) else {
            return;
        };
        let read = panics::twice(|| match self {
            Self::Events { limits } => Read::Ready(transition(record, here(record, partition), *limits)),
            Self::Retries(retries) => retries.read(record, partition),
        });
        match (read, self) {
            (Ok(Read::Ready(incoming)), _) => ready.push(incoming, receipt),
            (Ok(Read::Waits(delivery, due_at_ms, last)), Self::Retries(retries)) => {
                let bytes = delivery.body.len() + DELIVERY_BYTES;
                let waiting = (Arc::from(delivery), last, receipt);
                let window = retries.window(partition);
                window.insert(due_at_ms, record.offset, timestamp_ms, now_ms(), bytes, waiting);
            }
            (Ok(Read::Waits(..)) | Err(panics::Panicked), _) => {
                ready.push(malformed(record, here(record, partition), panics::detail()), receipt);
            }
        }
    }

    /// Moves deliveries to `ready` while it has room: those that are due, and those whose wait is too long for their
    /// window. `open_offsets_max` is the number of open offsets at which a partition is no longer read. From half that
    /// number on, long waits that block the watermark are moved as well.
    pub(in crate::pipeline) fn release(&mut self, open_offsets_max: usize, ready: &mut Batch) {
        let Self::Retries(retries) = self else { return };
        for (partition, window) in retries.windows.values() {
            partition.next_is_due_at(window.next_due_ms());
        }
        let now = now_ms();
        let count = retries.windows.values().filter(|(_, window)| !window.is_empty()).count();
        if count == 0 {
            return;
        }
        let used: usize = retries.windows.values().map(|(_, window)| window.bytes()).sum();
        let (all, bytes_max) = (retries.windows.len(), retries.config.worker.waiting_bytes_max);
        let mut windows: Vec<&mut (Arc<Partition>, Window<Waiting>)> =
            retries.windows.values_mut().filter(|(_, window)| !window.is_empty()).collect();
        // Each window first gets an equal share of the batch. The rest goes to windows that have more.
        // A stable order, so that the turn reaches each.
        windows.sort_unstable_by(|(one, _), (other, _)| (&one.topic, one.number).cmp(&(&other.topic, other.number)));
        windows.rotate_left(retries.turn % count);
        retries.turn = retries.turn.wrapping_add(1);
        let max = BATCH_MAX;
        for share in [max.div_ceil(count), max] {
            for (partition, window) in &mut windows {
                let max = max.min(ready.len() + share);
                while ready.len() < max && !ready.is_full() {
                    let Some((delivery, last, receipt)) = window.pop_due(now) else { break };
                    ready.push(Incoming::Due { delivery, last }, receipt);
                }
                let part = bytes_part(bytes_max, all, used, window.bytes());
                let middle = middle_of_open(partition, open_offsets_max);
                while ready.len() < max && !ready.is_full() {
                    let blocking = middle.and_then(|middle| window.pop_blocking(now, middle));
                    let taken = blocking.or_else(|| window.pop_farthest(now, part));
                    let Some((due_at_ms, (delivery, last, receipt))) = taken else { break };
                    ready.push(Incoming::DueLater { delivery, last, due_at_ms }, receipt);
                }
            }
        }
    }

    /// Whether no more of a partition may be read for now.
    pub(in crate::pipeline) fn is_full(&self, partition: &Arc<Partition>) -> bool {
        let Self::Retries(retries) = self else { return false };
        let window = retries.windows.get(&Arc::as_ptr(partition).addr());
        window.is_some_and(|(_, window)| window.is_full(retries.bytes_part(window.bytes())))
    }

    /// Forgets the waiting deliveries of partitions that are no longer ours.
    pub(in crate::pipeline) fn forget_closed(&mut self) {
        if let Self::Retries(retries) = self {
            retries.windows.retain(|_, (partition, _)| !partition.is_closed());
        }
    }
}

/// The middle of a partition's open offsets, or `None` if fewer than half of `open_offsets_max` are open.
fn middle_of_open(partition: &Arc<Partition>, open_offsets_max: usize) -> Option<i64> {
    if partition.open_offsets() < open_offsets_max / 2 {
        return None;
    }
    partition.span().map(|(low, end)| low + (end - low) / 2 + 1)
}

/// Decodes a task transition. `origin` is the position at which it was first read.
fn transition(record: &Record<'_>, origin: UnreadOrigin, limits: Limits) -> Incoming {
    let UnreadOrigin { source, timestamp_ms, replays } = &origin;
    match decode(record.value, source, TimestampMs(*timestamp_ms), limits) {
        Ok(Decoded::Event(event)) => {
            let (source, replays) = (source.clone(), *replays);
            Incoming::Event {
                event: Arc::new(event),
                traceparent: record::traceparent(record.headers),
                source,
                replays,
            }
        }
        Ok(Decoded::Nothing(why)) => Incoming::Nothing(why),
        Err(error) => undecodable(record, origin, &error),
    }
}

fn undecodable(record: &Record<'_>, origin: UnreadOrigin, error: &Undecodable) -> Incoming {
    let reason = match error {
        Undecodable::Malformed(_) => DeadReason::Malformed,
        Undecodable::TooLarge { .. } => DeadReason::TooLarge,
    };
    unreadable(record, origin, reason, error.detail())
}

/// The origin of a record that isn't a replay.
fn here(record: &Record<'_>, partition: &Arc<Partition>) -> UnreadOrigin {
    UnreadOrigin {
        source: RecordPosition { topic: partition.topic.clone(), partition: partition.number, offset: record.offset },
        timestamp_ms: record.timestamp_ms,
        replays: 0,
    }
}

fn malformed(record: &Record<'_>, origin: UnreadOrigin, detail: Detail) -> Incoming {
    unreadable(record, origin, DeadReason::Malformed, detail)
}

fn unreadable(record: &Record<'_>, origin: UnreadOrigin, reason: DeadReason, detail: Detail) -> Incoming {
    // A replayed record has our headers after its own, and the origin comes from them. A record with such headers of
    // somebody else has another origin, and keeps them all.
    let is_replay =
        record::is_replay_of_unread(record.headers) && record::unread_origin(record.headers).as_ref() == Some(&origin);
    Incoming::Unreadable(Arc::new(Unreadable {
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: if is_replay {
            record::untouched(record.headers)
        } else {
            record.headers.map_or_else(OwnedHeaders::new, BorrowedHeaders::detach)
        },
        origin,
        reason,
        detail,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::delivery::DeliveryId;
    use crate::kafka::headers;
    use crate::payload::Bodies;
    use crate::payload::PayloadFormat;
    use crate::pipeline::committed::Committed;
    use crate::pipeline::partition::Partition;
    use crate::pipeline::standstill::Standstill;
    use crate::webhook::Webhook;

    type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn assigned(topic: &str) -> Arc<Partition> {
        static STANDSTILL: LazyLock<Arc<Standstill>> =
            LazyLock::new(|| Standstill::watch(Duration::from_secs(3_600)).unwrap());
        Arc::new(Partition::new(topic.into(), 0, Committed::default(), STANDSTILL.clone()))
    }

    /// Header values: valid ones, nearly valid ones, and random bytes.
    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        let sensible = prop::sample::select(vec![
            "0190a5b2-7c1d-7d52-9d5b-0c2f7a1e4b10",
            "task.failed",
            "e1",
            "0",
            "1",
            "4294967295",
            "4294967296",
            "-1",
            "",
            "9223372036854775807",
            "-9223372036854775808",
            "2224454400000",
            "task-events",
            "task-events.retry.1",
            "true",
            "503",
            "timeout",
            "dlq/0/1/2",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "\u{fffd}",
        ]);
        prop_oneof![
            6 => sensible.prop_map(|text| Some(text.as_bytes().to_vec())),
            1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Some),
            1 => Just(None),
        ]
    }

    /// All headers that a retry record needs. Further headers may override them.
    const REQUIRED: [(&str, &str); 11] = [
        ("optio-delivery-id", "0190a5b2-7c1d-7d52-9d5b-0c2f7a1e4b10"),
        ("optio-webhook-id", "0190a5b2-7c1d-7d52-9d5b-0c2f7a1e4b11"),
        ("optio-event", "task.failed"),
        ("optio-event-id", "e"),
        ("optio-task-id", "t"),
        ("optio-attempts", "1"),
        ("optio-due-at", "0"),
        ("optio-first-seen-at", "0"),
        ("optio-source-topic", "task-events"),
        ("optio-source-partition", "0"),
        ("optio-source-offset", "0"),
    ];

    fn headers() -> impl Strategy<Value = Headers> {
        let ours = prop::sample::select(vec![
            "optio-delivery-id",
            "optio-webhook-id",
            "optio-event",
            "optio-event-id",
            "optio-task-id",
            "optio-attempts",
            "optio-deferrals",
            "optio-due-at",
            "optio-first-seen-at",
            "optio-last-error",
            "optio-last-status",
            "optio-source-topic",
            "optio-source-partition",
            "optio-source-offset",
            "optio-source-timestamp",
            "optio-replays",
            "optio-replay-of",
            "optio-replay-unread",
            "optio-dead-reason",
            "traceparent",
        ]);
        let key = prop_oneof![
            8 => ours.prop_map(|name| name.as_bytes().to_vec()),
            1 => prop::collection::vec(1_u8.., 0..12),
        ];
        let required: Headers =
            REQUIRED.map(|(key, value)| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))).to_vec();
        (any::<bool>(), prop::collection::vec((key, value()), 0..8)).prop_map(move |(has_required, more)| {
            let first = if has_required { required.clone() } else { Headers::new() };
            [first, more].concat()
        })
    }

    fn body() -> impl Strategy<Value = Option<Vec<u8>>> {
        let messages = prop::sample::select(vec![
            r#"{"taskId":"t","toState":"completed"}"#,
            r#"{"taskId":"t","toState":"failed","task":{"title":"x\ud83d","errorMessage":"y","prNumber":"7","costUsd":1e999}}"#,
            r#"{"taskId":"t","toState":"running"}"#,
            r#"{"taskId":"t","toState":"completed","id":[],"timestamp":1e30,"task":[1]}"#,
            r#"["e","t","completed"]"#,
        ]);
        prop_oneof![
            4 => messages.prop_map(|text| Some(text.as_bytes().to_vec())),
            1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Some),
            1 => Just(None),
        ]
    }

    #[test]
    fn a_window_that_is_larger_than_the_open_offsets_moves_nothing_round_and_round() {
        let settings = [("kafka.open_offsets_max", "100"), ("delivery.retry.window_max", "1000")];
        let needed = [("kafka.brokers", "b:9092"), ("secrets.keys", "k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")];
        let config = Arc::new(Config::with(settings.into_iter().chain(needed)).unwrap());
        let partition = assigned("task-events.retry.7");
        let mut intake = Intake::Retries(Retries::new(&config));
        let due = (now_ms() + 3_600_000).to_string();
        let mut headers = OwnedHeaders::new();
        for (key, value) in REQUIRED.into_iter().chain([("optio-due-at", due.as_str())]) {
            headers = headers.insert(rdkafka::message::Header { key, value: Some(value) });
        }
        let mut ready = Batch::default();
        for offset in 0..100 {
            if intake.is_full(&partition) {
                break;
            }
            let headers = Some(headers.as_borrowed());
            let record = Record { key: None, value: Some(b"{}"), headers, offset, timestamp_ms: now_ms(), epoch: None };
            intake.take(&record, &partition, &mut ready);
            intake.release(100, &mut ready);
        }
        assert_eq!((partition.open_offsets(), ready.len()), (25, 0));
    }

    /// Builds everything that the pipeline builds from a record (bodies, and the headers of a hand-off and of a
    /// dead letter), and reads it back.
    fn follow(incoming: &Incoming) {
        match incoming {
            Incoming::Event { event, traceparent, source, replays } => {
                for (url, format) in [
                    ("https://example.com/", PayloadFormat::Optio),
                    ("https://hooks.slack.com/services/", PayloadFormat::Slack),
                    ("https://hooks.slack.com/triggers/", PayloadFormat::Slack),
                ] {
                    let mut webhook = Webhook::new(url.parse().unwrap(), vec![event.event_type], 0);
                    webhook.format = format;
                    let webhook_id = webhook.id;
                    let delivery = Delivery {
                        id: DeliveryId::of(&event.id, webhook_id),
                        webhook_id,
                        event_type: event.event_type,
                        event_id: event.id.clone(),
                        task_id: event.task_id.clone(),
                        body: Bodies::default().of(event, webhook.format, &webhook.url),
                        attempts: 0,
                        deferrals: 0,
                        first_seen_at_ms: 0,
                        source: source.clone(),
                        replays: *replays,
                        traceparent: traceparent.clone(),
                        by_hand: false,
                    };
                    hand_over(&delivery);
                }
            }
            Incoming::Due { delivery, .. } | Incoming::DueLater { delivery, .. } => hand_over(delivery),
            Incoming::Unreadable(record) => {
                let letter = record::dead(
                    record::unread(record.headers.clone(), &record.origin),
                    record.reason,
                    &record.detail,
                    0,
                );
                assert_eq!(
                    record::unread_origin(Some(letter.as_borrowed())).is_some(),
                    record.origin.source.topic.len() <= 1_024
                );
                assert!(headers::last(Some(letter.as_borrowed()), "optio-dead-detail").unwrap().chars().count() <= 300);
                let _ = record::untouched(Some(letter.as_borrowed()));
            }
            Incoming::Nothing(_) => {}
        }
    }

    fn hand_over(delivery: &Delivery) {
        let headers = record::headers(delivery, Some(7), LastError::default());
        let (read, due_at_ms, _) = record::read(Some(&delivery.body), Some(headers.as_borrowed())).unwrap();
        assert_eq!((&read, due_at_ms), (delivery, 7), "a hand-off reads back as it was written");
        let policy = crate::delivery::FatePolicy::new(&Config::built_in().delivery);
        let _ = (policy.too_old(delivery, now_ms()), policy.after_deferral(delivery, None, now_ms(), 0.5));
    }

    #[test]
    fn a_record_that_is_too_large_is_not_parsed_in_any_topic() {
        let limits = Limits { record_max: 2_000, payload_max: 1_000 };
        let mut config = Config::built_in();
        (config.events.bytes_max, config.delivery.payload_max) = (limits.record_max, limits.payload_max);
        let retries = || Intake::Retries(Retries::new(&Arc::new(config.clone())));
        let mut replayed = OwnedHeaders::new();
        for (key, value) in [
            ("optio-source-topic", "task-events.retry.1"),
            ("optio-source-partition", "0"),
            ("optio-source-offset", "7"),
            ("optio-replay-unread", "true"),
        ] {
            headers::add(&mut replayed, key.as_bytes(), Some(value.as_bytes()));
        }
        for (topic, mut intake, headers) in [
            ("task-events", Intake::Events { limits }, None),
            ("task-events.retry.1", retries(), None),
            ("task-events.replay", retries(), Some(replayed.as_borrowed())),
        ] {
            for (size, reason) in [(2_001, DeadReason::TooLarge), (2_000, DeadReason::Malformed)] {
                let value = vec![b'x'; size];
                let record =
                    Record { key: None, value: Some(&value), headers, offset: 0, timestamp_ms: 0, epoch: None };
                let partition = assigned(topic);
                let mut ready = Batch::default();
                intake.take(&record, &partition, &mut ready);
                let (Incoming::Unreadable(unreadable), _) = &ready.records[0] else { panic!("{topic}: {ready:?}") };
                assert_eq!(unreadable.reason, reason, "{topic}: {}", unreadable.detail);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

        /// `PROPTEST_CASES=1000000` runs more cases.
        #[test]
        fn no_record_of_any_topic_panics_on_its_way_to_a_hand_off(
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), value in body(), pairs in headers(),
            timestamp_ms in prop_oneof![any::<i64>(), Just(1_742_983_954_000), Just(1_742_983_954_000_000)],
            offset in prop_oneof![any::<i64>(), 0_i64..1_000],
        ) {
            let mut owned = OwnedHeaders::new();
            for (key, value) in &pairs {
                headers::add(&mut owned, key, value.as_deref());
            }
            let headers = (!pairs.is_empty()).then(|| owned.as_borrowed());
            let record = Record { key: key.as_deref(), value: value.as_deref(), headers, offset, timestamp_ms, epoch: None };
            let config = Arc::new(Config::built_in());
            let events = Intake::Events { limits: Limits { record_max: 50_000, payload_max: 1_000 } };
            for (topic, mut intake) in [
                ("task-events", events),
                ("task-events.retry.1", Intake::Retries(Retries::new(&config))),
                ("task-events.retry.99", Intake::Retries(Retries::new(&config))),
                ("task-events.replay", Intake::Retries(Retries::new(&config))),
            ] {
                let partition = assigned(topic);
                let mut ready = Batch::default();
                intake.take(&record, &partition, &mut ready);
                // The partition has two open offsets, which is its maximum here, so long waits are moved on.
                let _ = partition.open(Offset(offset.saturating_add(1)), TimestampMs(0));
                let _ = intake.wait(Duration::from_secs(1));
                intake.release(2, &mut ready);
                let _ = intake.is_full(&partition);
                for (incoming, receipt) in &ready.records {
                    follow(incoming);
                    receipt.settle();
                }
                let _ = partition.to_commit();
            }
        }
    }

    fn cases() -> u32 {
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
    }
}
