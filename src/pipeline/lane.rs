//! The queue of one endpoint. A lane limits the number of requests in flight, and sends the first attempts of one task
//! one after another.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// A delivery that a lane can queue.
pub trait Queued {
    /// First attempts with the same key keep their order. None means that the delivery may go in any order.
    fn order_key(&self) -> Option<u64>;

    /// Whether a person asked for this delivery. A redelivery goes before all others. If the endpoint is backing off,
    /// the redelivery serves as its probe.
    fn is_redelivery(&self) -> bool {
        false
    }
}

/// The requests of one endpoint: those in flight, and the deliveries that wait for their turn.
#[derive(Debug)]
pub struct Lane<T> {
    in_flight: usize,
    /// Deliveries that may go as soon as there is a free slot, each with the time when it was queued.
    ready: VecDeque<(Instant, T)>,
    /// The first attempts that wait for an earlier one of the same task, by order key, each with the time when it was
    /// queued. A task has an entry, perhaps an empty one, while a first attempt of it is ready or in flight.
    followers: HashMap<u64, VecDeque<(Instant, T)>, Xxh3DefaultBuilder>,
    /// The number of deliveries in `ready` and `followers`.
    waiting: usize,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { in_flight: 0, ready: VecDeque::new(), followers: HashMap::default(), waiting: 0 }
    }
}

impl<T: Queued> Lane<T> {
    /// Queues a delivery.
    pub fn admit(&mut self, item: T, now: Instant) {
        self.waiting += 1;
        if let Some(key) = item.order_key() {
            if let Some(followers) = self.followers.get_mut(&key) {
                followers.push_back((now, item));
                return;
            }
            self.followers.insert(key, VecDeque::new());
        }
        self.ready.push_back((now, item));
    }

    /// Whether a delivery may go now.
    #[must_use]
    pub fn has_next(&self, in_flight_max: usize) -> bool {
        self.in_flight < in_flight_max && !self.ready.is_empty()
    }

    /// Takes the next delivery that may go now. Its slot is in use until [`Lane::finished`].
    pub fn next(&mut self, in_flight_max: usize) -> Option<T> {
        if self.in_flight >= in_flight_max {
            return None;
        }
        let (_, item) = self.ready.pop_front()?;
        self.waiting -= 1;
        self.in_flight += 1;
        Some(item)
    }

    /// Takes a slot for a redelivery, which doesn't wait in the lane. The slot is in use until [`Lane::finished`] is
    /// called without a key.
    pub fn start_redelivery(&mut self) {
        self.in_flight += 1;
    }

    /// Ends a request, whatever its outcome was. The next first attempt with the same key may go.
    pub fn finished(&mut self, order_key: Option<u64>) {
        debug_assert!(self.in_flight > 0, "only a request that was started can finish");
        self.in_flight -= 1;
        let Some(key) = order_key else { return };
        match self.followers.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => self.ready.push_back(next),
            None => drop(self.followers.remove(&key)),
        }
    }

    /// Takes out the newest deliveries until at most `keep` wait. If a first attempt leaves, all later
    /// ones of its task leave with it, oldest first. Otherwise they would be sent before it.
    pub fn evict(&mut self, keep: usize) -> Vec<T> {
        let mut evicted = Vec::new();
        while self.waiting > keep {
            if let Some((_, item)) = self.ready.pop_back() {
                let followers = item.order_key().and_then(|key| self.followers.remove(&key)).unwrap_or_default();
                self.waiting -= 1 + followers.len();
                evicted.push(item);
                evicted.extend(followers.into_iter().map(|(_, item)| item));
                continue;
            }
            // All others wait for a request of their task that is in flight. The entries of these tasks stay, because
            // `finished` removes them.
            for followers in self.followers.values_mut() {
                self.waiting -= followers.len();
                evicted.extend(followers.drain(..).map(|(_, item)| item));
            }
        }
        evicted
    }

    /// Takes out the deliveries that were queued at `latest` or earlier, including those that wait for a request of
    /// their task. The later first attempts of their tasks leave with them.
    pub fn evict_older(&mut self, latest: Instant) -> Vec<T> {
        let mut evicted = Vec::new();
        for _ in 0..self.ready.len() {
            let (since, item) = self.ready.pop_front().expect("the loop runs once for each delivery that is ready");
            if since > latest {
                self.ready.push_back((since, item));
                continue;
            }
            let followers = item.order_key().and_then(|key| self.followers.remove(&key)).unwrap_or_default();
            evicted.push(item);
            evicted.extend(followers.into_iter().map(|(_, item)| item));
        }
        for followers in self.followers.values_mut() {
            if followers.front().is_some_and(|(since, _)| *since <= latest) {
                evicted.extend(followers.drain(..).map(|(_, item)| item));
            }
        }
        self.waiting -= evicted.len();
        evicted
    }

    /// The number of requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The number of deliveries that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nothing is in flight and nothing waits. Such a lane can be forgotten.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.waiting == 0
    }
}

/// The same number for all transitions of one task.
pub(super) fn task_key(task_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    task_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[derive(Debug, PartialEq, Clone, Copy)]
    struct Item(Option<u64>, usize);
    impl Queued for Item {
        fn order_key(&self) -> Option<u64> {
            self.0
        }
    }

    #[test]
    fn overdue_deliveries_leave_with_the_later_ones_of_their_tasks() {
        let mut lane = Lane::default();
        let began = Instant::now();
        let later = began + Duration::from_secs(9);
        lane.admit(Item(Some(1), 0), began);
        lane.next(1).unwrap();
        for (item, at) in [
            (Item(Some(1), 1), began),
            (Item(Some(1), 2), later),
            (Item(Some(2), 3), began),
            (Item(Some(2), 4), later),
            (Item(None, 5), later),
            (Item(None, 6), began),
        ] {
            lane.admit(item, at);
        }
        let evicted: Vec<usize> = lane.evict_older(began).iter().map(|item| item.1).collect();
        assert_eq!(evicted, [3, 4, 6, 1, 2], "the deliveries of a task leave in their order");
        assert_eq!((lane.waiting(), lane.next(9)), (1, Some(Item(None, 5))));
        lane.finished(Some(1));
        lane.finished(None);
        assert!(lane.is_idle() && lane.followers.is_empty());
    }

    #[test]
    fn first_attempts_of_a_task_go_in_turn_and_others_pass_them() {
        let mut lane = Lane::default();
        for item in [Item(Some(1), 0), Item(Some(1), 1), Item(Some(2), 2), Item(None, 3)] {
            lane.admit(item, Instant::now());
        }
        assert_eq!(
            [lane.next(9), lane.next(9), lane.next(9), lane.next(9)].map(|i| i.map(|i| i.1)),
            [Some(0), Some(2), Some(3), None]
        );
        lane.finished(Some(1));
        assert_eq!(lane.next(9), Some(Item(Some(1), 1)));
    }

    #[test]
    fn the_newest_are_evicted_together_with_the_later_ones_of_their_task() {
        let mut lane = Lane::default();
        for item in [Item(None, 0), Item(Some(1), 1), Item(None, 2), Item(Some(1), 3), Item(Some(1), 4)] {
            lane.admit(item, Instant::now());
        }
        assert_eq!(lane.evict(5), []);
        assert_eq!(lane.evict(4), [Item(None, 2)]);
        assert_eq!(lane.evict(3), [Item(Some(1), 1), Item(Some(1), 3), Item(Some(1), 4)]);
        assert_eq!((lane.waiting(), lane.next(9)), (1, Some(Item(None, 0))));
        lane.finished(None);
        assert!(lane.is_idle() && lane.followers.is_empty());
    }

    #[test]
    fn deliveries_that_wait_for_a_request_of_their_task_are_evicted_too() {
        let mut lane = Lane::default();
        for at in 0..3 {
            lane.admit(Item(Some(1), at), Instant::now());
        }
        assert_eq!(lane.next(9), Some(Item(Some(1), 0)));
        assert_eq!(lane.evict(0), [Item(Some(1), 1), Item(Some(1), 2)]);
        lane.finished(Some(1));
        assert!(lane.is_idle() && lane.followers.is_empty());
    }

    proptest! {
        #[test]
        fn deliveries_of_a_task_keep_their_order_within_the_limit(
            keys in prop::collection::vec(prop::option::of(0_u64..4), 1..100),
            limit in 1_usize..5,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 100),
        ) {
            let mut lane = Lane::default();
            for (at, key) in keys.iter().enumerate() {
                lane.admit(Item(*key, at), Instant::now());
            }
            let (mut running, mut done): (Vec<Item>, Vec<Item>) = (vec![], vec![]);
            let mut picks = picks.into_iter();
            loop {
                while let Some(item) = lane.next(limit) {
                    prop_assert!(item.0.is_none() || running.iter().all(|other| other.0 != item.0));
                    running.push(item);
                }
                prop_assert!(running.len() <= limit);
                let Some(pick) = picks.next().filter(|_| !running.is_empty()) else { break };
                let item = running.swap_remove(pick.index(running.len()));
                lane.finished(item.0);
                done.push(item);
            }
            prop_assert_eq!(done.len(), keys.len());
            prop_assert!(lane.is_idle() && lane.followers.is_empty());
            for key in 0..4 {
                let order: Vec<usize> = done.iter().filter(|i| i.0 == Some(key)).map(|i| i.1).collect();
                prop_assert!(order.is_sorted());
            }
        }
    }
}
