//! Looking through dead letters, page by page, in bounded memory however many there are.

use std::collections::HashMap;
use std::time::Instant;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::backwards::{Backwards, Stretch};
use super::choice::Choice;
use super::dead_letters::origin;
use super::letter::Letter;
use super::scan::{Scan, Start};
use crate::config::Config;
use crate::delivery::{DeadReason, DeliveryId};
use crate::event::{EventType, rfc3339};
use crate::kafka::headers;
use crate::topics::Names;
use crate::webhook::WebhookId;

/// Bytes of a payload that are shown.
const PAYLOAD_SHOWN_MAX: usize = 64 << 10;

/// A dead letter for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetter)]
pub struct Shown {
    /// Where it stands: partition/offset.
    pub id: String,
    /// Its identity; None for a record that couldn't be read.
    pub delivery_id: Option<DeliveryId>,
    /// Whom it was for.
    pub webhook_id: Option<WebhookId>,
    /// What of.
    pub event: Option<EventType>,
    /// Why it died.
    pub reason: Option<DeadReason>,
    /// Why, for people.
    pub detail: Option<String>,
    /// When it died.
    pub died_at: String,
    /// How often it was replayed before it died.
    pub replays: u32,
    /// The body, or the record that couldn't be read; its beginning, where it is very long.
    pub payload: String,
    /// The record's headers.
    pub headers: Vec<(String, String)>,
}

/// A page of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetters)]
pub struct Page {
    /// Those that fit, newest first.
    pub dead_letters: Vec<Shown>,
    /// Where the next page, of older ones, begins; None at the end.
    #[schema(value_type = Option<String>)]
    pub next: Option<Cursor>,
}

/// Where a page begins: below these offsets of each partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(pub HashMap<i32, i64>);

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut offsets: Vec<_> = self.0.iter().collect();
        offsets.sort_unstable();
        for (at, (partition, offset)) in offsets.into_iter().enumerate() {
            write!(f, "{}{partition}-{offset}", if at == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

/// Not a cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("isn't a cursor; allowed is the `next` of an earlier page")]
pub struct BadCursor;

impl std::str::FromStr for Cursor {
    type Err = BadCursor;
    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let offset = |part: &str| {
            let (partition, offset) = part.split_once('-')?;
            Some((partition.parse().ok()?, offset.parse().ok()?))
        };
        let offsets: Option<HashMap<i32, i64>> = text.split('.').map(offset).collect();
        offsets.map(Self).ok_or(BadCursor)
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a page may take. With one of these at its end it is short, or empty, and still has a next one.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Dead letters of the page, at least 1.
    pub limit: usize,
    /// Offsets that are looked at for it, or one of each partition where that is more.
    pub look_at_max: u64,
    /// When it is to be over; what is being read then is read to its end.
    pub until: Instant,
}

/// The newest dead letters that `choice` means, older than `cursor`. Holds no more than a few pages of them, and one of
/// each partition. Blocks; a broker that is away is waited for until `stop`.
///
/// # Errors
/// Where the topic can't be read.
pub fn browse(
    config: &Config,
    choice: &Choice,
    cursor: Option<Cursor>,
    bounds: Bounds,
    stop: &CancellationToken,
) -> anyhow::Result<Page> {
    let Bounds { limit, look_at_max, until } = bounds;
    let start = choice.since_ms.map_or(Start::Oldest, Start::At);
    let mut scan = Scan::locate(config, &Names::new(config).dead_letters(), start)?;
    let Cursor(below) = cursor.unwrap_or_default();
    let spans = scan.spans().iter().map(|(partition, (low, high))| {
        let below = below.get(partition).map_or(*high, |below| (*below).clamp(*low, *high));
        (*partition, (*low, below))
    });
    let mut search = Backwards::new(spans.collect::<Vec<_>>(), limit);
    let mut left = look_at_max;
    while Instant::now() < until {
        let stretches = search.stretches(left);
        if stretches.is_empty() {
            break;
        }
        scan.turn_to(stretches.clone())?;
        left = left.saturating_sub(scan.total());
        let mut found: HashMap<i32, Stretch<Shown>> = HashMap::new();
        while let Some(record) = scan.next(stop)? {
            let stretch = found.entry(record.partition()).or_insert_with(|| Stretch::new(limit));
            stretch.looked_at(record.timestamp().to_millis().unwrap_or(i64::MAX));
            if !choice.may_take(record.key()) {
                continue;
            }
            let letter = Letter::read(&record);
            if choice.takes(&letter) {
                stretch.found(record.offset(), letter.died_at_ms, shown(&record, letter));
            }
        }
        anyhow::ensure!(!stop.is_cancelled(), "reading dead letters was ended before its end");
        for (partition, (from, _)) in stretches {
            search.read(partition, from, found.remove(&partition).unwrap_or_else(|| Stretch::new(limit)));
        }
    }
    let (dead_letters, next) = search.page();
    Ok(Page { dead_letters, next: next.map(Cursor) })
}

/// The dead letter at that place; None where there is none, or not any more. Blocks as [`browse`] does.
///
/// # Errors
/// Where the topic can't be read.
pub fn one(config: &Config, partition: i32, offset: i64, stop: &CancellationToken) -> anyhow::Result<Option<Shown>> {
    let mut scan = Scan::locate(config, &Names::new(config).dead_letters(), Start::Oldest)?;
    let is_there = scan.spans().get(&partition).is_some_and(|(low, high)| (*low..*high).contains(&offset));
    if !is_there {
        return Ok(None);
    }
    scan.turn_to(HashMap::from([(partition, (offset, offset + 1))]))?;
    let found = scan.next(stop)?.map(|record| shown(&record, Letter::read(&record)));
    anyhow::ensure!(!stop.is_cancelled(), "reading a dead letter was ended before its end");
    Ok(found)
}

fn shown(record: &BorrowedMessage<'_>, letter: Letter) -> Shown {
    let origin = origin(record);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let payload = record.payload().unwrap_or_default();
    let headers: Vec<(String, String)> = headers::all(record.headers())
        .map(|header| (text(header.key), text(header.value.unwrap_or_default())))
        .collect();
    Shown {
        id: format!("{}/{}", origin.partition, origin.offset),
        delivery_id: letter.delivery_id,
        webhook_id: letter.webhook_id,
        event: letter.event,
        reason: letter.reason,
        detail: headers::last(record.headers(), "optio-dead-detail").map(str::to_owned),
        died_at: rfc3339(letter.died_at_ms),
        replays: letter.replays,
        payload: text(&payload[..payload.len().min(PAYLOAD_SHOWN_MAX)]),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_from_its_text_and_anything_else_is_refused() {
        let cursor = Cursor(HashMap::from([(0, 12), (3, 400)]));
        assert_eq!(cursor.to_string(), "0-12.3-400");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!("0-12;".parse::<Cursor>(), Err(BadCursor));
        assert_eq!("".parse::<Cursor>(), Err(BadCursor));
    }
}
