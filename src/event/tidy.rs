//! Prepares the bytes of a message for a JSON parser, so that a byte order mark, bytes that aren't UTF-8, and halves of
//! surrogate pairs don't cost an event.

use std::borrow::Cow;

/// The deepest accepted nesting of objects and arrays.
pub const NESTING_MAX: usize = 64;
/// The byte order mark in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The JSON escape of U+FFFD. It replaces the escape of a lone surrogate, such as `\ud83d` without its other half.
const REPLACEMENT: &str = "\\ufffd";

/// Returns the message as text for a JSON parser, without a byte order mark. Bytes that aren't UTF-8, and lone
/// surrogates, become U+FFFD.
#[must_use]
pub fn tidy(value: &[u8]) -> Cow<'_, str> {
    let value = value.strip_prefix(BYTE_ORDER_MARK).unwrap_or(value);
    // Nearly all messages are UTF-8, and the lossy conversion takes several times as long as the check.
    let text = std::str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed);
    // Most messages contain no escape at all, and few of the others contain an escaped surrogate.
    if !text.as_bytes().contains(&b'\\') || !(text.contains("\\ud") || text.contains("\\uD")) {
        return text;
    }
    Cow::Owned(without_lone_surrogates(&text))
}

/// Replaces each escaped surrogate without its other half by U+FFFD.
fn without_lone_surrogates(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        cleaned.push_str(&rest[..at]);
        let escape = &rest[at..];
        let length = match (surrogate(escape), escape.get(6..).and_then(surrogate)) {
            (Some(Surrogate::High), Some(Surrogate::Low)) => 12,
            (Some(_), _) => {
                cleaned.push_str(REPLACEMENT);
                rest = &escape[6..];
                continue;
            }
            // Skip both characters, so that an escaped backslash doesn't count as the start of the next escape.
            (None, _) => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        cleaned.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    cleaned.push_str(rest);
    cleaned
}

#[derive(Clone, Copy)]
enum Surrogate {
    High,
    Low,
}

/// Returns the kind of surrogate if `text` begins with an escaped one.
fn surrogate(text: &str) -> Option<Surrogate> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xd800..0xdc00 => Some(Surrogate::High),
        0xdc00..0xe000 => Some(Surrogate::Low),
        _ => None,
    }
}

/// Whether objects and arrays are nested deeper than [`NESTING_MAX`].
#[must_use]
pub fn is_too_deep(text: &str) -> bool {
    let opening = text.bytes().filter(|byte| *byte == b'{' || *byte == b'[').count();
    if opening <= NESTING_MAX {
        return false;
    }
    let (mut depth, mut is_in_string, mut is_escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_in_string => is_escaped = true,
            b'"' => is_in_string = !is_in_string,
            _ if is_in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > NESTING_MAX {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_of_a_surrogate_pair_becomes_the_replacement_character() {
        for (written, read) in [
            (r#""x\ud83d""#, "x\u{fffd}"),
            (r#""\uDE00x""#, "\u{fffd}x"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\\ud83d""#, "\\ud83d"),
            (r#""\ud83dé""#, "\u{fffd}é"),
        ] {
            assert_eq!(serde_json::from_str::<String>(&tidy(written.as_bytes())).unwrap(), read, "{written}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_invalid_utf_8_are_tolerated() {
        assert_eq!(tidy(b"\xef\xbb\xbf{}"), "{}");
        assert_eq!(tidy(b"\"\xf0\x9f\x98\""), "\"\u{fffd}\"");
    }

    #[test]
    fn nesting_is_counted_outside_of_strings_only() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(&nested(NESTING_MAX)));
        assert!(is_too_deep(&nested(NESTING_MAX + 1)));
        assert!(!is_too_deep(&format!("\"{}\"", "[\\\"".repeat(200))));
        assert!(!is_too_deep(&"[],".repeat(200)));
    }

    proptest! {
        #[test]
        fn any_bytes_become_text_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = tidy(&bytes);
            let _ = is_too_deep(&text);
        }

        #[test]
        fn any_escapes_become_text_that_a_parser_accepts(
            parts in prop::collection::vec(prop::sample::select(vec!["\\ud83d", "\\ude00", "\\\\", "\\\"", "u", "d83d", "é", "\\u0041"]), 0..20),
        ) {
            let json = format!("\"{}\"", parts.concat());
            prop_assert!(serde_json::from_str::<String>(&tidy(json.as_bytes())).is_ok(), "{json}");
        }
    }
}
