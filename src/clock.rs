//! The wall clock in Unix milliseconds, and RFC 3339. Rounding never shortens a wait.

use std::time::{Duration, UNIX_EPOCH};

/// The last millisecond that RFC 3339 can express: the end of the year 9999.
const LAST_MS: i64 = 253_402_300_799_999;

/// Converts a duration to whole milliseconds, rounded up, so that a wait is never cut short.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// Returns the current time in Unix milliseconds, rounded down. Compare due times with it: nothing is due too early.
#[must_use]
pub fn now_ms() -> i64 {
    since_epoch().as_millis() as i64
}

/// Returns the current time in Unix milliseconds, rounded up. Add waits to it: no wait is cut short.
#[must_use]
pub fn now_ms_up() -> i64 {
    millis(since_epoch())
}

/// Returns the time since the machine started, including the time for which it was suspended. [`std::time::Instant`]
/// doesn't count that time on Linux.
#[must_use]
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
    }
    #[cfg(not(target_os = "linux"))]
    {
        static BEGAN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
        BEGAN.elapsed()
    }
}

fn since_epoch() -> Duration {
    #[cfg(test)]
    if let Some(simulated) = simulated::since_epoch() {
        return simulated;
    }
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Formats Unix milliseconds as RFC 3339 in UTC. A time that RFC 3339 can't express becomes the nearest one that it
/// can express.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    let since_epoch = Duration::from_millis(unix_ms.clamp(0, LAST_MS).unsigned_abs());
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).to_string()
}

/// Formats like [`rfc3339`], but returns `None` for a time that RFC 3339 can't express.
#[must_use]
pub fn rfc3339_exact(unix_ms: i64) -> Option<String> {
    (0..=LAST_MS).contains(&unix_ms).then(|| rfc3339(unix_ms))
}

/// The whole seconds of a wait: rounded up and at least 1, so that a client that waits as long isn't refused again.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

/// A clock that goes with tokio's paused time, for simulations.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::Instant;

    thread_local! {
        static BEGAN: Cell<Option<(Duration, Instant)>> = const { Cell::new(None) };
    }

    /// From now on, and on this thread, the clock has shown `since_epoch` now.
    pub fn begin(since_epoch: Duration) {
        BEGAN.set(Some((since_epoch, Instant::now())));
    }

    pub(super) fn since_epoch() -> Option<Duration> {
        BEGAN.get().map(|(since_epoch, began)| since_epoch + began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_milliseconds_can_be_formatted() {
        for unix_ms in [i64::MIN, -1, 0, LAST_MS, LAST_MS + 1, 1_742_983_954_000_000, i64::MAX] {
            assert!(rfc3339(unix_ms).ends_with('Z'), "{unix_ms}");
        }
        assert_eq!(rfc3339_exact(1_742_983_954_000_000), None, "microseconds mistaken for milliseconds");
        assert_eq!(rfc3339_exact(1_742_983_954_000).as_deref(), Some("2025-03-26T10:12:34.000Z"));
    }
}
