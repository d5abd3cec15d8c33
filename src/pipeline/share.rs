//! A share of the places for open deliveries, and whether it is clogged: held by deliveries that don't give it back.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// It is clogged where fewer than this part of its places come free within a turn.
const CLOGGED_BELOW: f64 = 1.0 / 8.0;

/// So many places. Who finds none waits for one, as long as they come free.
#[derive(Debug)]
pub struct Share {
    places: Arc<Semaphore>,
    size: usize,
    /// How long it is watched before it is judged.
    turn: Duration,
    crowd: Mutex<Option<Crowd>>,
}

impl Share {
    /// Of `size` places.
    #[must_use]
    pub fn new(size: usize, turn: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(size)), size, turn, crowd: Mutex::default() }
    }

    /// How many are free.
    #[must_use]
    pub fn left(&self) -> usize {
        self.places.available_permits()
    }

    /// A place; None where there is none and the share is clogged. Where `may_judge` says no, it isn't the endpoints that
    /// keep places from coming free, and there is nothing to do but to wait. Cancel safe.
    pub async fn claim(&self, may_judge: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        loop {
            let claimed = self.places.clone().try_acquire_owned().ok();
            if claimed.is_some() {
                self.given();
                return claimed;
            }
            if !may_judge() {
                *self.crowd() = None;
            } else if self.is_clogged() {
                return None;
            }
            if let Ok(place) = timeout(self.turn / 4, self.places.clone().acquire_owned()).await {
                self.given();
                return place.ok();
            }
        }
    }

    fn crowd(&self) -> MutexGuard<'_, Option<Crowd>> {
        self.crowd.lock().expect("nothing panics while it holds the crowd")
    }

    fn given(&self) {
        let mut crowd = self.crowd();
        if self.left() > 0 {
            *crowd = None;
        } else if let Some(crowd) = crowd.as_mut() {
            crowd.given += 1;
        }
    }

    fn is_clogged(&self) -> bool {
        let now = Instant::now();
        self.crowd().get_or_insert(Crowd { since: now, given: 0, clogged: false }).is_clogged(now, self.size, self.turn)
    }
}

/// More want a place than there are.
#[derive(Debug)]
struct Crowd {
    /// When the present turn began.
    since: Instant,
    /// Places given within it.
    given: usize,
    /// How the last turn ended.
    clogged: bool,
}

impl Crowd {
    fn is_clogged(&mut self, now: Instant, size: usize, turn: Duration) -> bool {
        let age = now.saturating_duration_since(self.since);
        if age >= turn {
            // Of a turn that went on unseen, what was given within it is an average.
            self.clogged = (self.given as f64) < CLOGGED_BELOW * size as f64 * age.as_secs_f64() / turn.as_secs_f64();
            self.since = now;
            self.given = 0;
        }
        self.clogged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn places_that_are_not_given_back_clog_it_and_then_nobody_waits() {
        let share = Share::new(3, TURN);
        let mut held: Vec<_> = vec![];
        for _ in 0..3 {
            held.push(share.claim(|| true).await.unwrap());
        }
        let began = Instant::now();
        assert!(share.claim(|| true).await.is_none());
        assert_eq!(began.elapsed(), TURN);
        assert!(share.claim(|| true).await.is_none());
        assert_eq!(began.elapsed(), TURN, "it is known by now");
        held.pop();
        held.push(share.claim(|| true).await.unwrap());
        assert!(share.claim(|| true).await.is_none(), "one that came free is given, and it is clogged still");
        held.clear();
        for _ in 0..3 {
            held.push(share.claim(|| true).await.unwrap());
        }
        assert!(timeout(TURN / 2, share.claim(|| true)).await.is_err(), "it came free: everyone waits again");
    }

    #[tokio::test(start_paused = true)]
    async fn while_places_come_free_in_time_everyone_waits_for_one() {
        let share = Arc::new(Share::new(4, TURN));
        let mut tasks = vec![];
        for _ in 0..100 {
            let place = share.claim(|| true).await.expect("one comes free within each turn");
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(TURN / 2).await;
                drop(place);
            }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_judges_while_it_is_not_the_endpoints_that_hold_places() {
        let share = Share::new(1, TURN);
        let place = share.claim(|| true).await;
        assert!(timeout(TURN * 20, share.claim(|| false)).await.is_err());
        drop(place);
        assert!(share.claim(|| false).await.is_some());
    }
}
