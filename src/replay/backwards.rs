//! Which stretches of a topic to read, from its end backwards, until the newest so many of what is wanted are found:
//! pure bookkeeping, the reading is [`super::browse`]'s.
//!
//! Partitions are each in the order of their offsets, and all of them together by time. Clocks of writers differ, so
//! within a partition a record counts as no younger than the one at the next higher offset. So what is left of each
//! partition for the next page is everything below one offset.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// The first round reads of all partitions together so many times what is searched for, so that few of them have to be
/// read any further; each later round reads twice as much as the one before, of the partitions that it is about.
const FIRST_ROUND: u64 = 2;
/// Offsets of a stretch at most.
const STRETCH_MAX: u64 = 16_384;

/// What a stretch had.
#[derive(Debug)]
pub struct Stretch<T> {
    /// What is wanted of it, by offset: offset, time, what.
    wanted: VecDeque<(i64, i64, T)>,
    limit: usize,
    /// The highest offset of what is wanted and has no place here.
    left: Option<i64>,
    oldest_ms: i64,
}

impl<T> Stretch<T> {
    /// Nothing yet; of what will be wanted, the last `limit` stay.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { wanted: VecDeque::new(), limit, left: None, oldest_ms: i64::MAX }
    }

    /// A record of that time (Unix milliseconds) was looked at.
    pub fn looked_at(&mut self, at_ms: i64) {
        self.oldest_ms = self.oldest_ms.min(at_ms);
    }

    /// The record at `offset` is wanted. Offsets rise.
    pub fn found(&mut self, offset: i64, at_ms: i64, what: T) {
        self.wanted.push_back((offset, at_ms, what));
        if self.wanted.len() > self.limit {
            self.left = self.wanted.pop_front().map(|(offset, ..)| offset);
        }
    }
}

/// How far one partition is.
#[derive(Debug)]
struct Side {
    /// Its oldest offset.
    low: i64,
    /// Everything from this offset on was looked at; the next stretch is below.
    below: i64,
    /// What is below counts as no younger than this.
    age_ms: i64,
    /// The highest offset of what was found and isn't among the newest.
    left: Option<i64>,
}

impl Side {
    /// The next page goes on below this offset: everything from it on is on this page, or isn't wanted.
    fn end(&self) -> i64 {
        self.left.map_or(self.below, |left| left + 1)
    }

    /// The highest place by time that what wasn't looked at yet may have; None where all was.
    fn frontier(&self, partition: i32) -> Option<(i64, i32, i64)> {
        (self.below > self.low).then_some((self.age_ms, partition, self.below - 1))
    }
}

/// The search.
#[derive(Debug)]
pub struct Backwards<T> {
    sides: BTreeMap<i32, Side>,
    limit: usize,
    /// Offsets of the next stretches; None before the first round.
    stretch: Option<u64>,
    /// By time, partition and offset.
    newest: BTreeMap<(i64, i32, i64), T>,
}

impl<T> Backwards<T> {
    /// For the newest `limit`, at least 1, of what stands in `spans`: by partition the oldest offset, and the first one
    /// beyond the end.
    #[must_use]
    pub fn new(spans: impl IntoIterator<Item = (i32, (i64, i64))>, limit: usize) -> Self {
        let side = |(low, below)| Side { low, below, age_ms: i64::MAX, left: None };
        Self {
            sides: spans.into_iter().map(|(partition, span)| (partition, side(span))).collect(),
            limit,
            stretch: None,
            newest: BTreeMap::new(),
        }
    }

    /// The stretches that may hold what is newest of the rest, `look_at_max` offsets in all, or where that is less than
    /// one for each partition, one for each; nothing once the newest are found. At first that is of all partitions, later
    /// of the one that is least far back, or of several that are as far.
    pub fn stretches(&mut self, look_at_max: u64) -> HashMap<i32, (i64, i64)> {
        let oldest = if self.newest.len() < self.limit { None } else { self.newest.keys().next() };
        let frontiers = self.sides.iter().filter_map(|(partition, side)| side.frontier(*partition));
        let open: Vec<_> = frontiers.filter(|frontier| oldest.is_none_or(|oldest| frontier > oldest)).collect();
        let Some(youngest_ms) = open.iter().map(|(age_ms, ..)| *age_ms).max().filter(|_| look_at_max > 0) else {
            return HashMap::new();
        };
        let next: Vec<_> = open.into_iter().filter(|(age_ms, ..)| *age_ms == youngest_ms).collect();
        let count = next.len() as u64;
        let each = self.stretch.unwrap_or_else(|| (FIRST_ROUND * self.limit as u64).div_ceil(count));
        let each = each.min(look_at_max / count).clamp(1, STRETCH_MAX);
        self.stretch = Some(each * 2);
        let stretch = |(_, partition, last): (i64, i32, i64)| {
            let low = self.sides.get(&partition).map_or(0, |side| side.low);
            (partition, (low.max((last + 1).saturating_sub_unsigned(each)), last + 1))
        };
        next.into_iter().map(stretch).collect()
    }

    /// A stretch of `partition` that begins at `from` was read.
    pub fn read(&mut self, partition: i32, from: i64, stretch: Stretch<T>) {
        let Some(side) = self.sides.get_mut(&partition) else { return };
        side.left = side.left.max(stretch.left);
        for (offset, at_ms, what) in stretch.wanted.into_iter().rev() {
            side.age_ms = side.age_ms.min(at_ms);
            self.newest.insert((side.age_ms, partition, offset), what);
        }
        side.age_ms = side.age_ms.min(stretch.oldest_ms);
        side.below = from;
        while self.newest.len() > self.limit {
            self.leave_oldest();
        }
    }

    /// What was found and is oldest is for a later page.
    fn leave_oldest(&mut self) {
        let Some(((_, partition, offset), _)) = self.newest.pop_first() else { return };
        if let Some(side) = self.sides.get_mut(&partition) {
            side.left = side.left.max(Some(offset));
        }
    }

    /// What was found, newest first, and for each partition the offset below which the next page goes on; None where
    /// nothing is left. Where the search ended early, what may be older than something that wasn't looked at yet isn't
    /// told before that: the page is short.
    #[must_use]
    pub fn page(mut self) -> (Vec<T>, Option<HashMap<i32, i64>>) {
        let frontier = self.sides.iter().filter_map(|(partition, side)| side.frontier(*partition)).max();
        while self.newest.first_key_value().is_some_and(|(key, _)| frontier.is_some_and(|frontier| *key < frontier)) {
            self.leave_oldest();
        }
        let is_over = self.sides.values().all(|side| side.end() <= side.low);
        let ends = self.sides.iter().map(|(partition, side)| (*partition, side.end())).collect();
        (self.newest.into_values().rev().collect(), (!is_over).then_some(ends))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Record = (i64, bool);

    /// All pages of `partitions`: by offset the time of each record, and whether it is wanted.
    fn pages(partitions: &[Vec<Record>], limit: usize, look_at_max: u64) -> Vec<Vec<(i32, i64)>> {
        let mut below: HashMap<i32, i64> = (0..).zip(partitions.iter().map(|records| records.len() as i64)).collect();
        let mut pages = Vec::new();
        loop {
            let spans = below.iter().map(|(partition, below)| (*partition, (0, *below)));
            let mut search = Backwards::new(spans, limit);
            let mut left = look_at_max;
            loop {
                let stretches = search.stretches(left);
                if stretches.is_empty() {
                    break;
                }
                for (partition, (from, to)) in stretches {
                    left = left.saturating_sub((to - from) as u64);
                    let mut stretch = Stretch::new(limit);
                    for offset in from..to {
                        let (at_ms, is_wanted) = partitions[partition as usize][offset as usize];
                        stretch.looked_at(at_ms);
                        if is_wanted {
                            stretch.found(offset, at_ms, (partition, offset));
                        }
                    }
                    search.read(partition, from, stretch);
                }
            }
            let (page, next) = search.page();
            pages.push(page);
            let Some(next) = next else { return pages };
            assert_ne!(next, below, "each page gets on");
            below = next;
        }
    }

    fn wanted(partitions: &[Vec<Record>]) -> Vec<(i32, i64)> {
        let of = |(partition, records): (i32, &Vec<Record>)| {
            let offsets = (0..).zip(records.clone()).filter(|(_, (_, is_wanted))| *is_wanted);
            offsets.map(|(offset, _)| (partition, offset)).collect::<Vec<_>>()
        };
        (0..).zip(partitions).flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn every_record_is_on_one_page_whatever_the_clocks_say(
            partitions in prop::collection::vec(prop::collection::vec((0_i64..50, any::<bool>()), 0..300), 1..4),
            limit in 1_usize..20,
            look_at_max in 1_u64..400,
        ) {
            let pages = pages(&partitions, limit, look_at_max);
            prop_assert!(pages.iter().all(|page| page.len() <= limit));
            let mut seen = pages.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, wanted(&partitions));
        }

        #[test]
        fn with_good_clocks_pages_come_newest_first_and_where_they_may_look_long_enough_full(
            mut partitions in prop::collection::vec(prop::collection::vec((0_i64..500, any::<bool>()), 0..300), 1..4),
            limit in 1_usize..20,
            look_at_max in prop_oneof![1_u64..400, Just(u64::MAX)],
        ) {
            for records in &mut partitions {
                records.sort_unstable();
            }
            let pages = pages(&partitions, limit, look_at_max);
            let times: Vec<i64> =
                pages.concat().iter().map(|(partition, offset)| partitions[*partition as usize][*offset as usize].0).collect();
            prop_assert!(times.is_sorted_by(|younger, older| younger >= older));
            // The last may be short, or empty where what is left isn't wanted.
            let full = pages.iter().take_while(|page| page.len() == limit).count();
            prop_assert!(look_at_max < u64::MAX || full + 1 >= pages.len(), "{pages:?}");
        }
    }

    #[test]
    fn a_page_of_the_newest_reads_little_of_a_long_topic() {
        let mut search: Backwards<()> = Backwards::new([(0, (0, 1_000_000)), (1, (0, 1_000_000))], 50);
        for (partition, (from, to)) in search.stretches(u64::MAX) {
            let mut stretch = Stretch::new(50);
            for offset in from..to {
                stretch.looked_at(offset);
                stretch.found(offset, offset, ());
            }
            search.read(partition, from, stretch);
        }
        assert!(search.stretches(u64::MAX).is_empty());
        let (page, next) = search.page();
        assert_eq!((page.len(), next), (50, Some(HashMap::from([(0, 999_975), (1, 999_975)]))));
    }
}
