//! Why a record can't be decoded.

use std::fmt;

use super::Limits;
use crate::detail::Detail;

/// Why a record can't be decoded as a task transition. Such a record goes to the dead-letter topic unchanged.
#[derive(Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// It can't be read as a task transition.
    Malformed(Detail),
    /// The record, a field of it, or the payload made from it exceeds a limit.
    TooLarge {
        /// The part that is too large: the record's value, a field of it, or the payload.
        what: &'static str,
        /// The size of that part, in bytes.
        size: usize,
        /// The limit, in bytes.
        max: usize,
        /// The setting or the rule that sets the limit.
        setting: &'static str,
    },
}

impl Undecodable {
    /// The detail of the dead letter.
    #[must_use]
    pub fn detail(&self) -> Detail {
        match self {
            Self::Malformed(detail) => detail.clone(),
            Self::TooLarge { what, size, max, setting } => {
                let sizes = Detail::new(what).text(" has ").size(*size).text(" bytes; at most ").size(*max);
                sizes.text(" are allowed (").text(setting).text(")")
            }
        }
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.detail().fmt(f)
    }
}

impl std::error::Error for Undecodable {}

/// Checks the size of the value of a record that waits in a retry tier or the replay topic.
///
/// # Errors
/// Returns [`Undecodable::TooLarge`] if the value exceeds [`Limits::waiting_max`].
pub fn check_waiting(value: Option<&[u8]>, limits: Limits) -> Result<(), Undecodable> {
    within("the record", value.map_or(0, <[u8]>::len), limits.waiting_max(), "events.bytes_max")
}

pub(super) fn within(what: &'static str, size: usize, max: usize, setting: &'static str) -> Result<(), Undecodable> {
    if size <= max { Ok(()) } else { Err(Undecodable::TooLarge { what, size, max, setting }) }
}

pub(super) fn malformed(why: Detail) -> Undecodable {
    Undecodable::Malformed(why)
}

/// Says where the parser stopped and why. A value of the wrong type gets its own text, because `serde_json` would
/// repeat the value.
pub(super) fn not_json(error: serde_json::Error) -> Undecodable {
    if error.is_data() {
        return malformed(Detail::new("the message is not a JSON object; an object with taskId and toState is needed"));
    }
    let (line, column) = (error.line(), error.column());
    let why = error.to_string();
    let why = why.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&why);
    let detail = Detail::new("the message is not JSON: ").value(why);
    malformed(detail.text(" at line ").size(line).text(" column ").size(column))
}
