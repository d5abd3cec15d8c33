//! When the next attempt is due, and how long to wait before reconnecting.
//!
//! The crate `backoff` computes the growth of the waits. It is no longer maintained, so only this file uses it.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

use crate::{chance, config};

/// The delay of each retry tier (`docs/reference.md`, section "Attempts and retry schedule").
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The shortest wait of tier n, at index n − 1. The waits never shrink.
    delays: Vec<Duration>,
    jitter: f64,
    attempts_max: u32,
}

impl Schedule {
    /// Reads the schedule from the settings. There is a tier for each attempt but the last. There is at least one tier,
    /// because a delivery may be deferred before its only attempt.
    #[must_use]
    pub fn new(delivery: &config::DeliverySettings) -> Self {
        let retry = &delivery.retry;
        let mut growing = growth(retry.initial, retry.multiplier, retry.max);
        let tiers = delivery.attempts_max.saturating_sub(1).max(1);
        let mut delays: Vec<Duration> = Vec::with_capacity(tiers as usize);
        for _ in 0..tiers {
            let before = delays.last().copied().unwrap_or_default();
            // `backoff` computes with floats, so its result may be a nanosecond over the cap or under the previous
            // wait.
            delays.push(growing.next_backoff().unwrap_or(retry.max).clamp(before, retry.max));
        }
        Self { delays, jitter: retry.jitter, attempts_max: delivery.attempts_max }
    }

    /// The number of retry tiers.
    #[must_use]
    pub fn tiers(&self) -> u32 {
        self.delays.len() as u32
    }

    /// Returns the wait after failed attempt number `attempt`, or `None` if that was the last one. `jitter` is a random
    /// number from 0 to 1, and only lengthens the wait.
    #[must_use]
    pub fn delay(&self, attempt: u32, jitter: f64) -> Option<Duration> {
        (attempt < self.attempts_max).then(|| self.wait(attempt, jitter))?
    }

    fn wait(&self, tier: u32, jitter: f64) -> Option<Duration> {
        let delay = self.shortest(tier)?;
        Some(delay + delay.mul_f64(self.jitter * jitter.clamp(0.0, 1.0)))
    }

    /// Returns the shortest wait of a failed attempt in tier `tier`.
    #[must_use]
    pub fn shortest(&self, tier: u32) -> Option<Duration> {
        self.delays.get(tier.checked_sub(1)? as usize).copied()
    }

    /// Returns the longest wait of a failed attempt in tier `tier`, which is its delay with all of its jitter.
    #[must_use]
    pub fn longest(&self, tier: u32) -> Option<Duration> {
        self.wait(tier, 1.0)
    }

    /// Returns the tier for a wait: the last one whose delay is no longer than the wait, or else the first one.
    #[must_use]
    pub fn tier_for(&self, wait: Duration) -> u32 {
        self.delays.iter().rposition(|delay| *delay <= wait).map_or(1, |at| at as u32 + 1)
    }
}

/// The waits that the records of a tier may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// The shortest wait.
    pub shortest: Duration,
    /// The longest wait. A record whose due time is farther away becomes due after this wait.
    pub longest: Duration,
}

/// Growing waits between tries to reach Kafka or Redis. They have jitter, and their number is not limited.
#[derive(Debug)]
pub struct Reconnect(ExponentialBackoff);

/// The longest wait between two tries, without jitter.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// A wait is longer or shorter by up to this part, so that not all parts try at the same moment.
const RECONNECT_JITTER: f64 = 0.3;

impl Default for Reconnect {
    fn default() -> Self {
        Self(growth(Duration::from_millis(50), 2.0, RECONNECT_MAX))
    }
}

impl Reconnect {
    /// Waits before the next try. It is cancel safe.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// Returns the wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.0.next_backoff().unwrap_or(RECONNECT_MAX);
        wait.mul_f64(1.0 + RECONNECT_JITTER * (2.0 * chance::share() - 1.0))
    }
}

fn growth(initial: Duration, multiplier: f64, max: Duration) -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(initial)
        .with_multiplier(multiplier)
        .with_max_interval(max)
        .with_randomization_factor(0.0)
        .with_max_elapsed_time(None)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;

    #[test]
    fn the_default_delays_are_the_documented_ones() {
        let schedule = Schedule::new(&Config::built_in().delivery);
        let seconds: Vec<u64> = (1..=7).map(|n| schedule.delay(n, 0.0).unwrap().as_secs()).collect();
        assert_eq!(seconds, [5, 30, 180, 1080, 6480, 38880, 43200]);
        assert_eq!(schedule.delay(8, 0.0), None);
        assert_eq!(schedule.delay(0, 0.0), None);
    }

    #[test]
    fn a_wait_goes_to_the_last_tier_whose_delay_fits() {
        let schedule = Schedule::new(&Config::built_in().delivery);
        assert_eq!(schedule.tier_for(Duration::from_secs(1)), 1);
        assert_eq!(schedule.tier_for(Duration::from_secs(29)), 1);
        assert_eq!(schedule.tier_for(Duration::from_secs(30)), 2);
        assert_eq!(schedule.tier_for(Duration::from_secs(3_600)), 4);
        assert_eq!(schedule.tier_for(Duration::from_secs(1 << 20)), 7);
    }

    proptest! {
        #[test]
        fn delays_never_shrink_or_exceed_their_cap_and_jitter_only_lengthens(
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
