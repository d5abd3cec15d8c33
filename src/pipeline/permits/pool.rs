//! A pool of the permits for open deliveries, and whether it is exhausted: held by deliveries that don't give it back.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// It is exhausted where fewer than this part of its permits come free within a turn.
const EXHAUSTED_BELOW: f64 = 1.0 / 8.0;

/// So many permits. Who finds none waits for one, as long as they come free.
#[derive(Debug)]
pub struct PermitPool {
    permits: Arc<Semaphore>,
    size: usize,
    /// How long it is watched before it is judged.
    turn: Duration,
    contention: Mutex<Option<Contention>>,
}

impl PermitPool {
    /// Of `size` permits.
    #[must_use]
    pub fn new(size: usize, turn: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(size)), size, turn, contention: Mutex::default() }
    }

    /// How many are free.
    #[must_use]
    pub fn available(&self) -> usize {
        self.permits.available_permits()
    }

    /// A permit; None where there is none and the pool is exhausted. Where `may_judge` says no, it isn't the endpoints that
    /// keep permits from coming free, and there is nothing to do but to wait. Cancel safe.
    pub async fn claim(&self, may_judge: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        loop {
            let claimed = self.permits.clone().try_acquire_owned().ok();
            if claimed.is_some() {
                self.given();
                return claimed;
            }
            if !may_judge() {
                *self.contention() = None;
            } else if self.is_exhausted() {
                return None;
            }
            if let Ok(permit) = timeout(self.turn / 4, self.permits.clone().acquire_owned()).await {
                self.given();
                return permit.ok();
            }
        }
    }

    fn contention(&self) -> MutexGuard<'_, Option<Contention>> {
        self.contention.lock().expect("nothing panics while it holds the contention")
    }

    fn given(&self) {
        let mut contention = self.contention();
        if self.available() > 0 {
            *contention = None;
        } else if let Some(contention) = contention.as_mut() {
            contention.given += 1;
        }
    }

    fn is_exhausted(&self) -> bool {
        let now = Instant::now();
        self.contention()
            .get_or_insert(Contention { since: now, given: 0, exhausted: false })
            .is_exhausted(now, self.size, self.turn)
    }
}

/// More want a permit than there are.
#[derive(Debug)]
struct Contention {
    /// When the present turn began.
    since: Instant,
    /// Places given within it.
    given: usize,
    /// How the last turn ended.
    exhausted: bool,
}

impl Contention {
    fn is_exhausted(&mut self, now: Instant, size: usize, turn: Duration) -> bool {
        let age = now.saturating_duration_since(self.since);
        if age >= turn {
            // Of a turn that went on unseen, what was given within it is an average.
            self.exhausted =
                (self.given as f64) < EXHAUSTED_BELOW * size as f64 * age.as_secs_f64() / turn.as_secs_f64();
            self.since = now;
            self.given = 0;
        }
        self.exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn places_that_are_not_given_back_clog_it_and_then_nobody_waits() {
        let pool = PermitPool::new(3, TURN);
        let mut held: Vec<_> = vec![];
        for _ in 0..3 {
            held.push(pool.claim(|| true).await.unwrap());
        }
        let began = Instant::now();
        assert!(pool.claim(|| true).await.is_none());
        assert_eq!(began.elapsed(), TURN);
        assert!(pool.claim(|| true).await.is_none());
        assert_eq!(began.elapsed(), TURN, "it is known by now");
        held.pop();
        held.push(pool.claim(|| true).await.unwrap());
        assert!(pool.claim(|| true).await.is_none(), "one that came free is given, and it is exhausted still");
        held.clear();
        for _ in 0..3 {
            held.push(pool.claim(|| true).await.unwrap());
        }
        assert!(timeout(TURN / 2, pool.claim(|| true)).await.is_err(), "it came free: everyone waits again");
    }

    #[tokio::test(start_paused = true)]
    async fn while_places_come_free_in_time_everyone_waits_for_one() {
        let pool = Arc::new(PermitPool::new(4, TURN));
        let mut tasks = vec![];
        for _ in 0..100 {
            let permit = pool.claim(|| true).await.expect("one comes free within each turn");
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(TURN / 2).await;
                drop(permit);
            }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_judges_while_it_is_not_the_endpoints_that_hold_places() {
        let pool = PermitPool::new(1, TURN);
        let permit = pool.claim(|| true).await;
        assert!(timeout(TURN * 20, pool.claim(|| false)).await.is_err());
        drop(permit);
        assert!(pool.claim(|| false).await.is_some());
    }
}
