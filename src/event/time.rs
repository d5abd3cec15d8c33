//! Reads times that are written as RFC 3339, or as Unix seconds or milliseconds.

use std::borrow::Cow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::rfc3339_exact;

/// Numbers below this are seconds (up to the year 5138). Others are milliseconds (from 1973 on).
const SECONDS_BELOW: f64 = 1e11;

/// Reads RFC 3339 with any offset and returns it in UTC. Text in the form `2025-03-26T10:12:34Z`, with any number of
/// fractional digits, is returned unchanged.
#[must_use]
pub fn read_text(text: &str) -> Option<Cow<'_, str>> {
    let is_utc_already = text.is_ascii() && text.as_bytes().get(10) == Some(&b'T') && text.ends_with('Z');
    if is_utc_already {
        return OffsetDateTime::parse(text, &Rfc3339).ok().map(|_| Cow::Borrowed(text));
    }
    let mut text = text.trim().to_ascii_uppercase();
    // RFC 3339, section 5.6: a space may replace the T.
    if text.is_char_boundary(10) && text.get(10..11) == Some(" ") {
        text.replace_range(10..11, "T");
    }
    let time = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    rfc3339_exact(i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()?).map(Cow::Owned)
}

/// Reads Unix seconds, with or without a fraction, or milliseconds.
#[must_use]
pub fn read_number(number: f64) -> Option<String> {
    if !number.is_finite() || number < 0.0 {
        return None;
    }
    let ms = if number < SECONDS_BELOW { number * 1_000.0 } else { number };
    rfc3339_exact(ms.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_any_offset_and_written_in_utc() {
        for (text, read) in [
            ("2025-03-26T10:12:34Z", Some("2025-03-26T10:12:34Z")),
            ("2025-03-26T10:12:34.123456Z", Some("2025-03-26T10:12:34.123456Z")),
            ("2025-03-26T12:12:34+02:00", Some("2025-03-26T10:12:34.000Z")),
            ("2025-03-26t10:12:34z", Some("2025-03-26T10:12:34.000Z")),
            ("2025-03-26 05:12:34.5-05:00", Some("2025-03-26T10:12:34.500Z")),
            ("2025-03-26T10:12:34", None),
            ("2025-02-30T10:12:34Z", None),
            ("285428751-11-12T07:36:31Z", None),
            ("yesterday", None),
            ("ééééééééééé", None),
            ("", None),
        ] {
            assert_eq!(read_text(text).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn a_number_is_seconds_or_milliseconds_since_1970() {
        assert_eq!(read_number(1_742_983_954.0).as_deref(), Some("2025-03-26T10:12:34.000Z"));
        assert_eq!(read_number(1_742_983_954.5).as_deref(), Some("2025-03-26T10:12:34.500Z"));
        assert_eq!(read_number(1_742_983_954_000.0).as_deref(), Some("2025-03-26T10:12:34.000Z"));
        for unreadable in [-1.0, f64::NAN, f64::INFINITY, 1e300, 1_742_983_954_000_000_000.0] {
            assert_eq!(read_number(unreadable), None, "{unreadable}");
        }
    }
}
