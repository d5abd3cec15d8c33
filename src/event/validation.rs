//! Checks a message before it is written: what would be refused, and what would become null.

use serde_json::value::RawValue;

use super::schema::{FIELDS, Kind};
use super::transition::{Value, values};
use super::{Decoded, EventType, Limits, Nothing, decode};
use crate::position::{RecordPosition, TimestampMs};

/// What is wrong with a field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The JSON pointer of the field (RFC 6901).
    pub pointer: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

/// The verdict on a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It becomes an event.
    Event(EventType),
    /// It is settled, and nothing is sent.
    Nothing(Nothing),
    /// It becomes an event, but these fields don't arrive.
    Incomplete(EventType, Vec<Problem>),
    /// It becomes a dead letter. The sentence says why.
    Refused(String, Vec<Problem>),
}

impl Verdict {
    /// Whether nothing is wrong with the message.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Event(_) | Self::Nothing(_))
    }
}

/// Checks the bytes of a message as a worker would read them.
#[must_use]
pub fn validate(message: &[u8], limits: Limits) -> Verdict {
    let at = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
    let decoded = decode(Some(message), &at, TimestampMs(0), limits);
    let problems = problems(message);
    match decoded {
        Ok(Decoded::Event(event)) if event.not_understood.is_empty() => Verdict::Event(event.event_type),
        Ok(Decoded::Event(event)) => Verdict::Incomplete(event.event_type, problems),
        Ok(Decoded::Nothing(why)) => Verdict::Nothing(why),
        Err(error) => Verdict::Refused(error.to_string(), problems),
    }
}

/// The fields whose values have the wrong kind.
fn problems(message: &[u8]) -> Vec<Problem> {
    let text = super::tidy::tidy(message);
    let mut problems = Vec::new();
    let mut task: Option<&RawValue> = None;
    for field in &FIELDS {
        let found = match field.path.strip_prefix("task.") {
            None => values(&text, [field.path]),
            Some(_) if task.is_none_or(|task| !task.get().starts_with('{')) => continue,
            Some(name) => values(task.map_or("{}", RawValue::get), [name]),
        };
        let Ok([raw]) = found else { continue };
        if field.path == "task" {
            task = raw;
        }
        let value = Value::of(raw);
        let kind = value.kind();
        if !field.kind.is_understood(value) {
            let is = match kind {
                "null" => "is missing or null".to_owned(),
                "text" | "a number" => format!("is {kind} that can't be read as such"),
                kind => format!("is {kind}"),
            };
            let so = if field.kind == Kind::RequiredText { "" } else { "; it becomes null" };
            let pointer = format!("/{}", field.path.replace('.', "/"));
            problems.push(Problem { pointer, problem: format!("{is}; {}{so}", field.kind.allowed()) });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(message: &str) -> Verdict {
        validate(message.as_bytes(), Limits::NONE)
    }

    #[test]
    fn a_verdict_names_each_field_and_what_is_allowed() {
        assert_eq!(verdict(r#"{"taskId":"t","toState":"failed"}"#), Verdict::Event(EventType::TaskFailed));
        assert_eq!(
            verdict(r#"{"taskId":"t","toState":"queued","timestamp":[]}"#),
            Verdict::Nothing(Nothing::OtherState)
        );
        let Verdict::Incomplete(EventType::TaskFailed, problems) =
            verdict(r#"{"taskId":"t","toState":"failed","timestamp":"soon","task":{"prNumber":true,"title":"x"}}"#)
        else {
            panic!("it is incomplete")
        };
        let shown: Vec<String> = problems.iter().map(|one| format!("{} {}", one.pointer, one.problem)).collect();
        assert_eq!(
            shown,
            [
                "/timestamp is text that can't be read as such; RFC 3339 such as 2025-03-26T10:12:34Z, Unix seconds or milliseconds, or null is allowed; it becomes null",
                "/task/prNumber is a boolean; a whole number that isn't negative, its text or null is allowed; it becomes null",
            ]
        );
        let Verdict::Refused(why, problems) = verdict(r#"{"taskId":7,"toState":"failed","task":[]}"#) else {
            panic!("it is refused")
        };
        assert!(why.contains("taskId is a number"), "{why}");
        assert_eq!(problems.iter().map(|one| one.pointer.as_str()).collect::<Vec<_>>(), ["/taskId", "/task"]);
        assert!(
            matches!(verdict("{"), Verdict::Refused(why, problems) if why.contains("not JSON") && problems.is_empty())
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_get_a_verdict(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = validate(&bytes, Limits::NONE);
        }
    }
}
