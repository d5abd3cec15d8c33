//! How many attempts of each webhook succeeded and failed, by the hour.

use std::collections::HashMap;

use redis::aio::ConnectionManager;

use super::Keys;
use crate::webhook::WebhookId;

const HOUR_MS: i64 = 3_600_000;
/// What a rate is made of: the present hour and the 23 before it.
const HOURS: i64 = 24;
/// An hour's counts are kept a little longer than they are read, in seconds.
const EXPIRE_S: i64 = (HOURS + 1) * 3_600;

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
        (self.succeeded * 100).checked_div(self.succeeded + self.failed)
    }
}

/// Adds what a batch came to. No answer.
pub fn add(pipe: &mut redis::Pipeline, keys: &Keys, counts: &HashMap<WebhookId, Counts>, now_ms: i64) {
    if counts.is_empty() {
        return;
    }
    let key = keys.success(now_ms / HOUR_MS);
    for (webhook, counts) in counts {
        for (field, count) in fields(*webhook).into_iter().zip([counts.succeeded, counts.failed]) {
            if count > 0 {
                pipe.hincr(&key, field, count).ignore();
            }
        }
    }
    pipe.cmd("EXPIRE").arg(&key).arg(EXPIRE_S).ignore();
}

fn fields(webhook: WebhookId) -> [String; 2] {
    [format!("{webhook}+"), format!("{webhook}-")]
}

/// The last 24 hours of `webhooks`, in their order.
///
/// # Errors
/// Redis's.
pub async fn of_last_day(
    connection: &mut ConnectionManager,
    keys: &Keys,
    webhooks: &[WebhookId],
    now_ms: i64,
) -> redis::RedisResult<Vec<Counts>> {
    let mut days = vec![Counts::default(); webhooks.len()];
    if webhooks.is_empty() {
        return Ok(days);
    }
    let fields: Vec<String> = webhooks.iter().flat_map(|webhook| fields(*webhook)).collect();
    let mut pipe = redis::pipe();
    for hour in 0..HOURS {
        pipe.cmd("HMGET").arg(keys.success(now_ms / HOUR_MS - hour)).arg(&fields);
    }
    let hours: Vec<Vec<Option<u64>>> = pipe.query_async(connection).await?;
    for hour in hours {
        for (day, counts) in days.iter_mut().zip(hour.chunks(2)) {
            day.succeeded += counts[0].unwrap_or(0);
            day.failed += counts[1].unwrap_or(0);
        }
    }
    Ok(days)
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
