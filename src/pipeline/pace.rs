//! How many requests at once an endpoint gets: fewer while it is overwhelmed, more as it recovers.

use tokio::time::Instant;

/// Additive increase, multiplicative decrease, as TCP does it (RFC 5681): halved by a sign of overload, and grown by
/// one for each round of successes.
#[derive(Debug)]
pub struct Pace {
    limit: f64,
    /// Requests that started before say nothing of the limit since.
    lowered_at: Option<Instant>,
}

impl Pace {
    /// As fast as allowed: an endpoint is trusted until it shows otherwise.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { limit: max as f64, lowered_at: None }
    }

    /// Requests at once; never none.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A request that started at `started` succeeded.
    pub fn succeeded(&mut self, max: usize) {
        self.limit = (self.limit + 1.0 / self.limit).min(max as f64);
    }

    /// It met a sign of overload: a timeout, 429, 502, 503 or 504.
    pub fn overloaded(&mut self, started: Instant, now: Instant) {
        // One bad moment shows in many requests at once and counts once.
        if self.lowered_at.is_none_or(|lowered_at| started >= lowered_at) {
            self.limit = (self.limit / 2.0).max(1.0);
            self.lowered_at = Some(now);
        }
    }

    /// Begins anew at one: after an outage the endpoint sets the pace.
    pub fn restart(&mut self) {
        self.limit = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_bad_moment_halves_it_once_and_it_never_falls_below_one() {
        let mut pace = Pace::new(64);
        let started = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..64 {
            pace.overloaded(started, Instant::now());
        }
        assert_eq!(pace.limit(), 32);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            pace.overloaded(Instant::now(), Instant::now());
        }
        assert_eq!(pace.limit(), 1);
    }

    #[test]
    fn a_round_of_successes_raises_it_by_one_up_to_its_maximum() {
        let mut pace = Pace::new(4);
        pace.restart();
        pace.succeeded(4);
        assert_eq!(pace.limit(), 2);
        for _ in 0..100 {
            pace.succeeded(4);
        }
        assert_eq!(pace.limit(), 4);
    }
}
