//! Whose turn it is at one endpoint: so many requests at once, and first attempts of a task one after another.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

/// What a lane asks of the things it queues.
pub trait Queued {
    /// First attempts with the same key keep their order; None for those that needn't.
    fn order_key(&self) -> Option<u64>;

    /// A person asked for it: it goes before all others, and is the probe of an endpoint that is left alone.
    fn is_by_hand(&self) -> bool {
        false
    }
}

/// One endpoint's requests in flight and those that wait for their turn.
#[derive(Debug)]
pub struct Lane<T> {
    in_flight: usize,
    /// Ready to go once there is a place, with the time since when they wait.
    ready: VecDeque<(Instant, T)>,
    /// For each task with a first attempt ready or in flight: the ones behind it, with the time since when they wait.
    behind: HashMap<u64, VecDeque<(Instant, T)>>,
    waiting: usize,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { in_flight: 0, ready: VecDeque::new(), behind: HashMap::new(), waiting: 0 }
    }
}

impl<T: Queued> Lane<T> {
    /// Queues `item`.
    pub fn admit(&mut self, item: T, now: Instant) {
        self.waiting += 1;
        if let Some(key) = item.order_key() {
            if let Some(behind) = self.behind.get_mut(&key) {
                behind.push_back((now, item));
                return;
            }
            self.behind.insert(key, VecDeque::new());
        }
        self.ready.push_back((now, item));
    }

    /// Whether there is one whose turn it is.
    #[must_use]
    pub fn has_next(&self, in_flight_max: usize) -> bool {
        self.in_flight < in_flight_max && !self.ready.is_empty()
    }

    /// Takes the next one whose turn it is; its place is held until [`Lane::finished`].
    pub fn next(&mut self, in_flight_max: usize) -> Option<T> {
        if self.in_flight >= in_flight_max {
            return None;
        }
        let (_, item) = self.ready.pop_front()?;
        self.waiting -= 1;
        self.in_flight += 1;
        Some(item)
    }

    /// One that never waited here goes; its place is held until [`Lane::finished`] without a key.
    pub fn start_by_hand(&mut self) {
        self.in_flight += 1;
    }

    /// The one with that key is done, however it went: the next of its task may go.
    pub fn finished(&mut self, order_key: Option<u64>) {
        debug_assert!(self.in_flight > 0, "only what was started finishes");
        self.in_flight -= 1;
        let Some(key) = order_key else { return };
        match self.behind.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => self.ready.push_back(next),
            None => drop(self.behind.remove(&key)),
        }
    }

    /// Takes the newest until no more than `keep` wait. A task's later attempts leave with its earlier one, oldest
    /// first, so that none overtakes it here.
    pub fn evict(&mut self, keep: usize) -> Vec<T> {
        let mut evicted = Vec::new();
        while self.waiting > keep {
            if let Some((_, item)) = self.ready.pop_back() {
                let behind = item.order_key().and_then(|key| self.behind.remove(&key)).unwrap_or_default();
                self.waiting -= 1 + behind.len();
                evicted.push(item);
                evicted.extend(behind.into_iter().map(|(_, item)| item));
                continue;
            }
            // All wait behind requests in flight; those tasks stay known, for what is in flight of them.
            for behind in self.behind.values_mut() {
                self.waiting -= behind.len();
                evicted.extend(behind.drain(..).map(|(_, item)| item));
            }
        }
        evicted
    }

    /// Takes what has waited since `before` or longer, also behind a request of its task, with all that is behind it.
    pub fn evict_older(&mut self, before: Instant) -> Vec<T> {
        let mut evicted = Vec::new();
        for _ in 0..self.ready.len() {
            let (since, item) = self.ready.pop_front().expect("as many as were counted");
            if since > before {
                self.ready.push_back((since, item));
                continue;
            }
            let behind = item.order_key().and_then(|key| self.behind.remove(&key)).unwrap_or_default();
            evicted.push(item);
            evicted.extend(behind.into_iter().map(|(_, item)| item));
        }
        for behind in self.behind.values_mut() {
            if behind.front().is_some_and(|(since, _)| *since <= before) {
                evicted.extend(behind.drain(..).map(|(_, item)| item));
            }
        }
        self.waiting -= evicted.len();
        evicted
    }

    /// How many are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Nothing in flight, nothing waiting: the lane can be forgotten.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.waiting == 0
    }
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
    fn what_has_waited_too_long_leaves_with_what_is_behind_it() {
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
        let left: Vec<usize> = lane.evict_older(began).iter().map(|item| item.1).collect();
        assert_eq!(left, [3, 4, 6, 1, 2], "a task's later ones don't overtake its earlier one");
        assert_eq!((lane.waiting(), lane.next(9)), (1, Some(Item(None, 5))));
        lane.finished(Some(1));
        lane.finished(None);
        assert!(lane.is_idle() && lane.behind.is_empty());
    }

    #[test]
    fn first_attempts_of_a_task_go_one_after_another_and_others_pass_them() {
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
    fn the_newest_are_evicted_and_a_tasks_later_ones_leave_with_its_earlier_one() {
        let mut lane = Lane::default();
        for item in [Item(None, 0), Item(Some(1), 1), Item(None, 2), Item(Some(1), 3), Item(Some(1), 4)] {
            lane.admit(item, Instant::now());
        }
        assert_eq!(lane.evict(5), []);
        assert_eq!(lane.evict(4), [Item(None, 2)]);
        assert_eq!(lane.evict(3), [Item(Some(1), 1), Item(Some(1), 3), Item(Some(1), 4)]);
        assert_eq!((lane.waiting(), lane.next(9)), (1, Some(Item(None, 0))));
        lane.finished(None);
        assert!(lane.is_idle() && lane.behind.is_empty());
    }

    #[test]
    fn what_waits_behind_a_request_in_flight_is_evicted_too() {
        let mut lane = Lane::default();
        for at in 0..3 {
            lane.admit(Item(Some(1), at), Instant::now());
        }
        assert_eq!(lane.next(9), Some(Item(Some(1), 0)));
        assert_eq!(lane.evict(0), [Item(Some(1), 1), Item(Some(1), 2)]);
        lane.finished(Some(1));
        assert!(lane.is_idle() && lane.behind.is_empty());
    }

    proptest! {
        #[test]
        fn all_go_in_the_order_of_their_task_and_never_more_at_once_than_allowed(
            keys in prop::collection::vec(prop::option::of(0_u64..4), 1..100), limit in 1_usize..5, picks in prop::collection::vec(any::<prop::sample::Index>(), 100),
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
            prop_assert!(lane.is_idle() && lane.behind.is_empty());
            for key in 0..4 {
                let order: Vec<usize> = done.iter().filter(|i| i.0 == Some(key)).map(|i| i.1).collect();
                prop_assert!(order.is_sorted());
            }
        }
    }
}
