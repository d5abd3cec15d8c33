//! A pool of permits for open deliveries. It is exhausted if callers wait and permits don't come free.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// A pool is exhausted if fewer than this part of its permits come free within one period.
const EXHAUSTED_BELOW: f64 = 1.0 / 8.0;

/// A bounded pool of permits. Callers wait for a permit as long as permits come free.
#[derive(Debug)]
pub struct PermitPool {
    permits: Arc<Semaphore>,
    size: usize,
    /// The time over which the pool is observed before it is judged.
    period: Duration,
    contention: Mutex<Option<Contention>>,
}

impl PermitPool {
    /// Creates a pool of `size` permits that is judged after each `period`.
    #[must_use]
    pub fn new(size: usize, period: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(size)), size, period, contention: Mutex::default() }
    }

    /// The number of free permits.
    #[must_use]
    pub fn available(&self) -> usize {
        self.permits.available_permits()
    }

    /// Takes a permit. Returns None if no permit is free and the pool is exhausted. While `may_judge` returns false,
    /// endpoints are not the reason why permits don't come free, so the caller waits instead. Cancel safe.
    pub async fn claim(&self, may_judge: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        loop {
            let claimed = self.permits.clone().try_acquire_owned().ok();
            if claimed.is_some() {
                self.note_given();
                return claimed;
            }
            if !may_judge() {
                *self.contention() = None;
            } else if self.is_exhausted() {
                return None;
            }
            if let Ok(permit) = timeout(self.period / 4, self.permits.clone().acquire_owned()).await {
                self.note_given();
                return permit.ok();
            }
        }
    }

    fn contention(&self) -> MutexGuard<'_, Option<Contention>> {
        self.contention.lock().expect("no code panics while it holds this lock")
    }

    fn note_given(&self) {
        let mut contention = self.contention();
        if self.available() > 0 {
            *contention = None;
        } else if let Some(contention) = contention.as_mut() {
            contention.given += 1;
        }
    }

    fn is_exhausted(&self) -> bool {
        let now = Instant::now();
        self.contention().get_or_insert(Contention { since: now, given: 0, exhausted: false }).is_exhausted(
            now,
            self.size,
            self.period,
        )
    }
}

/// What is known about a pool whose permits are all in use.
#[derive(Debug)]
struct Contention {
    /// The start of the current period.
    since: Instant,
    /// The permits that callers got within the current period.
    given: usize,
    /// Whether the pool was exhausted in the last period.
    exhausted: bool,
}

impl Contention {
    fn is_exhausted(&mut self, now: Instant, size: usize, period: Duration) -> bool {
        let age = now.saturating_duration_since(self.since);
        if age >= period {
            // If nobody asked for longer than a period, the average over that time counts.
            let periods = age.as_secs_f64() / period.as_secs_f64();
            self.exhausted = (self.given as f64) < EXHAUSTED_BELOW * size as f64 * periods;
            self.since = now;
            self.given = 0;
        }
        self.exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn a_pool_whose_permits_stay_taken_is_exhausted_and_nobody_waits() {
        let pool = PermitPool::new(3, PERIOD);
        let mut held: Vec<_> = vec![];
        for _ in 0..3 {
            held.push(pool.claim(|| true).await.unwrap());
        }
        let began = Instant::now();
        assert!(pool.claim(|| true).await.is_none());
        assert_eq!(began.elapsed(), PERIOD);
        assert!(pool.claim(|| true).await.is_none());
        assert_eq!(began.elapsed(), PERIOD, "callers don't wait again");
        held.pop();
        held.push(pool.claim(|| true).await.unwrap());
        assert!(pool.claim(|| true).await.is_none(), "one free permit is given, and the pool is still exhausted");
        held.clear();
        for _ in 0..3 {
            held.push(pool.claim(|| true).await.unwrap());
        }
        assert!(timeout(PERIOD / 2, pool.claim(|| true)).await.is_err(), "permits came free, so callers wait again");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_wait_while_permits_come_free() {
        let pool = Arc::new(PermitPool::new(4, PERIOD));
        let mut tasks = vec![];
        for _ in 0..100 {
            let permit = pool.claim(|| true).await.expect("a permit comes free within each period");
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(PERIOD / 2).await;
                drop(permit);
            }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_is_not_judged_while_endpoints_are_not_the_reason() {
        let pool = PermitPool::new(1, PERIOD);
        let permit = pool.claim(|| true).await;
        assert!(timeout(PERIOD * 20, pool.claim(|| false)).await.is_err());
        drop(permit);
        assert!(pool.claim(|| false).await.is_some());
    }
}
