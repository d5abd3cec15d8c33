//! A webhook's `ratePerSecond`, kept by GCRA: requests are spaced evenly.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

/// Requests that may go at once after a pause. The rest of a second's requests follow evenly.
const BURST: NonZeroU32 = NonZeroU32::MIN;

/// The rate of one webhook in this process.
#[derive(Debug)]
pub struct Rate {
    /// The time from one request to the next.
    period: Duration,
    limiter: DefaultDirectRateLimiter,
    /// Until then a new limiter would allow more than this one.
    free_at: Instant,
}

impl Rate {
    /// The time between two requests of this process, if so many `workers` keep the rate together.
    #[must_use]
    pub fn period_of(per_second: NonZeroU32, workers: u32) -> Duration {
        Duration::from_secs(workers.into()) / per_second.get()
    }

    /// One request for each `period`, the first one at `free_at`. None for a period of zero, which is no limit.
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

    /// When another rate in place of this one may let its first request go.
    #[must_use]
    pub fn free_at(&self) -> Instant {
        self.free_at
    }

    /// Takes one request. Returns when to ask again if none may go now.
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
