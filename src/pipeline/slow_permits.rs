//! The permits that endpoints may hold for long, and the part of them that each endpoint may hold.
//!
//! Permits that an endpoint gives back within `delivery.endpoint_wait_max` are not limited here. The permits that it
//! holds for longer are counted against `worker.slow_share`. The other endpoints therefore have permits, however many
//! endpoints are slow, or are dead without being known as such.

/// Counts the permits that are held for long. Callers pass the number that their endpoint holds, so nothing is stored
/// about single endpoints.
#[derive(Debug)]
pub struct SlowPermits {
    max: usize,
    held: usize,
    endpoints: usize,
}

impl SlowPermits {
    /// Creates a count of zero with the limit `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, held: 0, endpoints: 0 }
    }

    /// The number of permits that an endpoint may hold for long, if it holds `own` now. This is an equal part, with one
    /// part left for the next endpoint, or half of the permits that the others leave if that is more. It is never more
    /// than they leave. A single slow endpoint gets a large part, many get equal parts, and something is left for a new
    /// one (dynamic thresholds of shared-memory switches, Choudhury and Hahne, 1998).
    #[must_use]
    pub fn part(&self, own: usize) -> usize {
        let endpoints = self.endpoints + usize::from(own == 0);
        let left = self.max.saturating_sub(self.held - own);
        (self.max / (endpoints + 1)).max(left.div_ceil(2)).min(left)
    }

    /// Notes that an endpoint that held `before` permits for long holds `now` of them.
    pub fn hold(&mut self, before: usize, now: usize) {
        self.held = self.held + now - before;
        self.endpoints = self.endpoints + usize::from(now > 0) - usize::from(before > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_endpoint_gets_half_and_many_get_equal_parts() {
        let mut permits = SlowPermits::new(512);
        assert_eq!(permits.part(0), 256);
        for _ in 0..15 {
            permits.hold(0, 32);
        }
        assert_eq!(permits.part(32), 32);
        assert_eq!(permits.part(0), 30, "the part of the sixteenth endpoint");
    }

    #[test]
    fn the_last_permit_is_given_and_then_none_is_left() {
        let mut permits = SlowPermits::new(1);
        assert_eq!(permits.part(0), 1);
        permits.hold(0, 1);
        assert_eq!(permits.part(0), 0);
    }

    proptest! {
        #[test]
        fn endpoints_that_keep_to_their_parts_never_exceed_the_limit(
            max in 1_usize..600, steps in prop::collection::vec((0_usize..40, any::<bool>()), 0..2_000),
        ) {
            let mut permits = SlowPermits::new(max);
            let mut own = vec![0_usize; 40];
            for (endpoint, gives_back) in steps {
                let before = own[endpoint];
                let now = if gives_back {
                    before.saturating_sub(1)
                } else if before < permits.part(before) {
                    before + 1
                } else {
                    before
                };
                permits.hold(before, now);
                own[endpoint] = now;
            }
            prop_assert_eq!(permits.held, own.iter().sum::<usize>());
            prop_assert_eq!(permits.endpoints, own.iter().filter(|own| **own > 0).count());
            prop_assert!(permits.held <= max);
        }
    }
}
