//! The limit on the requests that an endpoint has in flight. It falls while the endpoint is overloaded and grows as it
//! recovers.

use tokio::time::Instant;

/// Additive increase and multiplicative decrease, as in TCP (RFC 5681). A sign of overload halves the limit. It grows
/// by one after as many successes as it allows requests.
#[derive(Debug)]
pub struct Pace {
    limit: f64,
    /// The time when the limit was last lowered. Requests that started before it don't lower the limit again.
    lowered_at: Option<Instant>,
}

impl Pace {
    /// A pace at its maximum, because an endpoint is trusted until it shows overload.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { limit: max as f64, lowered_at: None }
    }

    /// The most requests in flight, at least 1.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Raises the limit after a success, up to `max`.
    pub fn succeeded(&mut self, max: usize) {
        self.limit = (self.limit + 1.0 / self.limit).min(max as f64);
    }

    /// Lowers the limit after a sign of overload: a timeout, 429, 502, 503 or 504.
    pub fn overloaded(&mut self, started: Instant, now: Instant) {
        // One moment of overload shows in many requests, and it counts once.
        if self.lowered_at.is_none_or(|lowered_at| started >= lowered_at) {
            self.limit = (self.limit / 2.0).max(1.0);
            self.lowered_at = Some(now);
        }
    }

    /// Sets the limit to one, so that the backlog after an outage comes back at the endpoint's pace.
    pub fn restart(&mut self) {
        self.limit = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_moment_of_overload_halves_the_limit_once_down_to_one() {
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
    fn a_round_of_successes_raises_the_limit_by_one_up_to_its_maximum() {
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
