//! How many attempts of each webhook succeeded and failed, by the hour.

use crate::store::connection::Connection;

use super::{Keys, is_away};
use crate::webhook::WebhookId;

const HOUR_MS: i64 = 3_600_000;
/// What a rate is made of: the present hour and the 23 before it.
const HOURS: i64 = 24;
/// An hour's counts are kept a little longer than they are read, in seconds.
pub const EXPIRE_S: i64 = (HOURS + 1) * 3_600;

/// Attempts of one webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// That succeeded.
    pub succeeded: u64,
    /// That failed.
    pub failed: u64,
}

impl Counts {
    /// Share that succeeded, in percent, rounded down so that 100 means all; None without attempts.
    #[must_use]
    pub fn percent(self) -> Option<u64> {
        (self.succeeded.saturating_mul(100)).checked_div(self.succeeded.saturating_add(self.failed))
    }
}

/// Where the attempts of that hour are counted.
#[must_use]
pub fn key(keys: &Keys, now_ms: i64) -> String {
    keys.success(now_ms / HOUR_MS)
}

/// Which count an attempt raises.
#[must_use]
pub fn field(webhook: WebhookId, succeeded: bool) -> String {
    format!("{webhook}{}", if succeeded { '+' } else { '-' })
}

/// The last 24 hours of `webhooks`, in their order.
///
/// # Errors
/// Redis's.
pub async fn of_last_day(
    connection: &mut Connection,
    keys: &Keys,
    webhooks: &[WebhookId],
    now_ms: i64,
) -> redis::RedisResult<Vec<Counts>> {
    let mut days = vec![Counts::default(); webhooks.len()];
    if webhooks.is_empty() {
        return Ok(days);
    }
    let fields: Vec<String> =
        webhooks.iter().flat_map(|webhook| [true, false].map(|succeeded| field(*webhook, succeeded))).collect();
    let mut pipe = redis::pipe();
    for hour in 0..HOURS {
        pipe.cmd("HMGET").arg(keys.success(now_ms / HOUR_MS - hour)).arg(&fields);
    }
    // An hour that isn't a hash, or a count that isn't a number, costs itself only.
    pipe.ignore_errors();
    let hours: Vec<redis::RedisResult<Vec<Option<Vec<u8>>>>> = pipe.query_async(connection).await?;
    for hour in hours {
        let counts = match hour {
            Ok(counts) => counts,
            Err(error) if is_away(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "an hour's success counts can't be read");
                continue;
            }
        };
        for (day, pair) in days.iter_mut().zip(counts.chunks(2)) {
            let [succeeded, failed] = [0, 1].map(|at| pair.get(at).map_or(0, |count| number(count.as_deref())));
            day.succeeded = day.succeeded.saturating_add(succeeded);
            day.failed = day.failed.saturating_add(failed);
        }
    }
    Ok(days)
}

/// A count as it stands there. Redis counts in signed numbers: more isn't one of ours.
fn number(count: Option<&[u8]>) -> u64 {
    let text = count.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse::<u32>().ok()).map_or(0, u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_percent_means_all_and_none_means_no_attempt() {
        assert_eq!(Counts::default().percent(), None);
        assert_eq!(Counts { succeeded: 999, failed: 1 }.percent(), Some(99));
        assert_eq!(Counts { succeeded: 3, failed: 0 }.percent(), Some(100));
    }
}
