//! Times as people and programs write them: RFC 3339, or Unix seconds or milliseconds.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last millisecond that RFC 3339 can write: the end of the year 9999.
const LAST_MS: i64 = 253_402_300_799_999;
/// Smaller numbers are seconds (up to the year 5138), larger ones milliseconds (from 1973 on).
const SECONDS_BELOW: f64 = 1e11;

/// Unix milliseconds as RFC 3339 in UTC. A time that RFC 3339 can't write becomes the nearest one that it can.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    let since_epoch = Duration::from_millis(unix_ms.clamp(0, LAST_MS).unsigned_abs());
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).to_string()
}

/// The same, or None for a time that RFC 3339 can't write.
#[must_use]
pub fn rfc3339_exact(unix_ms: i64) -> Option<String> {
    (0..=LAST_MS).contains(&unix_ms).then(|| rfc3339(unix_ms))
}

/// Reads RFC 3339 with any offset, as it may stand in a message; the answer is in UTC. Text that is in UTC already comes
/// back as it is.
#[must_use]
pub fn read_text(text: &str) -> Option<Cow<'_, str>> {
    let is_plain = text.is_ascii() && text.as_bytes().get(10) == Some(&b'T') && text.ends_with('Z');
    if is_plain {
        return OffsetDateTime::parse(text, &Rfc3339).ok().map(|_| Cow::Borrowed(text));
    }
    let mut text = text.trim().to_ascii_uppercase();
    // RFC 3339, section 5.6: a space may stand for the T.
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
    fn every_number_of_milliseconds_can_be_written() {
        for unix_ms in [i64::MIN, -1, 0, LAST_MS, LAST_MS + 1, 1_742_983_954_000_000, i64::MAX] {
            assert!(rfc3339(unix_ms).ends_with('Z'), "{unix_ms}");
        }
        assert_eq!(rfc3339_exact(1_742_983_954_000_000), None, "microseconds taken for milliseconds");
        assert_eq!(rfc3339_exact(1_742_983_954_000).as_deref(), Some("2025-03-26T10:12:34.000Z"));
    }

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
