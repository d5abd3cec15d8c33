//! What waits of one partition of a retry tier, by when it is due.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::delivery::millis;

/// A bounded read-ahead of a tier's partition.
///
/// Records behind the window can't be due before `last read + shortest wait of the tier`. Until then a full
/// window wedges nothing; from then on its far-off waits are written again elsewhere, to free their places.
#[derive(Debug)]
pub struct Window<T> {
    waiting: BTreeMap<(i64, i64), T>,
    max: usize,
    shortest_wait_ms: i64,
    /// Timestamp of the last record that was read, Unix milliseconds.
    read_up_to_ms: i64,
}

impl<T> Window<T> {
    /// For a tier whose records wait at least `shortest_wait`.
    #[must_use]
    pub fn new(max: usize, shortest_wait: Duration) -> Self {
        Self { waiting: BTreeMap::new(), max, shortest_wait_ms: millis(shortest_wait), read_up_to_ms: 0 }
    }

    /// A record was read at `offset`, written at `written_at_ms`.
    pub fn insert(&mut self, due_at_ms: i64, offset: i64, written_at_ms: i64, item: T) {
        self.read_up_to_ms = self.read_up_to_ms.max(written_at_ms);
        self.waiting.insert((due_at_ms, offset), item);
    }

    /// Whether nothing more should be read for now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.max
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next one is due, Unix milliseconds.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<i64> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the next one if it is due.
    pub fn pop_due(&mut self, now_ms: i64) -> Option<T> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now_ms).then(|| first.remove())
    }

    /// Takes the one farthest off, with when it is due, if the window is full and what lies behind it may be due before.
    pub fn pop_far(&mut self, now_ms: i64) -> Option<(i64, T)> {
        if !self.is_full() || now_ms < self.read_up_to_ms.saturating_add(self.shortest_wait_ms) {
            return None;
        }
        let last = self.waiting.last_entry()?;
        // One that is due in a moment leaves by itself.
        if last.key().0 <= now_ms.saturating_add(FAR_MS) {
            return None;
        }
        let ((due, _), item) = last.remove_entry();
        Some((due, item))
    }
}

/// A wait shorter than this isn't worth writing again.
const FAR_MS: i64 = 1_000;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::config::Config;
    use crate::delivery::tests::sample;
    use crate::delivery::{Delivery, Fate, FatePolicy};

    #[test]
    fn none_is_taken_early_and_all_in_order_of_their_due_times() {
        let mut window = Window::new(10, Duration::ZERO);
        for (due, offset) in [(30, 1), (10, 2), (20, 3), (10, 4)] {
            window.insert(due, offset, 0, offset);
        }
        assert_eq!(window.next_due_ms(), Some(10));
        assert_eq!(window.pop_due(9), None);
        assert_eq!(
            [window.pop_due(20), window.pop_due(20), window.pop_due(20), window.pop_due(20)],
            [Some(2), Some(4), Some(3), None]
        );
    }

    #[test]
    fn a_full_window_gives_up_its_farthest_once_something_behind_it_may_be_due() {
        let mut window = Window::new(2, Duration::from_millis(500));
        window.insert(900_000, 1, 1_000, "near");
        assert_eq!(window.pop_far(10_000), None, "not full");
        window.insert(1_000_000, 2, 1_000, "far");
        assert_eq!(window.pop_far(1_499), None, "nothing behind can be due yet");
        assert_eq!(window.pop_far(1_500), Some((1_000_000, "far")));
        assert!(!window.is_full());
    }

    #[test]
    fn what_is_due_in_a_moment_is_left_to_leave_by_itself() {
        let mut window = Window::new(1, Duration::ZERO);
        window.insert(2_000, 1, 0, ());
        assert_eq!(window.pop_far(1_500), None);
    }

    /// One partition of each tier, and who reads them: what becomes of the backlog of one endpoint that stays away.
    struct Tiers {
        policy: FatePolicy,
        logs: Vec<VecDeque<(i64, i64, Delivery)>>,
        windows: Vec<Window<Delivery>>,
        offset: i64,
        written: usize,
    }

    impl Tiers {
        fn write(&mut self, tier: u32, now_ms: i64, due_at_ms: i64, delivery: Delivery) {
            self.logs[tier as usize - 1].push_back((now_ms, due_at_ms, delivery));
            self.written += 1;
        }

        fn put_off(&mut self, mut delivery: Delivery, now_ms: i64) {
            // The breaker alone would ask again every 30 seconds.
            let left_alone = Some(Duration::from_secs(30));
            let fate = self.policy.after_deferral(&delivery, left_alone, now_ms, rand::random());
            let Fate::Retry { tier, due_at_ms } = fate else { panic!("{fate:?}") };
            delivery.deferrals += 1;
            // It takes some time to be written.
            self.write(tier, now_ms + rand::random_range(0..20), due_at_ms, delivery);
        }

        /// Everything that is done of one tier by `now_ms`: each far-off wait that is given up makes room for one more.
        fn step(&mut self, tier: usize, now_ms: i64) {
            loop {
                if let Some(due) = self.windows[tier].pop_due(now_ms) {
                    self.put_off(due, now_ms);
                } else if let Some((due_at_ms, far)) = self.windows[tier].pop_far(now_ms) {
                    let left = Duration::from_millis((due_at_ms - now_ms) as u64);
                    self.write(self.policy.schedule.tier_for(left), now_ms, due_at_ms, far);
                } else if !self.windows[tier].is_full()
                    && let Some((written_at_ms, due_at_ms, delivery)) =
                        self.logs[tier].pop_front_if(|(written_at_ms, ..)| *written_at_ms <= now_ms)
                {
                    self.offset += 1;
                    self.windows[tier].insert(due_at_ms, self.offset, written_at_ms, delivery);
                } else {
                    return;
                }
            }
        }
    }

    #[test]
    fn a_backlog_much_larger_than_the_window_is_written_at_most_8_times_in_the_first_hour() {
        let settings = Config::built_in().delivery;
        let policy = FatePolicy::new(&settings);
        let tiers = policy.schedule.tiers();
        let window = |tier| Window::new(settings.retry.window_max, policy.schedule.shortest(tier).unwrap());
        let windows = (1..=tiers).map(window).collect();
        let logs = (0..tiers).map(|_| VecDeque::new()).collect();
        let mut all = Tiers { windows, logs, policy, offset: 0, written: 0 };
        // Twenty windows full within ten seconds.
        let waiting = settings.retry.window_max * 20;
        let delivery = Delivery { first_seen_at_ms: 0, ..sample() };
        let mut arrived = 0;
        for now_ms in (0..3_600_000).step_by(20) {
            while arrived < waiting && (arrived * 10_000 / waiting) as i64 <= now_ms {
                all.put_off(delivery.clone(), now_ms);
                arrived += 1;
            }
            (0..tiers as usize).for_each(|tier| all.step(tier, now_ms));
        }
        let each = all.written as f64 / waiting as f64;
        assert!((3.0..=8.0).contains(&each), "{each}");
    }
}
