//! Writes and reads the headers with which deliveries travel through the retry, replay and dead-letter topics
//! (`docs/reference.md`, section "Record headers").

pub(crate) mod header_names;

use rdkafka::message::{BorrowedHeaders, Header, OwnedHeaders};
use uuid::Uuid;

use crate::delivery::{DeadReason, Delivery, DeliveryId, FailureCode};
use crate::detail::Detail;
use crate::event::EventType;
use crate::kafka::headers;
use crate::position::RecordPosition;
use crate::traceparent::TraceParent;
use crate::webhook::WebhookId;
use header_names as names;

/// Why the last attempt failed, or why the delivery was deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastError {
    /// `optio-last-error`
    pub code: Option<FailureCode>,
    /// `optio-last-status`
    pub status: Option<u16>,
}

/// The origin of a record that couldn't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadOrigin {
    /// The position to which the record was first written.
    pub source: RecordPosition,
    /// The timestamp that the record had there, in Unix milliseconds.
    pub timestamp_ms: i64,
    /// The number of replays so far.
    pub replays: u32,
}

/// Why a record can't be read as a delivery. Such a record goes to the dead-letter topic as `malformed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRecord {
    /// The record has no value.
    NoBody,
    /// A required header is missing or can't be read.
    Header(&'static str),
}

impl BadRecord {
    /// The detail of the dead letter.
    #[must_use]
    pub fn detail(self) -> Detail {
        match self {
            Self::NoBody => Detail::new("the record has no value; the body of the request is needed"),
            Self::Header(name) => Detail::new("header ").text(name).text(" is missing or can't be read"),
        }
    }
}

/// The longest header value that is read, in bytes. The ids, names and numbers that the worker writes are no longer.
const TEXT_MAX: usize = 1_024;

/// Returns the headers of a retry, a replay or a dead letter of `delivery`. A dead letter has no `due_at_ms`.
#[must_use]
pub fn headers(delivery: &Delivery, due_at_ms: Option<i64>, last: LastError) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(18);
    let mut put = |name: &str, value: &[u8]| headers::add(&mut headers, name.as_bytes(), Some(value));
    // Both buffers are reused, because a String for each value would cost as much as its header.
    let (mut number, mut id) = (itoa::Buffer::new(), Uuid::encode_buffer());
    put(names::DELIVERY_ID, delivery.id.0.hyphenated().encode_lower(&mut id).as_bytes());
    put(names::WEBHOOK_ID, delivery.webhook_id.0.hyphenated().encode_lower(&mut id).as_bytes());
    put(names::EVENT, delivery.event_type.as_str().as_bytes());
    put(names::EVENT_ID, delivery.event_id.as_bytes());
    put(names::TASK_ID, delivery.task_id.as_bytes());
    put(names::ATTEMPTS, number.format(delivery.attempts).as_bytes());
    put(names::DEFERRALS, number.format(delivery.deferrals).as_bytes());
    if let Some(due_at_ms) = due_at_ms {
        put(names::DUE_AT, number.format(due_at_ms).as_bytes());
    }
    put(names::FIRST_SEEN_AT, number.format(delivery.first_seen_at_ms).as_bytes());
    if let Some(code) = last.code {
        put(names::LAST_ERROR, code.as_str().as_bytes());
    }
    if let Some(status) = last.status {
        put(names::LAST_STATUS, number.format(status).as_bytes());
    }
    put(names::SOURCE_TOPIC, delivery.source.topic.as_bytes());
    put(names::SOURCE_PARTITION, number.format(delivery.source.partition).as_bytes());
    put(names::SOURCE_OFFSET, number.format(delivery.source.offset).as_bytes());
    if delivery.replays > 0 {
        put(names::REPLAYS, number.format(delivery.replays).as_bytes());
    }
    if let Some(traceparent) = &delivery.traceparent {
        put(names::TRACEPARENT, traceparent.as_str().as_bytes());
    }
    if delivery.by_hand && delivery.attempts == 0 {
        put(names::BY_HAND, b"true");
    }
    headers
}

/// Adds the headers that only dead letters have.
#[must_use]
pub fn dead(headers: OwnedHeaders, reason: DeadReason, detail: &Detail, at_ms: i64) -> OwnedHeaders {
    headers
        .insert(Header { key: names::DEAD_REASON, value: Some(reason.as_str()) })
        .insert(Header { key: names::DEAD_DETAIL, value: Some(detail.as_str()) })
        .insert(Header { key: names::DEAD_AT, value: Some(&at_ms.to_string()) })
}

/// Adds the header of a shortened dead letter. `size` is the size of its whole value, in bytes.
#[must_use]
pub fn shortened(headers: OwnedHeaders, size: usize) -> OwnedHeaders {
    headers.insert(Header { key: names::SHORTENED_FROM, value: Some(&size.to_string()) })
}

/// Appends the origin of a record that couldn't be read to the record's own headers.
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

/// Splits the headers of a record that couldn't be read into its own and those that the worker appended. [`unread`]
/// appends the source topic before everything else, so the last header of that name is where ours begin. The record
/// itself may have headers with any of our names before it.
fn split(headers: Option<&BorrowedHeaders>) -> (Vec<headers::Header<'_>>, Vec<headers::Header<'_>>) {
    let mut own: Vec<_> = headers::all(headers).collect();
    let ours = own.iter().rposition(|header| header.is(names::SOURCE_TOPIC)).unwrap_or(own.len());
    let appended = own.split_off(ours);
    (own, appended)
}

/// Reads the origin that [`unread`] appended.
#[must_use]
pub fn unread_origin(headers: Option<&BorrowedHeaders>) -> Option<UnreadOrigin> {
    let (_, appended) = split(headers);
    let find = |name: &str| {
        let found = appended.iter().rfind(|header| header.is(name))?;
        found.text().filter(|text| text.len() <= TEXT_MAX)
    };
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

/// Returns the headers that a record had before the worker appended its own.
#[must_use]
pub fn untouched(headers: Option<&BorrowedHeaders>) -> OwnedHeaders {
    let (own, _) = split(headers);
    let mut untouched = OwnedHeaders::new_with_capacity(own.len());
    for header in own {
        headers::add(&mut untouched, header.key, header.value);
    }
    untouched
}

/// Adds the header that says what a record of the replay topic replays.
#[must_use]
pub fn replay(headers: OwnedHeaders, of: &str) -> OwnedHeaders {
    headers.insert(Header { key: names::REPLAY_OF, value: Some(of) })
}

/// Adds the headers for the replay of a record that couldn't be read.
#[must_use]
pub fn replay_unread(headers: OwnedHeaders, origin: &UnreadOrigin, of: &str) -> OwnedHeaders {
    replay(unread(headers, origin), of).insert(Header { key: names::REPLAY_UNREAD, value: Some("true") })
}

/// Whether a record is the replay of one that couldn't be read.
#[must_use]
pub fn is_replay_of_unread(headers: Option<&BorrowedHeaders>) -> bool {
    headers::last(headers, names::REPLAY_UNREAD).is_some()
}

/// Returns the trace context of a record, if it has the form of the standard. If the header is repeated, the last
/// counts.
#[must_use]
pub fn traceparent(headers: Option<&BorrowedHeaders>) -> Option<TraceParent> {
    headers::last(headers, names::TRACEPARENT)?.parse().ok()
}

/// Reads a record of a retry tier or of the replay topic: the delivery, when it is due (in Unix milliseconds), and the
/// last error.
///
/// # Errors
/// Returns [`BadRecord`], which names the first header that is missing or can't be read.
pub fn read(value: Option<&[u8]>, headers: Option<&BorrowedHeaders>) -> Result<(Delivery, i64, LastError), BadRecord> {
    let (delivery, last) = delivery(value, headers)?;
    let due_at_ms = headers::last(headers, names::DUE_AT).and_then(|text| text.parse().ok());
    Ok((delivery, due_at_ms.ok_or(BadRecord::Header(names::DUE_AT))?, last))
}

/// Reads a delivery from a retry record, a replay or a dead letter, without its due time. If a header is repeated, the
/// last one counts.
///
/// # Errors
/// Returns [`BadRecord`], which names the first header that is missing or can't be read.
pub fn delivery(value: Option<&[u8]>, headers: Option<&BorrowedHeaders>) -> Result<(Delivery, LastError), BadRecord> {
    let body = value.filter(|value| !value.is_empty()).ok_or(BadRecord::NoBody)?;
    // The headers are parsed only once, because that is most of the cost of reading a record.
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
        event_id: text(names::EVENT_ID)?.into(),
        task_id: text(names::TASK_ID)?.into(),
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
        traceparent: find(names::TRACEPARENT).and_then(|text| text.parse().ok()),
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
    use crate::delivery::FirstRead;
    use crate::delivery::tests::sample;
    use crate::event::{self, Decoded, EVENT_ID_MAX, Limits, TASK_ID_MAX};
    use crate::position::TimestampMs;

    #[test]
    fn a_delivery_is_unchanged_after_it_is_written_and_read() {
        let mut delivery = sample();
        delivery.attempts = 3;
        delivery.deferrals = 2;
        delivery.replays = 1;
        delivery.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().ok();
        let last = LastError { code: Some(FailureCode::Status), status: Some(503) };
        let headers = headers(&delivery, Some(77), last);
        assert_eq!(read(Some(&delivery.body), Some(headers.as_borrowed())), Ok((delivery, 77, last)));
    }

    #[test]
    fn a_redelivery_is_marked_until_it_is_attempted() {
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
    fn an_event_of_the_largest_ids_has_headers_that_can_be_read_again() {
        let value = |id: usize, task: usize| {
            format!(r#"{{"id":"{}","taskId":"{}","toState":"failed"}}"#, "é".repeat(id), "é".repeat(task))
        };
        let at = sample().source;
        let decode = |text: String| {
            let limits = Limits { record_max: 1 << 20, payload_max: 1 << 20 };
            event::decode(Some(text.as_bytes()), &at, TimestampMs(0), limits)
        };
        // A longer event id is replaced, and a longer task id is refused.
        for id in [EVENT_ID_MAX / 2, EVENT_ID_MAX / 2 + 1, 100_000] {
            let Ok(Decoded::Event(event)) = decode(value(id, TASK_ID_MAX / 2)) else { panic!("{id} is allowed") };
            let read =
                FirstRead { source: at.clone(), first_seen_at_ms: i64::MIN, replays: u32::MAX, traceparent: None };
            let delivery = Delivery::first(&event, WebhookId(uuid::Uuid::nil()), event.body.clone(), read);
            let headers = headers(&delivery, Some(i64::MIN), LastError::default());
            for header in headers::all(Some(headers.as_borrowed())) {
                assert!(header.value.unwrap().len() <= TEXT_MAX, "{header:?}");
            }
            let again = super::read(Some(&delivery.body), Some(headers.as_borrowed()));
            assert_eq!(again, Ok((delivery, i64::MIN, LastError::default())));
        }
        assert!(decode(value(1, TASK_ID_MAX / 2 + 1)).is_err());
    }

    #[test]
    fn an_unread_record_gets_its_own_headers_back_even_with_our_names() {
        let own = OwnedHeaders::new()
            .insert(Header { key: "optio-source-topic", value: Some("theirs") })
            .insert(Header { key: "x", value: Some("1") })
            .insert(Header { key: "optio-replays", value: Some("3") })
            .insert(Header { key: "optio-replay-of", value: Some("theirs") });
        let origin = UnreadOrigin { source: sample().source, timestamp_ms: 5, replays: 0 };
        let letter = dead(unread(own.clone(), &origin), DeadReason::Malformed, &Detail::new("why"), 9);
        assert_eq!(unread_origin(Some(letter.as_borrowed())), Some(origin.clone()));
        let shown =
            |headers: &OwnedHeaders| format!("{:?}", headers::all(Some(headers.as_borrowed())).collect::<Vec<_>>());
        assert_eq!(shown(&untouched(Some(letter.as_borrowed()))), shown(&own));
        let replayed = replay_unread(untouched(Some(letter.as_borrowed())), &origin, "dlq/0/1/2");
        assert!(is_replay_of_unread(Some(replayed.as_borrowed())));
        assert_eq!(shown(&untouched(Some(replayed.as_borrowed()))), shown(&own));
    }

    #[test]
    fn the_last_repeated_header_counts_and_a_long_or_null_one_is_refused() {
        let mut repeated = headers(&sample(), Some(77), LastError::default());
        headers::add(&mut repeated, b"optio-due-at", Some(b"78"));
        assert_eq!(read(Some(b"{}"), Some(repeated.as_borrowed())).unwrap().1, 78);
        for value in [None, Some(b"".as_slice()), Some(b"\xff"), Some(b"9223372036854775808")] {
            headers::add(&mut repeated, b"optio-due-at", value);
            let refused = read(Some(b"{}"), Some(repeated.as_borrowed()));
            assert_eq!(refused, Err(BadRecord::Header("optio-due-at")));
        }
        let mut long = headers(&sample(), Some(77), LastError::default());
        headers::add(&mut long, b"optio-task-id", Some(&[b'x'; 1 << 20]));
        assert_eq!(read(Some(b"{}"), Some(long.as_borrowed())), Err(BadRecord::Header("optio-task-id")));
        assert_eq!(read(None, Some(long.as_borrowed())), Err(BadRecord::NoBody));
    }

    #[test]
    fn an_error_names_the_first_missing_header() {
        assert_eq!(
            read(Some(b"{}"), None).unwrap_err().detail().as_str(),
            "header optio-delivery-id is missing or can't be read"
        );
    }
}
