//! The number of attempts of each webhook that succeeded and failed, by hour.

use crate::store::connection::Connection;

use super::{Keys, is_away};
use crate::webhook::WebhookId;

/// An hour, in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;
/// The number of hours that a success rate covers: the current hour and the 23 before it.
pub const DAY: usize = 24;
/// The number of hours that are kept: the current hour and those of 7 days before it.
pub const WEEK: usize = 7 * DAY;
/// The time for which the counts of an hour are kept, in seconds: one hour longer than they are read.
pub const EXPIRE_S: i64 = (WEEK as i64 + 1) * 3_600;

/// The attempts of one webhook by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Attempts that succeeded.
    pub succeeded: u64,
    /// Attempts that failed.
    pub failed: u64,
}

impl Counts {
    /// The success rate in percent, rounded down so that 100 means all attempts. None if there were no attempts.
    #[must_use]
    pub fn percent(self) -> Option<u64> {
        (self.succeeded.saturating_mul(100)).checked_div(self.succeeded.saturating_add(self.failed))
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_add(other.succeeded),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

impl<'a> std::iter::Sum<&'a Self> for Counts {
    fn sum<I: Iterator<Item = &'a Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, one| sum + *one)
    }
}

/// The key of the counts for the hour of `now_ms` (Unix milliseconds).
#[must_use]
pub fn key(keys: &Keys, now_ms: i64) -> String {
    keys.success(now_ms / HOUR_MS)
}

/// The field of the counts that an attempt increments.
#[must_use]
pub fn field(webhook: WebhookId, succeeded: bool) -> String {
    format!("{webhook}{}", if succeeded { '+' } else { '-' })
}

/// The attempts of `webhooks` in each of the last `hours` hours, the current one last, in the order of `webhooks`. Counts
/// that cannot be read are 0.
///
/// # Errors
/// Errors of Redis if it is unavailable.
pub async fn by_hour(
    connection: &mut Connection,
    keys: &Keys,
    webhooks: &[WebhookId],
    hours: usize,
    now_ms: i64,
) -> redis::RedisResult<Vec<Vec<Counts>>> {
    let mut all = vec![vec![Counts::default(); hours]; webhooks.len()];
    if webhooks.is_empty() {
        return Ok(all);
    }
    let fields: Vec<String> =
        webhooks.iter().flat_map(|webhook| [true, false].map(|succeeded| field(*webhook, succeeded))).collect();
    let mut pipe = redis::pipe();
    for hour in (0..hours as i64).rev() {
        pipe.cmd("HMGET").arg(keys.success(now_ms / HOUR_MS - hour)).arg(&fields);
    }
    // If the key of an hour is not a hash, only that hour is lost.
    pipe.ignore_errors();
    let answers: Vec<redis::RedisResult<Vec<Option<Vec<u8>>>>> = pipe.query_async(connection).await?;
    for (hour, counts) in answers.into_iter().enumerate() {
        let counts = match counts {
            Ok(counts) => counts,
            Err(error) if is_away(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the success counts of an hour cannot be read");
                continue;
            }
        };
        for (of_webhook, pair) in all.iter_mut().zip(counts.chunks(2)) {
            let [succeeded, failed] = [0, 1].map(|at| pair.get(at).map_or(0, |count| number(count.as_deref())));
            if let Some(counts) = of_webhook.get_mut(hour) {
                *counts = Counts { succeeded, failed };
            }
        }
    }
    Ok(all)
}

/// Parses a count. A value that is not a number from 0 to `u32::MAX` was not written by this program and counts as 0.
pub(super) fn number(count: Option<&[u8]>) -> u64 {
    let text = count.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse::<u32>().ok()).map_or(0, u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_percent_means_that_every_attempt_succeeded() {
        assert_eq!(Counts::default().percent(), None);
        assert_eq!(Counts { succeeded: 999, failed: 1 }.percent(), Some(99));
        assert_eq!(Counts { succeeded: 3, failed: 0 }.percent(), Some(100));
    }
}
