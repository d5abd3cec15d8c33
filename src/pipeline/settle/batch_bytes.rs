//! The bound on the bytes of one batch, so that Redis answers it in time.

use std::time::Duration;

/// A bound in bytes. It is halved when a batch isn't answered in time, and grows back while batches are answered.
#[derive(Debug)]
pub struct BatchBytes {
    current: usize,
    max: usize,
    timeout: Duration,
}

/// The smallest bound.
const BYTES_MIN: usize = 4_096;
/// A batch that is answered fast raises the bound by the maximum divided by this number.
const GROWTH_DIVISOR: usize = 16;

impl BatchBytes {
    /// Creates a bound of `max` bytes. An answer may take `timeout`.
    #[must_use]
    pub fn new(max: usize, timeout: Duration) -> Self {
        Self { current: max, max, timeout }
    }

    /// The number of settlements that go into one batch, given their sizes in order. At least 1.
    #[must_use]
    pub fn fit(&self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut sum = 0_usize;
        let fits = sizes.into_iter().take_while(|size| {
            sum = sum.saturating_add(*size);
            sum <= self.current
        });
        fits.count().max(1)
    }

    /// Lowers the bound, because a batch of `bytes` wasn't answered in time.
    pub fn timed_out(&mut self, bytes: usize) {
        self.current = (self.current.min(bytes) / 2).max(BYTES_MIN.min(self.max));
    }

    /// Raises the bound if a batch was answered after less than half of its time. After a longer time the bound stays.
    pub fn answered(&mut self, took: Duration) {
        if self.current < self.max && took < self.timeout / 2 {
            self.current = (self.current + self.max / GROWTH_DIVISOR).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_halved_after_a_timeout_and_grows_back() {
        let second = Duration::from_secs(1);
        let mut bytes = BatchBytes::new(1 << 20, second);
        let fit = |bytes: &BatchBytes| bytes.fit([100 << 10; 300]);
        assert_eq!(fit(&bytes), 10);
        bytes.timed_out(1_000 << 10);
        assert_eq!(fit(&bytes), 5);
        for _ in 0..30 {
            bytes.timed_out(1);
        }
        assert_eq!(fit(&bytes), 1, "at least one settlement always goes");
        assert_eq!(bytes.fit([1 << 10; 9]), 4);
        bytes.answered(second);
        assert_eq!(fit(&bytes), 1, "a slow answer doesn't raise the bound");
        for _ in 0..GROWTH_DIVISOR {
            bytes.answered(Duration::ZERO);
        }
        assert_eq!(fit(&bytes), 10);
        assert_eq!(bytes.fit([]), 1);
    }
}
