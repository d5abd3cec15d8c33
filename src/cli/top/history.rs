//! How fast events arrive and are settled, from one status to the next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::admin::status::Status;

/// The time over which rates are taken. Offsets are committed in steps, so a shorter one would jump.
const WINDOW: Duration = Duration::from_secs(10);
/// The most values of lag that are kept.
const LAGS_MAX: usize = 600;

/// One moment.
struct Moment {
    at: Instant,
    written: i64,
    settled: i64,
}

/// Events per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    pub(super) written: f64,
    pub(super) settled: f64,
}

#[derive(Default)]
pub(super) struct History {
    moments: VecDeque<Moment>,
    lags: VecDeque<u64>,
}

impl History {
    pub(super) fn note(&mut self, status: &Status, at: Instant) {
        // The topic of events comes first.
        let events = status.partitions.first().map(|first| first.topic.as_str());
        let of_events = || status.partitions.iter().filter(|one| Some(one.topic.as_str()) == events);
        let written = of_events().map(|one| one.end).sum();
        let settled = of_events().map(|one| one.end - one.lag).sum();
        if self.moments.back().is_some_and(|last| written < last.written) {
            // The topic was deleted and created again.
            self.moments.clear();
        }
        self.moments.push_back(Moment { at, written, settled });
        while self.moments.len() > 2 && self.moments[1].at + WINDOW <= at {
            self.moments.pop_front();
        }
        self.lags.push_back(u64::try_from(status.lag).unwrap_or(0));
        if self.lags.len() > LAGS_MAX {
            self.lags.pop_front();
        }
    }

    /// The rates over the last seconds; none before the second status.
    pub(super) fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.moments.front()?, self.moments.back()?);
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let rate = |from: i64, to: i64| (to - from).max(0) as f64 / seconds;
        (seconds > 0.0)
            .then(|| Rates { written: rate(first.written, last.written), settled: rate(first.settled, last.settled) })
    }

    /// The last values of lag, oldest first, at most `count`.
    pub(super) fn lags(&self, count: usize) -> Vec<u64> {
        self.lags.iter().skip(self.lags.len().saturating_sub(count)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::status;
    use super::*;

    #[test]
    fn rates_are_taken_over_the_last_ten_seconds() {
        let (mut history, start) = (History::default(), Instant::now());
        assert_eq!(history.rates(), None);
        for second in 0..60 {
            let mut status = status();
            status.partitions[0].end = 1_000 + second * 20;
            status.partitions[0].lag = 10 * second;
            // Other topics don't count.
            status.partitions[1].end = second * 1_000;
            history.note(&status, start + Duration::from_secs(second as u64));
        }
        assert_eq!(history.rates(), Some(Rates { written: 20.0, settled: 10.0 }));
        assert_eq!(history.lags(3).len(), 3);
    }

    #[test]
    fn a_topic_that_is_created_again_makes_no_negative_rate() {
        let (mut history, start) = (History::default(), Instant::now());
        for (second, end) in [(0, 5_000), (1, 10), (2, 15)] {
            let mut status = status();
            (status.partitions[0].end, status.partitions[0].lag) = (end, 0);
            history.note(&status, start + Duration::from_secs(second));
        }
        assert_eq!(history.rates(), Some(Rates { written: 5.0, settled: 5.0 }));
    }
}
