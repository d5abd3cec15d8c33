//! The events that a webhook missed while it was paused or disabled, as positions in the events topic.
//!
//! A worker records each one in the same batch that settles it. While a webhook is inactive, it misses every event that
//! it would get, so consecutive positions become one range for each partition and for each time that the webhook was
//! changed. Deliveries that waited when the webhook became inactive are recorded one by one.

use std::collections::{BTreeMap, HashMap};

use redis::{AsyncCommands as _, RedisResult, Script};

use super::Keys;
use super::connection::Connection;
use crate::position::RecordPosition;
use crate::webhook::WebhookId;

/// The most fields of a webhook. Further events are only counted.
pub const FIELDS_MAX: usize = 100_000;

/// Removes the fields that were sent, unless they have changed since, and subtracts their events from the count. If none
/// of them is there, another run has removed them, and everything here was missed since.
const CLEAR: &str = r"
    local found = 0
    for at = 2, #ARGV, 2 do
        if redis.call('HGET', KEYS[1], ARGV[at]) then
            found = found + 1
            if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
        end
    end
    if found == 0 and #ARGV > 1 then return end
    local left = redis.call('HINCRBY', KEYS[1], 'count', -tonumber(ARGV[1]))
    local fields = redis.call('HLEN', KEYS[1])
    for _, name in ipairs({'count', 'since', 'sending'}) do fields = fields - redis.call('HEXISTS', KEYS[1], name) end
    if fields > 0 then
        if left < fields then redis.call('HSET', KEYS[1], 'count', fields) end
    elseif left <= 0 then
        redis.call('DEL', KEYS[1])
    end";

/// An event that a webhook missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedEvent {
    /// The webhook.
    pub webhook: WebhookId,
    /// The field of the hash: a range or a single position.
    pub field: String,
    /// The offset of the event.
    pub offset: i64,
}

impl MissedEvent {
    /// An event that was read while `webhook` was inactive, since it was changed at `updated_at`.
    #[must_use]
    pub fn while_inactive(webhook: WebhookId, updated_at: &str, partition: i32, offset: i64) -> Self {
        Self { webhook, field: format!("r:{partition}:{updated_at}"), offset }
    }

    /// The event of a delivery whose turn came while its webhook was inactive.
    #[must_use]
    pub fn single(webhook: WebhookId, source: &RecordPosition) -> Self {
        let RecordPosition { partition, offset, .. } = source;
        Self { webhook, field: format!("s:{partition}:{offset}"), offset: *offset }
    }
}

/// Consecutive events that a webhook missed, as one change of its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissedSpan<'a> {
    /// The number of the newest settlement among them.
    pub number: u64,
    /// The webhook.
    pub webhook: WebhookId,
    /// The field of the hash.
    pub field: &'a str,
    /// The lowest and the highest offset.
    pub offsets: (i64, i64),
    /// The number of events.
    pub count: u64,
}

/// Puts the events of a batch together, so that many inactive webhooks cost one change each and not one for each event.
///
/// If Redis times out and a batch is sent again in other parts, some events may be counted twice. None is forgotten.
#[derive(Debug, Default)]
pub struct MissedTogether<'a>(HashMap<(WebhookId, &'a str), MissedSpan<'a>>);

impl<'a> MissedTogether<'a> {
    /// Adds an event, with the number of its settlement. Numbers grow.
    pub fn add(&mut self, number: u64, missed: &'a MissedEvent) {
        let MissedEvent { webhook, field, offset } = missed;
        let new = MissedSpan { number, webhook: *webhook, field, offsets: (*offset, *offset), count: 0 };
        let span = self.0.entry((*webhook, field.as_str())).or_insert(new);
        span.number = number;
        span.offsets = (span.offsets.0.min(*offset), span.offsets.1.max(*offset));
        span.count += 1;
    }

    /// The spans, in the order of their numbers.
    #[must_use]
    pub fn all(self) -> Vec<MissedSpan<'a>> {
        let mut spans: Vec<MissedSpan<'a>> = self.0.into_values().collect();
        spans.sort_unstable_by_key(|span| span.number);
        spans
    }
}

/// What a webhook missed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missed {
    /// The number of events.
    pub count: u64,
    /// When the first was missed, in Unix milliseconds.
    pub since_ms: Option<i64>,
    /// When sending them began, in Unix milliseconds, if that has not ended.
    pub sending_since_ms: Option<i64>,
    /// The ranges of each partition, with their ends.
    ranges: HashMap<i32, Vec<(i64, i64)>>,
    /// When each single position was missed, in Unix milliseconds.
    singles: HashMap<(i32, i64), i64>,
    /// The fields as they were read.
    fields: Vec<(String, String)>,
}

impl Missed {
    /// The first and the last offset of each partition.
    #[must_use]
    pub fn spans(&self) -> BTreeMap<i32, (i64, i64)> {
        let mut spans = BTreeMap::new();
        let ranges = self.ranges.iter().flat_map(|(partition, all)| all.iter().map(|range| (*partition, *range)));
        let singles = self.singles.keys().map(|(partition, offset)| (*partition, (*offset, *offset)));
        for (partition, (first, last)) in ranges.chain(singles) {
            let span = spans.entry(partition).or_insert((first, last));
            *span = (span.0.min(first), span.1.max(last));
        }
        spans
    }

    /// Whether the event at this position was missed.
    #[must_use]
    pub fn has(&self, partition: i32, offset: i64) -> bool {
        let is_in = |ranges: &Vec<(i64, i64)>| ranges.iter().any(|(first, last)| (*first..=*last).contains(&offset));
        self.singles.contains_key(&(partition, offset)) || self.ranges.get(&partition).is_some_and(is_in)
    }

    /// Whether the event was missed again after sending began, so that it may have been sent in vain.
    #[must_use]
    pub fn is_missed_again(&self, partition: i32, offset: i64) -> bool {
        let missed_at = self.singles.get(&(partition, offset));
        missed_at.is_some_and(|at| self.sending_since_ms.is_some_and(|began| *at >= began))
    }

    fn read(fields: HashMap<Vec<u8>, Vec<u8>>) -> Self {
        let mut missed = Self::default();
        for (field, value) in fields {
            let (Ok(field), Ok(value)) = (String::from_utf8(field), String::from_utf8(value)) else { continue };
            match field.as_str() {
                "count" => missed.count = value.parse().unwrap_or(0),
                "since" => missed.since_ms = value.parse().ok(),
                "sending" => missed.sending_since_ms = value.parse().ok(),
                _ => missed.place(field, value),
            }
        }
        missed
    }

    fn place(&mut self, field: String, value: String) {
        let parts: Vec<&str> = field.splitn(3, ':').collect();
        let &[kind, partition, rest] = &parts[..] else { return };
        let Ok(partition) = partition.parse() else { return };
        if kind == "s"
            && let (Ok(offset), Ok(at_ms)) = (rest.parse(), value.parse())
        {
            self.singles.insert((partition, offset), at_ms);
        } else if kind == "r"
            && let Some((first, last)) = value.split_once(':')
            && let (Ok(first), Ok(last)) = (first.parse(), last.parse())
        {
            self.ranges.entry(partition).or_default().push((first, last));
        } else {
            return;
        }
        self.fields.push((field, value));
    }
}

/// Access to what webhooks missed.
#[derive(Clone)]
pub struct MissedEvents {
    connection: Connection,
    keys: Keys,
}

impl MissedEvents {
    /// Uses `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys }
    }

    /// How many events a webhook missed, and since when (Unix milliseconds).
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn count(&self, webhook: WebhookId) -> RedisResult<(u64, Option<i64>)> {
        let key = self.keys.missed(webhook);
        let (count, since): (Option<Vec<u8>>, Option<Vec<u8>>) =
            self.connection.clone().hmget(key, &["count", "since"]).await?;
        let number = |bytes: Option<Vec<u8>>| String::from_utf8(bytes?).ok()?.parse::<i64>().ok();
        Ok((number(count).and_then(|count| u64::try_from(count).ok()).unwrap_or(0), number(since)))
    }

    /// What a webhook missed. Unless this is a dry run, it is noted that sending begins at `now_ms` or that it has begun
    /// before.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn begin(&self, webhook: WebhookId, now_ms: i64, dry_run: bool) -> RedisResult<Missed> {
        let (key, connection) = (self.keys.missed(webhook), &mut self.connection.clone());
        let fields: HashMap<Vec<u8>, Vec<u8>> = connection.hgetall(&key).await?;
        let mut missed = Missed::read(fields);
        if missed.sending_since_ms.is_none() && !missed.fields.is_empty() {
            if !dry_run {
                let () = connection.hset_nx(&key, "sending", now_ms).await?;
            }
            missed.sending_since_ms = Some(now_ms);
        }
        Ok(missed)
    }

    /// Forgets what was sent. What was missed meanwhile stays.
    ///
    /// # Errors
    /// Errors of Redis. The next run finds by the marks in the replay topic that everything was sent.
    pub async fn clear(&self, webhook: WebhookId, sent: &Missed) -> RedisResult<()> {
        let script = Script::new(CLEAR);
        let mut call = script.key(self.keys.missed(webhook));
        call.arg(sent.count);
        for (field, value) in &sent.fields {
            call.arg(field).arg(value);
        }
        call.invoke_async(&mut self.connection.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_batch_become_one_span_for_each_field() {
        let webhook = WebhookId(uuid::Uuid::from_u128(1));
        let event = |field: &str, offset| MissedEvent { webhook, field: field.to_owned(), offset };
        let events = [event("r:0:a", 7), event("r:1:a", 3), event("r:0:a", 9), event("s:0:2", 2)];
        let mut together = MissedTogether::default();
        for (number, event) in events.iter().enumerate() {
            together.add(number as u64 + 1, event);
        }
        let spans = together.all();
        let shown: Vec<_> = spans.iter().map(|span| (span.number, span.field, span.offsets, span.count)).collect();
        assert_eq!(shown, [(2, "r:1:a", (3, 3), 1), (3, "r:0:a", (7, 9), 2), (4, "s:0:2", (2, 2), 1)]);
    }

    #[test]
    fn positions_are_found_in_ranges_and_alone() {
        let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let fields = [
            field("count", "7"),
            field("since", "1000"),
            field("sending", "2000"),
            field("r:0:2026-01-01T00:00:00.000Z", "10:19"),
            field("r:0:2026-01-02T00:00:00.000Z", "40:41"),
            field("s:1:5", "2500"),
            field("s:0:3", "1500"),
            field("r:x:y", "z"),
            field("s:1:", ""),
        ];
        let missed = Missed::read(fields.into_iter().collect());
        assert_eq!((missed.count, missed.since_ms, missed.fields.len()), (7, Some(1_000), 4));
        assert_eq!(missed.spans(), BTreeMap::from([(0, (3, 41)), (1, (5, 5))]));
        assert!(missed.has(0, 3) && missed.has(0, 19) && missed.has(0, 40) && missed.has(1, 5));
        assert!(!missed.has(0, 20) && !missed.has(1, 10) && !missed.has(2, 5));
        assert!(missed.is_missed_again(1, 5) && !missed.is_missed_again(0, 3) && !missed.is_missed_again(0, 10));
    }
}
