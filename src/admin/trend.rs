//! The trend of the lag: a sample each minute, of the last hours. It lives in the memory of each admin server, so it begins
//! anew with the process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::state::Admin;
use crate::clock::now_ms;

/// The time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(60);
/// The number of samples that are kept: those of three hours.
const SAMPLES_MAX: usize = 180;

/// The lag at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The time, in Unix milliseconds.
    pub at_ms: i64,
    /// The number of events that were not settled.
    pub lag: i64,
}

/// The samples of this process.
#[derive(Debug, Default)]
pub struct Trend(Mutex<VecDeque<Sample>>);

impl Trend {
    /// The samples, oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// Samples until the server ends. A sample that can't be taken, because Kafka or Redis is away, is left out.
pub async fn keep(admin: Weak<Admin>) {
    // The first sample can wait: a server that has just started has enough to do.
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(admin): Option<Arc<Admin>> = admin.upgrade() else { return };
        match admin.status().await {
            Ok(status) => admin.trend.add(Sample { at_ms: now_ms(), lag: status.lag }),
            Err(problem) => tracing::debug!(problem = problem.sentence, "the lag can't be sampled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_samples_are_kept() {
        let trend = Trend::default();
        for at_ms in 0..400 {
            trend.add(Sample { at_ms, lag: 1 });
        }
        let samples = trend.samples();
        assert_eq!((samples.len(), samples[0].at_ms, samples[179].at_ms), (180, 220, 399));
    }
}
