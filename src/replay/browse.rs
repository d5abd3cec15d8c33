//! Browsing of dead letters by page. The memory is bounded, however many dead letters there are.

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
use crate::clock::rfc3339;
use crate::config::Config;
use crate::delivery::{DeadReason, DeliveryId};
use crate::detail::{self, DETAIL_MAX};
use crate::event::EventType;
use crate::kafka::headers;
use crate::record::header_names as names;
use crate::topics::Names;
use crate::webhook::WebhookId;

/// The number of bytes of a payload that are shown.
const PAYLOAD_SHOWN_MAX: usize = 64 << 10;
/// The most headers of a dead letter that are shown. This program writes fewer, but a producer may have written any.
const HEADERS_SHOWN_MAX: usize = 100;
/// The longest name and the longest value of a header that are shown, in bytes.
const HEADER_SHOWN_MAX: usize = 2_048;

/// A dead letter as the API and the page show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetter)]
pub struct ListedDeadLetter {
    /// The position in the dead-letter topic, as partition/offset.
    pub id: String,
    /// The id of the delivery; null for a record that could not be read.
    pub delivery_id: Option<DeliveryId>,
    /// The webhook of the delivery; null for a record that could not be read.
    pub webhook_id: Option<WebhookId>,
    /// The type of the event; null for a record that could not be read.
    pub event: Option<EventType>,
    /// Why it was dead-lettered; null if the record does not say.
    pub reason: Option<DeadReason>,
    /// The reason in a sentence.
    pub detail: Option<String>,
    /// The time at which it was dead-lettered, in RFC 3339.
    pub died_at: String,
    /// The number of replays and redeliveries before it was dead-lettered.
    pub replays: u32,
    /// The body of the request, or the value of the record that could not be read. At most the first 64 KiB.
    pub payload: String,
    /// The headers of the record.
    pub headers: Vec<(String, String)>,
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetters)]
pub struct DeadLetterPage {
    /// The dead letters, newest first.
    pub dead_letters: Vec<ListedDeadLetter>,
    /// The cursor of the next page, which has older dead letters; null at the end.
    #[schema(value_type = Option<String>)]
    pub next: Option<Cursor>,
}

/// The start of a page: an offset of each partition, below which the page begins.
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

/// The error of parsing a text that is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("isn't a cursor; use the `next` of an earlier page")]
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

/// The limits of a page. A page that reaches `look_at_max` or `until` is short, or even empty, and has a next page.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The largest number of dead letters on the page, at least 1.
    pub limit: usize,
    /// The largest number of offsets to read, but at least one of each partition.
    pub look_at_max: u64,
    /// The time after which no further stretch is read. A stretch that has been started is finished.
    pub until: Instant,
}

/// The newest dead letters that `choice` selects, older than `cursor`. Keeps only a few pages in memory, plus one dead
/// letter of each partition. Blocks. While the broker is unavailable, it waits until `stop` is cancelled.
///
/// # Errors
/// If the topic cannot be read, or `stop` is cancelled.
pub fn browse(
    config: &Config,
    choice: &Choice,
    cursor: Option<Cursor>,
    bounds: Bounds,
    stop: &CancellationToken,
) -> anyhow::Result<DeadLetterPage> {
    let start = choice.since_ms.map_or(Start::Oldest, Start::At);
    let scan = Scan::locate(config, &Names::new(config).dead_letters(), start)?;
    let (dead_letters, next) = newest(scan, &cursor.unwrap_or_default(), bounds, stop, |record| {
        if !choice.may_select(record.key()) {
            return None;
        }
        let letter = Letter::read(record);
        choice.selects(&letter).then(|| (letter.died_at_ms, shown(record, letter)))
    })?;
    Ok(DeadLetterPage { dead_letters, next })
}

/// The newest records of a topic that `read` wants, newest first, and the cursor of the next page. `read` returns the
/// time (Unix milliseconds) and what is kept of a record that it wants. Blocks.
///
/// # Errors
/// If the topic cannot be read, or `stop` is cancelled.
pub(super) fn newest<T>(
    mut scan: Scan,
    cursor: &Cursor,
    bounds: Bounds,
    stop: &CancellationToken,
    mut read: impl FnMut(&BorrowedMessage<'_>) -> Option<(i64, T)>,
) -> anyhow::Result<(Vec<T>, Option<Cursor>)> {
    let Bounds { limit, look_at_max, until } = bounds;
    let Cursor(below) = cursor;
    let spans = scan.spans().iter().map(|(partition, (low, high))| {
        let below = below.get(partition).map_or(*high, |below| (*below).clamp(*low, *high));
        (*partition, (*low, below))
    });
    let mut search = Backwards::new(spans.collect::<Vec<_>>(), limit);
    let mut budget = look_at_max;
    while Instant::now() < until {
        let stretches = search.stretches(budget);
        if stretches.is_empty() {
            break;
        }
        scan.read_spans(stretches.clone())?;
        budget = budget.saturating_sub(scan.total());
        let mut found: HashMap<i32, Stretch<T>> = HashMap::new();
        while let Some(record) = scan.next(stop)? {
            let stretch = found.entry(record.partition()).or_insert_with(|| Stretch::new(limit));
            stretch.looked_at(record.timestamp().to_millis().unwrap_or(i64::MAX));
            if let Some((at_ms, kept)) = read(&record) {
                stretch.found(record.offset(), at_ms, kept);
            }
        }
        anyhow::ensure!(!stop.is_cancelled(), "reading a topic was interrupted");
        for (partition, (from, _)) in stretches {
            search.read(partition, from, found.remove(&partition).unwrap_or_else(|| Stretch::new(limit)));
        }
    }
    let (kept, next) = search.page();
    Ok((kept, next.map(Cursor)))
}

/// The dead letter at this position. None if there is none, or if the topic has already deleted it. Blocks like
/// [`browse`].
///
/// # Errors
/// If the topic cannot be read, or `stop` is cancelled.
pub fn one(
    config: &Config,
    partition: i32,
    offset: i64,
    stop: &CancellationToken,
) -> anyhow::Result<Option<ListedDeadLetter>> {
    let mut scan = Scan::locate(config, &Names::new(config).dead_letters(), Start::Oldest)?;
    let is_there = scan.spans().get(&partition).is_some_and(|(low, high)| (*low..*high).contains(&offset));
    if !is_there {
        return Ok(None);
    }
    scan.read_spans(HashMap::from([(partition, (offset, offset + 1))]))?;
    let found = scan.next(stop)?.map(|record| shown(&record, Letter::read(&record)));
    anyhow::ensure!(!stop.is_cancelled(), "reading a dead letter was interrupted");
    Ok(found)
}

fn shown(record: &BorrowedMessage<'_>, letter: Letter) -> ListedDeadLetter {
    let origin = origin(record);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let payload = record.payload().unwrap_or_default();
    let cut = |bytes: &[u8]| text(&bytes[..bytes.len().min(HEADER_SHOWN_MAX)]);
    let all: Vec<headers::Header<'_>> = headers::all(record.headers()).collect();
    // Ours are the last ones.
    let last = &all[all.len().saturating_sub(HEADERS_SHOWN_MAX)..];
    let headers: Vec<(String, String)> =
        last.iter().map(|header| (cut(header.key), cut(header.value.unwrap_or_default()))).collect();
    ListedDeadLetter {
        id: format!("{}/{}", origin.partition, origin.offset),
        delivery_id: letter.delivery_id,
        webhook_id: letter.webhook_id,
        event: letter.event,
        reason: letter.reason,
        detail: headers::last(record.headers(), names::DEAD_DETAIL).map(|text| detail::cut(text, DETAIL_MAX)),
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
    fn a_cursor_survives_its_text_and_other_texts_are_refused() {
        let cursor = Cursor(HashMap::from([(0, 12), (3, 400)]));
        assert_eq!(cursor.to_string(), "0-12.3-400");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!("0-12;".parse::<Cursor>(), Err(BadCursor));
        assert_eq!("".parse::<Cursor>(), Err(BadCursor));
    }
}
