//! Text from outside, made safe to print: a terminal obeys control characters, and so would a reader of a log line.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal or a viewer obeys `c` instead of showing it.
///
/// These are the control characters (C0, DEL and C1), the line and paragraph separators of Unicode, and the characters
/// that change the direction of the text around them.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// Returns `text` with every control character escaped as in JSON, such as `\n` or `\u001b`.
///
/// The form is the one of JSON, so JSON and basic strings of TOML stay valid and keep their meaning.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if is_control(c) => {
                write!(escaped, "\\u{:04x}", u32::from(c)).expect("a String takes every text");
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_what_it_shows_stays() {
        for (text, shown) in [
            ("plain – ünï 漢字 👩‍🚀 \\", "plain – ünï 漢字 👩‍🚀 \\"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
            ("a\r\nb\tc\0\u{7f}", "a\\r\\nb\\tc\\u0000\\u007f"),
            ("\u{9b}31m\u{85}", "\\u009b31m\\u0085"),
            ("\u{202e}fdp.exe\u{2069}\u{2028}\u{2029}", "\\u202efdp.exe\\u2069\\u2028\\u2029"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }

    proptest! {
        #[test]
        fn an_escaped_text_has_no_control_characters_and_means_the_same_in_json(text: String) {
            prop_assert!(!escaped(&text).contains(is_control));
            let json = serde_json::to_string(&text).unwrap();
            prop_assert!(!escaped(&json).contains(is_control));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped(&json)).unwrap(), text);
        }
    }
}
