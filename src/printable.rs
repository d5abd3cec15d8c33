//! Text from outside, as it may be shown: no character of it controls a terminal, forges a line, or changes the order in
//! which other text appears.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces each character that [`is_unprintable`] by its escape in JSON, such as `\u001b`. A JSON text therefore stays
/// valid and keeps its meaning, because such a character can only be inside of a string.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            _ if is_unprintable(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(shown, "\\u{unit:04x}").expect("a string takes everything");
                }
            }
            _ => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character is a control character (C0, DEL, C1), separates lines, or is invisible and changes how other text
/// is shown: marks and overrides of direction, annotations, tags, and the byte order mark.
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
        || matches!(character, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_that_control_a_terminal_are_escaped() {
        assert_eq!(printable("Zürich 日本 🎉 “x”"), "Zürich 日本 🎉 “x”");
        assert_eq!(printable("\u{1b}[2J\u{7}\u{7f}\u{9b}31m"), "\\u001b[2J\\u0007\\u007f\\u009b31m");
        assert_eq!(printable("a\r\n\tb\u{2028}c\u{85}"), "a\\r\\n\\tb\\u2028c\\u0085");
        assert_eq!(printable("\u{202e}gpj\u{2066}\u{200f}\u{e0041}"), "\\u202egpj\\u2066\\u200f\\udb40\\udc41");
    }

    proptest! {
        #[test]
        fn nothing_unprintable_is_left_and_json_keeps_its_meaning(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(!shown.contains(is_unprintable));
            prop_assert_eq!(printable(&shown), shown.as_ref());
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&printable(&json)).unwrap(), text);
        }
    }
}
