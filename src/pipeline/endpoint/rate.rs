//! Spaces the requests of a webhook evenly, according to its `ratePerSecond` (GCRA).

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

/// The number of requests that may go at once after a pause. The rest of a second's requests follow evenly.
const BURST: NonZeroU32 = NonZeroU32::MIN;

/// The rate of one webhook in this process.
#[derive(Debug)]
pub struct Rate {
    /// The time from one request to the next.
    period: Duration,
    limiter: DefaultDirectRateLimiter,
    /// The time before which a new limiter would allow more than this one.
    free_at: Instant,
}

impl Rate {
    /// The time between two requests of this process, if `workers` workers share the rate.
    #[must_use]
    pub fn period_of(per_second: NonZeroU32, workers: u32) -> Duration {
        Duration::from_secs(workers.into()) / per_second.get()
    }

    /// Allows one request in each `period`, the first one at `free_at`. Returns None for a period of zero, which is no
    /// limit.
    #[must_use]
    pub fn new(period: Duration, free_at: Instant) -> Option<Self> {
        let quota = Quota::with_period(period)?.allow_burst(BURST);
        Some(Self { period, limiter: RateLimiter::direct(quota), free_at })
    }

    /// The time from one request to the next.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The time at which a rate that replaces this one may allow its first request.
    #[must_use]
    pub fn free_at(&self) -> Instant {
        self.free_at
    }

    /// Takes one request.
    ///
    /// # Errors
    /// Returns the time at which to ask again if no request may go now.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        if self.free_at > now {
            return Err(self.free_at);
        }
        if let Err(not_until) = self.limiter.check() {
            return Err(now + not_until.wait_time_from(DefaultClock::default().now()));
        }
        self.free_at = now + self.period;
        Ok(())
    }
}
