//! The wall clock in Unix milliseconds, rounded so that no wait is cut short.

use std::time::Duration;

/// Whole milliseconds, rounded up: a wait is never cut short.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// The wall clock, Unix milliseconds, rounded down: what is due then is due now.
#[must_use]
pub fn now_ms() -> i64 {
    since_epoch().as_millis() as i64
}

/// The wall clock, Unix milliseconds, rounded up: a wait that is counted from it is never cut short.
#[must_use]
pub fn now_ms_up() -> i64 {
    millis(since_epoch())
}

fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
