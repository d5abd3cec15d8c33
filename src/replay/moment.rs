//! A point in time as people enter it.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::{millis, now_ms};

/// A point in time, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub i64);

/// The error of parsing a text that is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time; use one such as 2026-11-24, 2026-11-24T10:00:00Z, or how long ago: 90m, 2h, 3days")]
pub struct BadMoment;

impl std::str::FromStr for Moment {
    type Err = BadMoment;
    fn from_str(text: &str) -> Result<Self, BadMoment> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self((now_ms() - millis(ago)).max(0)));
        }
        let midnight = format!("{text}T00:00:00Z");
        let time = humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339(&midnight));
        let since_epoch: Duration = time.map_err(|_| BadMoment)?.duration_since(UNIX_EPOCH).map_err(|_| BadMoment)?;
        Ok(Self(since_epoch.as_millis() as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_day_a_time_or_an_age() {
        assert_eq!("1970-01-02".parse(), Ok(Moment(86_400_000)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Moment(1_000)));
        let ago: Moment = "2h".parse().unwrap();
        assert!((now_ms() - 7_200_000 - ago.0).abs() < 60_000);
        assert_eq!("yesterday".parse::<Moment>(), Err(BadMoment));
    }
}
