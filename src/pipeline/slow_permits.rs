//! The places that endpoints may hold for long, and each one's part of them.
//!
//! A place that an endpoint gives back within `delivery.endpoint_wait_max` is anyone's. What it holds for longer comes out
//! of these, so that however many endpoints are slow, or dead and not known to be yet, the others have places.

/// Counts them. An endpoint's own is told with each call, so that nothing is kept of those that are gone.
#[derive(Debug)]
pub struct SlowPermits {
    max: usize,
    held: usize,
    endpoints: usize,
}

impl SlowPermits {
    /// None held, of `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, held: 0, endpoints: 0 }
    }

    /// How many an endpoint may hold that holds `own` now: an even part of all with one to spare for the next, or half
    /// of what the others leave, if that is more; never more than they leave. So one alone gets much, many get the same, and
    /// there is something left for a newcomer (after the dynamic thresholds of shared-memory switches: Choudhury and
    /// Hahne, 1998).
    #[must_use]
    pub fn part(&self, own: usize) -> usize {
        let with_it = self.endpoints + usize::from(own == 0);
        let left = self.max.saturating_sub(self.held - own);
        (self.max / (with_it + 1)).max(left.div_ceil(2)).min(left)
    }

    /// An endpoint that held `before` holds `now`.
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
    fn one_alone_gets_half_and_many_get_the_same_with_one_part_to_spare() {
        let mut places = SlowPermits::new(512);
        assert_eq!(places.part(0), 256);
        for _ in 0..15 {
            places.hold(0, 32);
        }
        assert_eq!(places.part(32), 32);
        assert_eq!(places.part(0), 30, "for the sixteenth");
    }

    #[test]
    fn the_last_place_is_given_and_where_all_are_held_there_is_none() {
        let mut places = SlowPermits::new(1);
        assert_eq!(places.part(0), 1);
        places.hold(0, 1);
        assert_eq!(places.part(0), 0);
    }

    proptest! {
        #[test]
        fn endpoints_that_take_their_part_never_hold_more_than_there_are(
            max in 1_usize..600, takers in prop::collection::vec((0_usize..40, any::<bool>()), 0..2_000),
        ) {
            let mut places = SlowPermits::new(max);
            let mut own = vec![0_usize; 40];
            for (taker, gives_back) in takers {
                let before = own[taker];
                let now = if gives_back {
                    before.saturating_sub(1)
                } else if before < places.part(before) {
                    before + 1
                } else {
                    before
                };
                places.hold(before, now);
                own[taker] = now;
            }
            prop_assert_eq!(places.held, own.iter().sum::<usize>());
            prop_assert_eq!(places.endpoints, own.iter().filter(|own| **own > 0).count());
            prop_assert!(places.held <= max);
        }
    }
}
