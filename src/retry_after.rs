//! `Retry-After`: how long an endpoint asks to cool down (RFC 9110, section 10.2.3).
//!
//! The header is read and capped only here. The schedule and the endpoint both use the result: it may lengthen a wait,
//! and it never shortens one.

use std::time::Duration;

/// Reads the header's value: seconds, or an HTTP date. The result is at most `max`. Returns `None` for any other text.
#[must_use]
pub fn read(value: &str, now_ms: i64, max: Duration) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number with more digits than fit is longer than any cap.
        return Some(value.parse().map_or(max, |seconds| max.min(Duration::from_secs(seconds))));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
    Some(until.duration_since(now).unwrap_or_default().min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        assert_eq!(read("120", 0, MAX), Some(Duration::from_secs(120)));
        assert_eq!(read("Thu, 01 Jan 1970 00:01:00 GMT", 10_000, MAX), Some(Duration::from_secs(50)));
        assert_eq!(read("Thu, 01 Jan 1970 00:00:01 GMT", 10_000, MAX), Some(Duration::ZERO));
        for other in ["", "soon", "-1", "1.5"] {
            assert_eq!(read(other, 0, MAX), None, "{other}");
        }
    }

    #[test]
    fn a_pause_is_capped() {
        for long in ["3601", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(read(long, 0, MAX), Some(MAX), "{long}");
        }
    }
}
