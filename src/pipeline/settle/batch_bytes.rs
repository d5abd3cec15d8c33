//! How much goes into one batch: what Redis takes in within the time of an answer.

use std::time::Duration;

/// A bound in bytes that is halved when a batch isn't answered in time, and grows back while they are.
#[derive(Debug)]
pub struct BatchBytes {
    now: usize,
    max: usize,
    timeout: Duration,
}

/// As little as this is always tried.
const BYTES_MIN: usize = 4_096;
/// A batch that is answered in time adds one part of so many of the most.
const GROWTH_PARTS: usize = 16;

impl BatchBytes {
    /// `max` bytes at the most; an answer may take `timeout`.
    #[must_use]
    pub fn new(max: usize, timeout: Duration) -> Self {
        Self { now: max, max, timeout }
    }

    /// How many of the first go into one batch, by their bytes: one at least.
    #[must_use]
    pub fn fit(&self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut sum = 0_usize;
        let fits = sizes.into_iter().take_while(|size| {
            sum = sum.saturating_add(*size);
            sum <= self.now
        });
        fits.count().max(1)
    }

    /// A batch of so many bytes wasn't answered in time.
    pub fn timed_out(&mut self, bytes: usize) {
        self.now = (self.now.min(bytes) / 2).max(BYTES_MIN.min(self.max));
    }

    /// A batch was answered after `took`. One that took half of its time is as large as it should be.
    pub fn answered(&mut self, took: Duration) {
        if self.now < self.max && took < self.timeout / 2 {
            self.now = (self.now + self.max / GROWTH_PARTS).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_halved_when_it_is_too_slow_and_grows_back() {
        let second = Duration::from_secs(1);
        let mut bytes = BatchBytes::new(1 << 20, second);
        let fit = |bytes: &BatchBytes| bytes.fit([100 << 10; 300]);
        assert_eq!(fit(&bytes), 10);
        bytes.timed_out(1_000 << 10);
        assert_eq!(fit(&bytes), 5);
        for _ in 0..30 {
            bytes.timed_out(1);
        }
        assert_eq!(fit(&bytes), 1, "one always goes, however large");
        assert_eq!(bytes.fit([1 << 10; 9]), 4);
        bytes.answered(second);
        assert_eq!(fit(&bytes), 1, "it was slow");
        for _ in 0..GROWTH_PARTS {
            bytes.answered(Duration::ZERO);
        }
        assert_eq!(fit(&bytes), 10);
        assert_eq!(bytes.fit([]), 1);
    }
}
