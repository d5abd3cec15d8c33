//! The detail of a dead letter: a sentence for people that says why it is one.

use std::fmt::{self, Write as _};

use crate::printable::escaped;

/// The longest detail, in characters.
pub const DETAIL_MAX: usize = 300;
/// The longest part of a detail that comes from outside, in characters.
pub const SHOWN_MAX: usize = 64;

/// A sentence of at most [`DETAIL_MAX`] characters in one line.
///
/// It is put together from texts of this program, numbers, and values from outside. Only [`Self::value`] takes a text
/// that the program doesn't have itself, and it shows at most [`SHOWN_MAX`] characters of it. The details of dead letters
/// travel in headers and logs, and a producer must not choose how long those are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail(String);

impl Detail {
    /// Begins a detail.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        Self(String::new()).text(text)
    }

    /// Adds a text of this program.
    #[must_use]
    pub fn text(mut self, text: &'static str) -> Self {
        self.add(text);
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: impl Into<i128>) -> Self {
        self.add(&number.into().to_string());
        self
    }

    /// Adds a number of bytes or of other things in memory.
    #[must_use]
    pub fn size(self, size: usize) -> Self {
        self.number(size as u64)
    }

    /// Adds a value from outside: its first [`SHOWN_MAX`] characters, in printable form.
    #[must_use]
    pub fn value(mut self, value: &str) -> Self {
        // Escapes only lengthen a text, so the characters beyond the bound needn't be read.
        let begin = value.char_indices().nth(SHOWN_MAX + 1).map_or(value, |(at, _)| &value[..at]);
        self.add(&cut(&escaped(begin), SHOWN_MAX));
        self
    }

    /// Adds another detail.
    #[must_use]
    pub fn detail(mut self, detail: &Self) -> Self {
        self.add(&detail.0);
        self
    }

    /// The sentence.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn add(&mut self, text: &str) {
        self.0.write_str(text).expect("a string takes everything");
        if self.0.len() > DETAIL_MAX {
            self.0 = cut(&self.0, DETAIL_MAX);
        }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Cuts a text to `max` characters. The last one is `…` if something is missing.
#[must_use]
pub fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max - 1) {
        Some((at, last)) if at + last.len_utf8() < text.len() => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dead_letters_detail_shows_the_begin_of_a_long_value() {
        let detail = |value: &str| Detail::new("topic ").value(value).text(" refuses ").size(7).to_string();
        assert_eq!(detail("a"), "topic a refuses 7");
        assert_eq!(detail(&"é".repeat(64)), format!("topic {} refuses 7", "é".repeat(64)));
        assert_eq!(detail(&"é".repeat(65)), format!("topic {}… refuses 7", "é".repeat(63)));
        assert_eq!(detail("\u{1b}[2J\n"), "topic \\u001b[2J\\n refuses 7");
        assert_eq!(detail(&"\0".repeat(10_000)).chars().count(), "topic  refuses 7".len() + 64);
    }

    proptest! {
        #[test]
        fn a_dead_letters_detail_has_at_most_300_printable_characters(
            parts in prop::collection::vec((0..4, any::<String>(), any::<i64>()), 0..12),
        ) {
            let mut detail = Detail::new("");
            for (kind, value, number) in parts {
                detail = match kind {
                    0 => detail.text("a sentence of this program that takes some room; "),
                    1 => detail.number(number),
                    2 => detail.value(&value),
                    _ => Detail::new("cut; ").detail(&detail),
                };
                prop_assert!(detail.as_str().chars().count() <= DETAIL_MAX);
                prop_assert!(!detail.as_str().contains(crate::printable::is_control));
            }
        }
    }
}
