//! The window of one partition of a retry tier: the deliveries that were read ahead, ordered by due time.

use std::collections::BTreeMap;

use crate::clock::millis;
use crate::schedule::Waits;

/// A bounded read-ahead of a tier's partition.
///
/// Every unread record was written after the last one that was read. It can't be due before that one's timestamp plus
/// the shortest wait of the tier. Until that moment, a full window holds nothing up. Afterwards the deliveries with the
/// longest waits are handed off again, so that the window can read on.
#[derive(Debug)]
pub struct Window<T> {
    /// By due time, offset and number. The number tells records apart that have the same offset, because the end of the log
    /// was lost.
    waiting: BTreeMap<(i64, i64, u64), Item<T>>,
    /// The due time of each waiting delivery, by offset and number.
    due_by_offset: BTreeMap<(i64, u64), i64>,
    /// The number of the last record that was added.
    last_number: u64,
    max: usize,
    bytes: usize,
    shortest_wait_ms: i64,
    longest_wait_ms: i64,
    /// The latest timestamp of a record that was read, in Unix milliseconds.
    read_up_to_ms: i64,
}

#[derive(Debug)]
struct Item<T> {
    item: T,
    bytes: usize,
}

impl<T> Window<T> {
    /// Creates a window of at most `max` records, for a tier with the given `waits`.
    #[must_use]
    pub fn new(max: usize, waits: Waits) -> Self {
        Self {
            waiting: BTreeMap::new(),
            due_by_offset: BTreeMap::new(),
            last_number: 0,
            max,
            bytes: 0,
            shortest_wait_ms: millis(waits.shortest),
            longest_wait_ms: millis(waits.longest),
            read_up_to_ms: 0,
        }
    }

    /// Adds a record that was read at `now_ms`. Its due time is capped, so that it waits no longer than the longest
    /// wait of the tier.
    pub fn insert(&mut self, due_at_ms: i64, offset: i64, written_at_ms: i64, now_ms: i64, bytes: usize, item: T) {
        let due_at_ms = due_at_ms.min(now_ms.saturating_add(self.longest_wait_ms));
        // A timestamp in the future counts as now. Otherwise it would keep the longest waits in the window.
        self.read_up_to_ms = self.read_up_to_ms.max(written_at_ms.min(now_ms));
        self.bytes += bytes;
        self.last_number += 1;
        self.due_by_offset.insert((offset, self.last_number), due_at_ms);
        self.waiting.insert((due_at_ms, offset, self.last_number), Item { item, bytes });
    }

    /// Whether nothing more should be read for now, because the window holds `max` records, or at least `bytes_part`
    /// bytes.
    #[must_use]
    pub fn is_full(&self, bytes_part: usize) -> bool {
        self.waiting.len() >= self.max || (self.bytes > 0 && self.bytes >= bytes_part)
    }

    /// The bytes of all waiting deliveries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The earliest due time, in Unix milliseconds.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<i64> {
        self.waiting.first_key_value().map(|((due, _, _), _)| *due)
    }

    /// Takes the next delivery if it is due.
    pub fn pop_due(&mut self, now_ms: i64) -> Option<T> {
        let key = *self.waiting.first_key_value()?.0;
        (key.0 <= now_ms).then(|| self.take(key))?
    }

    /// Takes the delivery with the latest due time, if the window is full and an unread record may be due. Returns the
    /// due time as well.
    pub fn pop_farthest(&mut self, now_ms: i64, bytes_part: usize) -> Option<(i64, T)> {
        if !self.is_full(bytes_part) || now_ms < self.read_up_to_ms.saturating_add(self.shortest_wait_ms) {
            return None;
        }
        let key = *self.waiting.last_key_value()?.0;
        self.take_unless_due_soon(key, now_ms)
    }

    /// Takes the delivery with the lowest offset, if that offset is below `end` and the delivery isn't due soon. Such a
    /// delivery blocks the watermark. Returns the due time as well.
    pub fn pop_blocking(&mut self, now_ms: i64, end: i64) -> Option<(i64, T)> {
        let ((offset, number), due) = self.due_by_offset.range(..(end, 0)).next()?;
        self.take_unless_due_soon((*due, *offset, *number), now_ms)
    }

    fn take_unless_due_soon(&mut self, key: (i64, i64, u64), now_ms: i64) -> Option<(i64, T)> {
        // A delivery that is due soon leaves the window by itself.
        if key.0 <= now_ms.saturating_add(DUE_SOON_MS) {
            return None;
        }
        Some((key.0, self.take(key)?))
    }

    fn take(&mut self, key: (i64, i64, u64)) -> Option<T> {
        let Item { item, bytes } = self.waiting.remove(&key)?;
        self.due_by_offset.remove(&(key.1, key.2));
        self.bytes -= bytes;
        Some(item)
    }
}

/// A delivery that is due within this time is not handed off again, because it leaves the window soon anyway.
const DUE_SOON_MS: i64 = 1_000;

/// The bytes that one window may hold, if all windows together may hold `max`. This is an equal part, or half of what
/// the others leave if that is more. A single window gets a large part, many get equal parts, and something is left for
/// a new one. A window may always hold one record, however little is left.
#[must_use]
pub fn bytes_part(max: usize, windows: usize, used_by_all: usize, own: usize) -> usize {
    let left = max.saturating_sub(used_by_all - own);
    (max / (windows + 1)).max(left / 2).min(left)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::delivery::tests::sample;
    use crate::delivery::{Delivery, Fate, FatePolicy};

    #[test]
    fn records_with_the_same_offset_are_told_apart() {
        let mut window = window(10, 0);
        for (due, item) in [(50_000, 1), (50_000, 2), (90_000, 3)] {
            window.insert(due, 7, 0, 0, 1, item);
        }
        assert_eq!(window.pop_blocking(0, 8), Some((50_000, 1)));
        assert_eq!((window.pop_due(50_000), window.pop_blocking(0, 8)), (Some(2), Some((90_000, 3))));
        assert!(window.is_empty() && window.bytes() == 0);
    }

    #[test]
    fn deliveries_are_taken_in_due_order_and_never_early() {
        let mut window = window(10, 0);
        for (due, offset) in [(30, 1), (10, 2), (20, 3), (10, 4)] {
            window.insert(due, offset, 0, 0, 1, offset);
        }
        assert_eq!(window.next_due_ms(), Some(10));
        assert_eq!(window.pop_due(9), None);
        assert_eq!(
            [window.pop_due(20), window.pop_due(20), window.pop_due(20), window.pop_due(20)],
            [Some(2), Some(4), Some(3), None]
        );
    }

    #[test]
    fn a_full_window_gives_up_its_longest_wait_once_the_next_may_be_due() {
        let mut window = window(2, 500);
        window.insert(900_000, 1, 1_000, 1_000, 1, "near");
        assert_eq!(window.pop_farthest(10_000, ALL), None, "the window isn't full");
        window.insert(1_000_000, 2, 1_000, 1_000, 1, "far");
        assert_eq!(window.pop_farthest(1_499, ALL), None, "no record behind the window can be due yet");
        assert_eq!(window.pop_farthest(1_500, ALL), Some((1_000_000, "far")));
        assert!(!window.is_full(ALL));
    }

    #[test]
    fn a_delivery_that_is_due_soon_stays_in_the_window() {
        let mut window = window(1, 0);
        window.insert(2_000, 1, 0, 0, 1, ());
        assert_eq!(window.pop_farthest(1_500, ALL), None);
    }

    #[test]
    fn a_window_is_full_at_its_part_of_the_bytes_unless_it_is_empty() {
        let mut window = window(100, 0);
        assert!(!window.is_full(0));
        window.insert(90_000, 1, 0, 0, 200, "a");
        assert!(window.is_full(200) && !window.is_full(201));
        assert_eq!(window.pop_farthest(10_000, 200), Some((90_000, "a")));
        assert_eq!(window.bytes(), 0);
    }

    #[test]
    fn a_long_wait_that_blocks_the_watermark_is_taken_out() {
        let mut window = window(100, 0);
        window.insert(50_000_000, 1, 0, 0, 1, "long");
        window.insert(10, 2, 0, 0, 1, "short");
        window.insert(60_000_000, 9, 0, 0, 1, "above");
        assert_eq!(window.pop_blocking(0, 1), None, "no offset is below");
        assert_eq!(window.pop_blocking(0, 9), Some((50_000_000, "long")));
        assert_eq!(window.pop_blocking(0, 9), None, "a delivery that is due soon stays");
    }

    #[test]
    fn a_due_time_is_capped_by_the_longest_wait_of_the_tier() {
        let waits = Waits { shortest: Duration::ZERO, longest: Duration::from_secs(1) };
        let mut window = Window::new(10, waits);
        window.insert(i64::MAX, 1, i64::MAX, 5_000, 1, "later");
        window.insert(i64::MIN, 2, i64::MIN, 5_000, 1, "sooner");
        assert_eq!(window.pop_due(5_000), Some("sooner"));
        assert_eq!(window.next_due_ms(), Some(6_000));
    }

    #[test]
    fn windows_leave_each_other_some_bytes() {
        assert_eq!(bytes_part(64, 1, 0, 0), 32, "a single window");
        assert_eq!(bytes_part(64, 4, 60, 0), 4, "no more than is left");
        assert_eq!(bytes_part(64, 7, 56, 8), 8, "equal parts");
        assert_eq!(bytes_part(64, 7, 100, 0), 0);
    }

    const ALL: usize = usize::MAX;

    fn window<T>(max: usize, shortest_ms: u64) -> Window<T> {
        let longest = Duration::from_secs(86_400 * 30);
        Window::new(max, Waits { shortest: Duration::from_millis(shortest_ms), longest })
    }

    /// One partition of each tier, with its window: a model of the backlog of an endpoint that stays away.
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

        fn defer(&mut self, mut delivery: Delivery, now_ms: i64) {
            // With the circuit breaker alone, the endpoint would be tried every 30 seconds.
            let backs_off_for = Some(Duration::from_secs(30));
            let fate = self.policy.after_deferral(&delivery, backs_off_for, now_ms, rand::random());
            let Fate::Retry { tier, due_at_ms } = fate else { panic!("{fate:?}") };
            delivery.deferrals += 1;
            // A hand-off takes some time.
            self.write(tier, now_ms + rand::random_range(0..20), due_at_ms, delivery);
        }

        /// Does everything that is possible in one tier at `now_ms`. Each long wait that is handed off makes room for
        /// another record.
        fn step(&mut self, tier: usize, now_ms: i64) {
            loop {
                if let Some(due) = self.windows[tier].pop_due(now_ms) {
                    self.defer(due, now_ms);
                } else if let Some((due_at_ms, delivery)) = self.windows[tier].pop_farthest(now_ms, ALL) {
                    let left = Duration::from_millis((due_at_ms - now_ms) as u64);
                    self.write(self.policy.schedule.tier_for(left), now_ms, due_at_ms, delivery);
                } else if !self.windows[tier].is_full(ALL)
                    && let Some((written_at_ms, due_at_ms, delivery)) =
                        self.logs[tier].pop_front_if(|(written_at_ms, ..)| *written_at_ms <= now_ms)
                {
                    self.offset += 1;
                    self.windows[tier].insert(due_at_ms, self.offset, written_at_ms, now_ms, 1, delivery);
                } else {
                    return;
                }
            }
        }
    }

    #[test]
    fn a_backlog_of_20_windows_is_written_at_most_8_times_in_one_hour() {
        let settings = Config::built_in().delivery;
        let policy = FatePolicy::new(&settings);
        let tiers = policy.schedule.tiers();
        let longest = Duration::from_secs(86_400);
        let waits = |tier| Waits { shortest: policy.schedule.shortest(tier).unwrap(), longest };
        let window = |tier| Window::new(settings.retry.window_max, waits(tier));
        let windows = (1..=tiers).map(window).collect();
        let logs = (0..tiers).map(|_| VecDeque::new()).collect();
        let mut all = Tiers { windows, logs, policy, offset: 0, written: 0 };
        // A backlog of twenty full windows arrives within ten seconds.
        let waiting = settings.retry.window_max * 20;
        let delivery = Delivery { first_seen_at_ms: 0, ..sample() };
        let mut arrived = 0;
        for now_ms in (0..3_600_000).step_by(20) {
            while arrived < waiting && (arrived * 10_000 / waiting) as i64 <= now_ms {
                all.defer(delivery.clone(), now_ms);
                arrived += 1;
            }
            (0..tiers as usize).for_each(|tier| all.step(tier, now_ms));
        }
        let each = all.written as f64 / waiting as f64;
        assert!((3.0..=8.0).contains(&each), "{each}");
    }
}
