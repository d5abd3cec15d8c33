//! Random shares for jitter. A simulation decides them by its seed.

/// A random number from 0 to 1.
#[must_use]
pub fn share() -> f64 {
    #[cfg(test)]
    if let Some(share) = seeded::share() {
        return share;
    }
    rand::random()
}

/// Shares that a seed decides, for simulations.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    thread_local! {
        static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// From now on, and on this thread, `seed` decides.
    pub fn begin(seed: u64) {
        RANDOM.set(Some(StdRng::seed_from_u64(seed)));
    }

    pub(super) fn share() -> Option<f64> {
        RANDOM.with_borrow_mut(|random| Some(random.as_mut()?.random()))
    }
}
