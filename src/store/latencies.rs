//! How long the attempts of each webhook took, by hour, in buckets that grow by the square root of two.
//!
//! They are fields of the same hash as the counts of success, so they cost no key of their own and expire with it.

use std::time::Duration;

use super::connection::Connection;
use super::success::HOUR_MS;
use super::{Keys, is_away};
use crate::webhook::WebhookId;

/// The number of buckets. The first is for attempts below a millisecond, the last for all of 92 s or more.
pub const BUCKETS: usize = 34;

/// The attempts of one hour, by bucket.
pub type Histogram = [u64; BUCKETS];

/// The bucket of a duration.
#[must_use]
pub fn bucket(duration: Duration) -> usize {
    let ms = duration.as_secs_f64() * 1_000.0;
    if ms < 1.0 { 0 } else { ((ms.log2() * 2.0) as usize + 1).min(BUCKETS - 1) }
}

/// The field of the counts that an attempt of this duration increments.
#[must_use]
pub fn field(webhook: WebhookId, duration: Duration) -> String {
    field_of(webhook, bucket(duration))
}

fn field_of(webhook: WebhookId, bucket: usize) -> String {
    format!("{webhook}~{bucket}")
}

/// The duration below which a share of the attempts ended, such as 0.5 or 0.95; None if there were none. It is the middle
/// of a bucket, so it is right to within a fifth.
#[must_use]
pub fn quantile(histogram: &Histogram, share: f64) -> Option<Duration> {
    let total: u64 = histogram.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = ((total as f64 * share).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    let found = histogram.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    let ms = match found.unwrap_or(BUCKETS - 1) {
        0 => 0.5,
        bucket => 2_f64.powf((bucket as f64 - 0.5) / 2.0),
    };
    Some(Duration::from_secs_f64(ms / 1_000.0))
}

/// The attempts of both histograms.
#[must_use]
pub fn sum<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Histogram {
    let mut sum = [0; BUCKETS];
    for histogram in histograms {
        for (all, one) in sum.iter_mut().zip(histogram) {
            *all += one;
        }
    }
    sum
}

/// The attempts of `webhook` in each of the last `hours` hours, the current one last. Counts that can't be read are 0.
///
/// # Errors
/// Errors of Redis if it is unavailable.
pub async fn by_hour(
    connection: &mut Connection,
    keys: &Keys,
    webhook: WebhookId,
    hours: usize,
    now_ms: i64,
) -> redis::RedisResult<Vec<Histogram>> {
    let fields: Vec<String> = (0..BUCKETS).map(|bucket| field_of(webhook, bucket)).collect();
    let mut pipe = redis::pipe();
    for hour in (0..hours as i64).rev() {
        pipe.cmd("HMGET").arg(keys.success(now_ms / HOUR_MS - hour)).arg(&fields);
    }
    pipe.ignore_errors();
    let answers: Vec<redis::RedisResult<Vec<Option<Vec<u8>>>>> = pipe.query_async(connection).await?;
    let read = |counts: redis::RedisResult<Vec<Option<Vec<u8>>>>| match counts {
        Err(error) if is_away(&error) => Err(error),
        counts => {
            let mut histogram = [0; BUCKETS];
            for (count, text) in histogram.iter_mut().zip(counts.unwrap_or_default()) {
                *count = super::success::number(text.as_deref());
            }
            Ok(histogram)
        }
    };
    answers.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_a_bucket_and_quantiles_are_right_to_within_a_fifth() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        for ms in [1.0_f64, 1.5, 3.0, 10.0, 99.0, 1_000.0, 30_000.0] {
            let mut histogram = [0; BUCKETS];
            histogram[bucket(Duration::from_secs_f64(ms / 1_000.0))] = 5;
            let found = quantile(&histogram, 0.95).unwrap().as_secs_f64() * 1_000.0;
            assert!((found / ms - 1.0).abs() < 0.2, "{ms} ms became {found} ms");
        }
        assert_eq!(quantile(&[0; BUCKETS], 0.5), None);
    }

    #[test]
    fn the_median_and_the_tail_differ() {
        let mut histogram = [0; BUCKETS];
        histogram[bucket(Duration::from_millis(10))] = 94;
        histogram[bucket(Duration::from_millis(2_000))] = 6;
        let at = |share| quantile(&histogram, share).unwrap();
        assert!(at(0.5) < Duration::from_millis(13) && at(0.95) > Duration::from_millis(1_500));
    }
}
