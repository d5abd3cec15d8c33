//! When the next attempt is due, and how long to wait before reconnecting.
//!
//! The crate `backoff` computes the growth; it is no longer maintained, so no other file names it.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

use crate::config;

/// `delay(n)` of contract section 4, for each tier n.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Shortest wait of tier n at n − 1; never shrinks.
    delays: Vec<Duration>,
    jitter: f64,
    attempts_max: u32,
}

impl Schedule {
    /// The schedule that the settings describe: a tier for each attempt but the last, and one at least, for what is put off
    /// before its only attempt.
    #[must_use]
    pub fn new(delivery: &config::Delivery) -> Self {
        let retry = &delivery.retry;
        let mut growing = growth(retry.initial, retry.multiplier, retry.max, 0.0);
        let tiers = delivery.attempts_max.saturating_sub(1).max(1);
        let mut delays: Vec<Duration> = Vec::with_capacity(tiers as usize);
        for _ in 0..tiers {
            let before = delays.last().copied().unwrap_or_default();
            // `backoff` computes in floats: a nanosecond over the cap or under the last wait is cut off.
            delays.push(growing.next_backoff().unwrap_or(retry.max).clamp(before, retry.max));
        }
        Self { delays, jitter: retry.jitter, attempts_max: delivery.attempts_max }
    }

    /// Number of retry tiers.
    #[must_use]
    pub fn tiers(&self) -> u32 {
        self.delays.len() as u32
    }

    /// The wait after failed attempt `attempt`; None when that was the last.
    /// `jitter` is drawn from 0 to 1 and only lengthens.
    #[must_use]
    pub fn delay(&self, attempt: u32, jitter: f64) -> Option<Duration> {
        (attempt < self.attempts_max).then(|| self.wait(attempt, jitter))?
    }

    fn wait(&self, tier: u32, jitter: f64) -> Option<Duration> {
        let delay = self.shortest(tier)?;
        Some(delay + delay.mul_f64(self.jitter * jitter.clamp(0.0, 1.0)))
    }

    /// The shortest wait that a failed attempt puts into tier `tier`.
    #[must_use]
    pub fn shortest(&self, tier: u32) -> Option<Duration> {
        self.delays.get(tier.checked_sub(1)? as usize).copied()
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self, tier: u32) -> Option<Duration> {
        self.wait(tier, 1.0)
    }

    /// The tier whose delay fits a wait: the longest that is over by then, else the first.
    #[must_use]
    pub fn tier_for(&self, wait: Duration) -> u32 {
        self.delays.iter().rposition(|delay| *delay <= wait).map_or(1, |at| at as u32 + 1)
    }
}

/// How long records of a tier wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// At least so long.
    pub shortest: Duration,
    /// At most so long: a record that says more is due after this.
    pub longest: Duration,
}

/// Growing waits between tries to reach a part that is away; jittered, without an end.
#[derive(Debug)]
pub struct Reconnect(ExponentialBackoff);

/// Longest wait between two tries.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

impl Default for Reconnect {
    fn default() -> Self {
        Self(growth(Duration::from_millis(50), 2.0, RECONNECT_MAX, 0.3))
    }
}

impl Reconnect {
    /// Waits before the next try. Cancel safe: nothing but time is lost.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// How long to wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(RECONNECT_MAX)
    }
}

fn growth(initial: Duration, multiplier: f64, max: Duration, randomization: f64) -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(initial)
        .with_multiplier(multiplier)
        .with_max_interval(max)
        .with_randomization_factor(randomization)
        .with_max_elapsed_time(None)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;

    #[test]
    fn the_default_delays_are_the_contracts() {
        let schedule = Schedule::new(&Config::built_in().delivery);
        let seconds: Vec<u64> = (1..=7).map(|n| schedule.delay(n, 0.0).unwrap().as_secs()).collect();
        assert_eq!(seconds, [5, 30, 180, 1080, 6480, 38880, 43200]);
        assert_eq!(schedule.delay(8, 0.0), None);
        assert_eq!(schedule.delay(0, 0.0), None);
    }

    #[test]
    fn a_wait_goes_to_the_longest_tier_that_is_over_by_then() {
        let schedule = Schedule::new(&Config::built_in().delivery);
        assert_eq!(schedule.tier_for(Duration::from_secs(1)), 1);
        assert_eq!(schedule.tier_for(Duration::from_secs(29)), 1);
        assert_eq!(schedule.tier_for(Duration::from_secs(30)), 2);
        assert_eq!(schedule.tier_for(Duration::from_secs(3_600)), 4);
        assert_eq!(schedule.tier_for(Duration::from_secs(1 << 20)), 7);
    }

    proptest! {
        #[test]
        fn jitter_only_lengthens_and_delays_never_shrink_nor_pass_their_cap(
            initial_ms in 1_u64..100_000, multiplier in 1.0_f64..20.0, max_factor in 1_u32..1_000,
            jitter in 0.0_f64..1.0, drawn in 0.0_f64..1.0, attempts_max in 1_u32..30,
        ) {
            let mut delivery = Config::built_in().delivery;
            delivery.attempts_max = attempts_max;
            delivery.retry.initial = Duration::from_millis(initial_ms);
            delivery.retry.max = delivery.retry.initial * max_factor;
            delivery.retry.multiplier = multiplier;
            delivery.retry.jitter = jitter;
            let schedule = Schedule::new(&delivery);
            prop_assert_eq!(schedule.tiers(), (attempts_max - 1).max(1));
            prop_assert_eq!(schedule.delay(attempts_max, drawn), None);
            let mut before = Duration::ZERO;
            for attempt in 1..attempts_max {
                let shortest = schedule.shortest(attempt).unwrap();
                let delay = schedule.delay(attempt, drawn).unwrap();
                prop_assert!(shortest >= before && shortest <= delivery.retry.max);
                prop_assert!(delay >= shortest && delay <= shortest + shortest.mul_f64(jitter) + Duration::from_nanos(2));
                before = shortest;
            }
        }
    }
}
