//! The headers of records in the retry, replay and dead-letter topics. Anyone who may write to these topics chooses
//! every byte of them.
//!
//! The input looks like a request of HTTP/1: lines of `name:value`, an empty line, and the record's value. A line
//! without a colon is a header whose value is null.

#![no_main]

use libfuzzer_sys::fuzz_target;
use optio_webhooks::delivery::Delivery;
use optio_webhooks::detail::DETAIL_MAX;
use optio_webhooks::kafka::headers;
use optio_webhooks::position::RecordPosition;
use optio_webhooks::record::{self, UnreadOrigin};
use rdkafka::message::{BorrowedHeaders, OwnedHeaders};

/// The longest text of a header that is read, in bytes.
const TEXT_MAX: usize = 1_024;

fuzz_target!(|input: &[u8]| {
    let (headers, value) = parse(input);
    let headers = Some(headers.as_borrowed());
    if let Some(trace) = record::traceparent(headers) {
        assert!(trace.len() == 55 && trace.is_ascii());
    }
    match record::read(value, headers) {
        Ok((delivery, due_at_ms, last)) => {
            check_bounds(&delivery);
            let written = record::headers(&delivery, Some(due_at_ms), last);
            // The mark of a redelivery is dropped after its first attempt.
            let by_hand = delivery.by_hand && delivery.attempts == 0;
            let delivery = Delivery { by_hand, ..delivery };
            let again = record::read(Some(&delivery.body), Some(written.as_borrowed()));
            assert_eq!(again, Ok((delivery, due_at_ms, last)), "what is written and read again is equal");
        }
        Err(problem) => assert!(problem.detail().as_str().len() <= DETAIL_MAX),
    }
    check_unread(headers);
});

fn parse(input: &[u8]) -> (OwnedHeaders, Option<&[u8]>) {
    let mut headers = OwnedHeaders::new();
    let mut rest = input;
    loop {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return (headers, None) };
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            return (headers, Some(rest));
        }
        match line.iter().position(|byte| *byte == b':') {
            Some(colon) => headers::add(&mut headers, &line[..colon], Some(&line[colon + 1..])),
            None => headers::add(&mut headers, line, None),
        }
    }
}

fn check_bounds(delivery: &Delivery) {
    for text in [&*delivery.event_id, &*delivery.task_id, &*delivery.source.topic] {
        assert!(text.len() <= TEXT_MAX);
    }
    assert!(delivery.traceparent.as_ref().is_none_or(|trace| trace.len() == 55));
    assert!(!delivery.body.is_empty());
}

/// A record that can't be read gets its own headers back after it was dead-lettered and replayed.
fn check_unread(own: Option<&BorrowedHeaders>) {
    let origin = record::unread_origin(own).unwrap_or(UnreadOrigin {
        source: RecordPosition { topic: "task-events".into(), partition: 0, offset: 1 },
        timestamp_ms: 2,
        replays: 0,
    });
    let theirs = own.map_or_else(OwnedHeaders::new, BorrowedHeaders::detach);
    let letter = record::unread(theirs, &origin);
    assert_eq!(record::unread_origin(Some(letter.as_borrowed())).as_ref(), Some(&origin));
    let replayed = record::replay_unread(record::untouched(Some(letter.as_borrowed())), &origin, "dlq/0/1/2");
    assert!(record::is_replay_of_unread(Some(replayed.as_borrowed())));
    let back = record::untouched(Some(replayed.as_borrowed()));
    let (back, own) = (headers::all(Some(back.as_borrowed())), headers::all(own));
    assert!(back.eq(own), "the record's own headers are unchanged");
}
