//! Records that no well-behaved producer writes.

use optio_webhooks::event::EventType;

use super::World;
use super::world::Raw;

/// The kinds of odd records in turn, each with the effect that it must have.
pub fn odd_record(number: usize) -> (Raw<'static>, Effect) {
    let value = |value: &'static [u8]| Raw { value: Some(value), ..Raw::default() };
    let leak = |text: String| -> &'static [u8] { Box::leak(text.into_bytes().into_boxed_slice()) };
    let transition = || World::transition(EventType::TaskCompleted).to_string();
    match number % 14 {
        0 => {
            let headers = vec![(b"\xff".to_vec(), Some(b"x".to_vec()))];
            (Raw { headers, ..value(leak(transition())) }, Effect::Delivery)
        }
        1 => (value(b"\xff\x00 not json {"), Effect::DeadLetter),
        2 => (value(br#"["e","t","completed",null,{}]"#), Effect::DeadLetter),
        3 => (value(br#"{"taskId":7,"toState":"completed"}"#), Effect::DeadLetter),
        4 => (value(br#"{"toState":"running","taskId":{}}"#), Effect::Nothing),
        5 => (Raw::default(), Effect::Nothing),
        6 => (
            value(leak(format!(
                r#"{{"taskId":"deep","toState":"failed","x":{}1{}}}"#,
                "[".repeat(500),
                "]".repeat(500)
            ))),
            Effect::DeadLetter,
        ),
        7 => (
            value(leak(format!(
                r#"{{"taskId":"t{number}","toState":"completed","task":{{"title":"{}"}}}}"#,
                "y".repeat(400_000)
            ))),
            Effect::DeadLetter,
        ),
        8 => (
            value(leak(format!(
                r#"{{"taskId":"t{number}","toState":"completed","task":{{"title":"x\ud83d","costUsd":1e999}}}}"#
            ))),
            Effect::Delivery,
        ),
        9 => (Raw { timestamp_ms: Some(1), ..value(leak(transition())) }, Effect::Delivery),
        10 => {
            let headers = vec![(b"traceparent".to_vec(), Some(b"\r\nx: y".to_vec())), (b"k".to_vec(), None)];
            (Raw { headers, ..value(leak(transition())) }, Effect::Delivery)
        }
        11 => (value(b""), Effect::DeadLetter),
        12 => (value(leak(format!("\u{feff}{}", transition()))), Effect::Delivery),
        _ => {
            let headers = vec![(b"big".to_vec(), Some(vec![b'z'; 200_000]))];
            (Raw { headers, ..value(b"{") }, Effect::DeadLetter)
        }
    }
}

/// The effect of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Delivery,
    DeadLetter,
    Nothing,
}
