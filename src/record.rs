//! How a delivery travels through retry and dead-letter topics (contract section 4): headers of UTF-8 strings.

pub mod header_names;

use rdkafka::message::{BorrowedHeaders, Header, OwnedHeaders};

use crate::delivery::{DeadReason, Delivery, DeliveryId, FailureCode};
use crate::event::EventType;
use crate::kafka::headers;
use crate::position::RecordPosition;
use crate::webhook::WebhookId;
use header_names as names;

/// Why the last try didn't deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastError {
    /// `optio-last-error`
    pub code: Option<FailureCode>,
    /// `optio-last-status`
    pub status: Option<u16>,
}

/// What stands behind the headers of a record that couldn't be read.
const BEHIND_UNREAD: [&str; 11] = [
    names::SOURCE_TOPIC,
    names::SOURCE_PARTITION,
    names::SOURCE_OFFSET,
    names::SOURCE_TIMESTAMP,
    names::REPLAYS,
    names::DEAD_REASON,
    names::DEAD_DETAIL,
    names::DEAD_AT,
    names::SHORTENED_FROM,
    names::REPLAY_OF,
    names::REPLAY_UNREAD,
];

/// Where a record that couldn't be read came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadOrigin {
    /// Where it stood.
    pub source: RecordPosition,
    /// Its timestamp there, Unix milliseconds.
    pub timestamp_ms: i64,
    /// How often it was replayed.
    pub replays: u32,
}

/// A record of a retry tier that isn't one: it goes to the dead-letter topic as `malformed`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// It has no body that could be sent.
    #[error("the record has no value; the body of the request is needed")]
    NoBody,
    /// A header that it can't do without.
    #[error("header {0} is missing or can't be read")]
    Header(&'static str),
}

/// Bytes of a header of ours: ids, names and numbers are all shorter.
const TEXT_MAX: usize = 1_024;
/// Characters of a dead letter's detail.
pub const DETAIL_MAX: usize = 300;

/// The headers that every retry and dead-letter record of a delivery has, for `due_at_ms`.
#[must_use]
pub fn headers(delivery: &Delivery, due_at_ms: Option<i64>, last: LastError) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(18);
    let mut put = |key: &str, value: &str| {
        let taken = std::mem::take(&mut headers);
        headers = taken.insert(Header { key, value: Some(value) });
    };
    put(names::DELIVERY_ID, &delivery.id.to_string());
    put(names::WEBHOOK_ID, &delivery.webhook_id.to_string());
    put(names::EVENT, delivery.event_type.as_str());
    put(names::EVENT_ID, &delivery.event_id);
    put(names::TASK_ID, &delivery.task_id);
    put(names::ATTEMPTS, &delivery.attempts.to_string());
    put(names::DEFERRALS, &delivery.deferrals.to_string());
    if let Some(due_at_ms) = due_at_ms {
        put(names::DUE_AT, &due_at_ms.to_string());
    }
    put(names::FIRST_SEEN_AT, &delivery.first_seen_at_ms.to_string());
    if let Some(code) = last.code {
        put(names::LAST_ERROR, code.as_str());
    }
    if let Some(status) = last.status {
        put(names::LAST_STATUS, &status.to_string());
    }
    put(names::SOURCE_TOPIC, &delivery.source.topic);
    put(names::SOURCE_PARTITION, &delivery.source.partition.to_string());
    put(names::SOURCE_OFFSET, &delivery.source.offset.to_string());
    if delivery.replays > 0 {
        put(names::REPLAYS, &delivery.replays.to_string());
    }
    if let Some(traceparent) = &delivery.traceparent {
        put(names::TRACEPARENT, traceparent);
    }
    if delivery.by_hand && delivery.attempts == 0 {
        put(names::BY_HAND, "true");
    }
    headers
}

/// What a dead letter says beside that.
#[must_use]
pub fn dead(headers: OwnedHeaders, reason: DeadReason, detail: &str, at_ms: i64) -> OwnedHeaders {
    headers
        .insert(Header { key: names::DEAD_REASON, value: Some(reason.as_str()) })
        .insert(Header { key: names::DEAD_DETAIL, value: Some(&beginning(detail)) })
        .insert(Header { key: names::DEAD_AT, value: Some(&at_ms.to_string()) })
}

/// What a dead letter says whose value of `size` bytes was cut.
#[must_use]
pub fn shortened(headers: OwnedHeaders, size: usize) -> OwnedHeaders {
    headers.insert(Header { key: names::SHORTENED_FROM, value: Some(&size.to_string()) })
}

/// The beginning of a text that is too long for a dead letter.
fn beginning(detail: &str) -> String {
    match detail.char_indices().nth(DETAIL_MAX - 1) {
        Some((at, last)) if at + last.len_utf8() < detail.len() => format!("{}…", &detail[..at]),
        _ => detail.to_owned(),
    }
}

/// Where a record that couldn't be read came from, behind its own headers.
#[must_use]
pub fn unread(headers: OwnedHeaders, origin: &UnreadOrigin) -> OwnedHeaders {
    let UnreadOrigin { source, timestamp_ms, replays } = origin;
    let headers = headers
        .insert(Header { key: names::SOURCE_TOPIC, value: Some(&*source.topic) })
        .insert(Header { key: names::SOURCE_PARTITION, value: Some(&source.partition.to_string()) })
        .insert(Header { key: names::SOURCE_OFFSET, value: Some(&source.offset.to_string()) })
        .insert(Header { key: names::SOURCE_TIMESTAMP, value: Some(&timestamp_ms.to_string()) });
    if *replays == 0 {
        return headers;
    }
    headers.insert(Header { key: names::REPLAYS, value: Some(&replays.to_string()) })
}

/// Reads what [`unread`] wrote. Where the record had headers of these names itself, ours are the last.
#[must_use]
pub fn unread_origin(headers: Option<&BorrowedHeaders>) -> Option<UnreadOrigin> {
    let find = |name: &str| headers::last(headers, name).filter(|text| text.len() <= TEXT_MAX);
    Some(UnreadOrigin {
        source: RecordPosition {
            topic: find(names::SOURCE_TOPIC)?.into(),
            partition: find(names::SOURCE_PARTITION)?.parse().ok()?,
            offset: find(names::SOURCE_OFFSET)?.parse().ok()?,
        },
        timestamp_ms: find(names::SOURCE_TIMESTAMP).and_then(|text| text.parse().ok()).unwrap_or(0),
        replays: find(names::REPLAYS).and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}

/// The headers that a record had when it couldn't be read, without ours behind them.
#[must_use]
pub fn untouched(headers: Option<&BorrowedHeaders>) -> OwnedHeaders {
    let mut own: Vec<_> = headers::all(headers).collect();
    for name in BEHIND_UNREAD {
        if let Some(at) = own.iter().rposition(|header| header.is(name)) {
            own.remove(at);
        }
    }
    let mut untouched = OwnedHeaders::new_with_capacity(own.len());
    for header in own {
        headers::add(&mut untouched, header.key, header.value);
    }
    untouched
}

/// What a replayed record says beside its headers: what it is a replay of.
#[must_use]
pub fn replay(headers: OwnedHeaders, of: &str) -> OwnedHeaders {
    headers.insert(Header { key: names::REPLAY_OF, value: Some(of) })
}

/// The same for a record that couldn't be read.
#[must_use]
pub fn replay_unread(headers: OwnedHeaders, origin: &UnreadOrigin, of: &str) -> OwnedHeaders {
    replay(unread(headers, origin), of).insert(Header { key: names::REPLAY_UNREAD, value: Some("true") })
}

/// Whether it is one that couldn't be read.
#[must_use]
pub fn is_replay_of_unread(headers: Option<&BorrowedHeaders>) -> bool {
    headers::last(headers, names::REPLAY_UNREAD).is_some()
}

/// The trace context that a record carries; None where it isn't one. Of several the last counts.
#[must_use]
pub fn traceparent(headers: Option<&BorrowedHeaders>) -> Option<String> {
    headers::last(headers, names::TRACEPARENT).filter(|text| is_traceparent(text)).map(str::to_owned)
}

/// W3C Trace Context, section 3.2.2: version 00, in lower case, neither id all zeros.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    matches!(parts[..], ["00", trace, parent, flags] if is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2))
}

/// Reads a record of a retry tier: the delivery, and when it is due (Unix milliseconds).
///
/// # Errors
/// [`BadRecord`] names the first header that is missing or can't be read.
pub fn read(value: Option<&[u8]>, headers: Option<&BorrowedHeaders>) -> Result<(Delivery, i64, LastError), BadRecord> {
    let (delivery, last) = delivery(value, headers)?;
    let due_at_ms = headers::last(headers, names::DUE_AT).and_then(|text| text.parse().ok());
    Ok((delivery, due_at_ms.ok_or(BadRecord::Header(names::DUE_AT))?, last))
}

/// Reads a retry record or a dead letter, whenever it is due. Of several headers of a name the last counts.
///
/// # Errors
/// As [`read`].
pub fn delivery(value: Option<&[u8]>, headers: Option<&BorrowedHeaders>) -> Result<(Delivery, LastError), BadRecord> {
    let body = value.filter(|value| !value.is_empty()).ok_or(BadRecord::NoBody)?;
    // Taken apart once: that is what costs most of reading one.
    let headers: Vec<headers::Header<'_>> = headers::all(headers).collect();
    let find = |name: &str| {
        let found = headers.iter().rfind(|header| header.is(name))?;
        found.text().filter(|text| text.len() <= TEXT_MAX)
    };
    let text = |name| find(name).ok_or(BadRecord::Header(name));
    let number = |name| text(name)?.parse::<i64>().map_err(|_| BadRecord::Header(name));
    let count = |name| text(name)?.parse::<u32>().map_err(|_| BadRecord::Header(name));
    let id = |name| text(name)?.parse().map_err(|_| BadRecord::Header(name));
    let delivery = Delivery {
        id: DeliveryId(id(names::DELIVERY_ID)?),
        webhook_id: WebhookId(id(names::WEBHOOK_ID)?),
        event_type: EventType::named(text(names::EVENT)?).ok_or(BadRecord::Header(names::EVENT))?,
        event_id: text(names::EVENT_ID)?.to_owned(),
        task_id: text(names::TASK_ID)?.to_owned(),
        body: bytes::Bytes::copy_from_slice(body),
        attempts: count(names::ATTEMPTS)?,
        deferrals: count(names::DEFERRALS).unwrap_or(0),
        first_seen_at_ms: number(names::FIRST_SEEN_AT)?,
        source: RecordPosition {
            topic: text(names::SOURCE_TOPIC)?.into(),
            partition: i32::try_from(number(names::SOURCE_PARTITION)?)
                .map_err(|_| BadRecord::Header(names::SOURCE_PARTITION))?,
            offset: number(names::SOURCE_OFFSET)?,
        },
        replays: count(names::REPLAYS).unwrap_or(0),
        traceparent: find(names::TRACEPARENT).filter(|text| is_traceparent(text)).map(str::to_owned),
        by_hand: find(names::BY_HAND).is_some(),
    };
    let last = LastError {
        code: find(names::LAST_ERROR).and_then(|code| serde_json::from_value(code.into()).ok()),
        status: find(names::LAST_STATUS).and_then(|status| status.parse().ok()),
    };
    Ok((delivery, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::sample;

    #[test]
    fn a_delivery_comes_back_from_a_record_as_it_was() {
        let mut delivery = sample();
        delivery.attempts = 3;
        delivery.deferrals = 2;
        delivery.replays = 1;
        delivery.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        let last = LastError { code: Some(FailureCode::Status), status: Some(503) };
        let headers = headers(&delivery, Some(77), last);
        assert_eq!(read(Some(&delivery.body), Some(headers.as_borrowed())), Ok((delivery, 77, last)));
    }

    #[test]
    fn a_delivery_that_a_person_asked_for_says_so_until_it_is_sent() {
        let asked = Delivery { by_hand: true, ..sample() };
        let read = |delivery: &Delivery| {
            let headers = headers(delivery, Some(77), LastError::default());
            read(Some(&delivery.body), Some(headers.as_borrowed())).unwrap().0
        };
        assert!(read(&asked).by_hand);
        assert!(!read(&Delivery { attempts: 1, ..asked }).by_hand);
        assert!(!read(&sample()).by_hand);
    }

    #[test]
    fn a_record_that_could_not_be_read_gets_its_own_headers_back_even_where_they_look_like_ours() {
        let own = OwnedHeaders::new()
            .insert(Header { key: "optio-source-topic", value: Some("theirs") })
            .insert(Header { key: "x", value: Some("1") });
        let origin = UnreadOrigin { source: sample().source, timestamp_ms: 5, replays: 2 };
        let letter = dead(unread(own.clone(), &origin), DeadReason::Malformed, "why", 9);
        assert_eq!(unread_origin(Some(letter.as_borrowed())), Some(origin.clone()));
        let theirs =
            |headers: &OwnedHeaders| format!("{:?}", headers::all(Some(headers.as_borrowed())).collect::<Vec<_>>());
        assert_eq!(theirs(&untouched(Some(letter.as_borrowed()))), theirs(&own));
        let replayed = replay_unread(untouched(Some(letter.as_borrowed())), &origin, "dlq/0/1/2");
        assert!(is_replay_of_unread(Some(replayed.as_borrowed())));
        assert_eq!(theirs(&untouched(Some(replayed.as_borrowed()))), theirs(&own));
    }

    #[test]
    fn a_dead_letters_detail_has_at_most_300_characters() {
        assert_eq!(beginning("short"), "short");
        assert_eq!(beginning(&"é".repeat(300)), "é".repeat(300));
        assert_eq!(beginning(&"é".repeat(301)), format!("{}…", "é".repeat(299)));
    }

    #[test]
    fn a_traceparent_travels_on_only_in_the_form_of_the_standard() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for bad in ["", "00", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a\r\nb", "00-x-y-z"] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        assert!(!is_traceparent(&format!("00-{}-b7ad6b7169203331-01", "0".repeat(32))));
    }

    #[test]
    fn of_doubled_headers_the_last_counts_and_long_or_null_ones_are_refused() {
        let mut doubled = headers(&sample(), Some(77), LastError::default());
        headers::add(&mut doubled, b"optio-due-at", Some(b"78"));
        assert_eq!(read(Some(b"{}"), Some(doubled.as_borrowed())).unwrap().1, 78);
        for value in [None, Some(b"".as_slice()), Some(b"\xff"), Some(b"9223372036854775808")] {
            headers::add(&mut doubled, b"optio-due-at", value);
            let refused = read(Some(b"{}"), Some(doubled.as_borrowed()));
            assert_eq!(refused, Err(BadRecord::Header("optio-due-at")));
        }
        let mut long = headers(&sample(), Some(77), LastError::default());
        headers::add(&mut long, b"optio-task-id", Some(&[b'x'; 1 << 20]));
        assert_eq!(read(Some(b"{}"), Some(long.as_borrowed())), Err(BadRecord::Header("optio-task-id")));
        assert_eq!(read(None, Some(long.as_borrowed())), Err(BadRecord::NoBody));
    }

    #[test]
    fn a_record_without_our_headers_is_refused_with_the_first_that_is_missing() {
        assert_eq!(
            read(Some(b"{}"), None).unwrap_err().to_string(),
            "header optio-delivery-id is missing or can't be read"
        );
    }
}
