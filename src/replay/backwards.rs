//! Which stretches of a topic to read, from its end backwards, until the newest so many of what is wanted are found:
//! pure bookkeeping, the reading is [`super::browse`]'s.
//!
//! Partitions are each in the order of their offsets, and all of them together by time. Clocks of writers differ, so
//! within a partition a record counts as no younger than the one above it: that makes what is left for later of each
//! partition everything below one offset, and a page's end that offset.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Offsets of a stretch that a first round reads of each partition, at least; each round reads twice as many.
const STRETCH_MIN: u64 = 64;
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

#[derive(Debug)]
struct Side {
    low: i64,
    /// Everything from here on was looked at.
    below: i64,
    /// What is below counts as no younger than this.
    age_ms: i64,
    /// The highest offset of what was found and isn't among the newest.
    left: Option<i64>,
}

impl Side {
    /// Everything from here on is among the newest, or isn't wanted.
    fn end(&self) -> i64 {
        self.left.map_or(self.below, |left| left + 1)
    }
}

/// The search.
#[derive(Debug)]
pub struct Backwards<T> {
    sides: BTreeMap<i32, Side>,
    limit: usize,
    stretch: u64,
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
            stretch: STRETCH_MIN.max(limit as u64),
            newest: BTreeMap::new(),
        }
    }

    /// The stretches that may hold something newer than what was found, no more than `look_at_max` offsets in all;
    /// nothing once the newest are found.
    pub fn stretches(&mut self, look_at_max: u64) -> HashMap<i32, (i64, i64)> {
        let oldest = if self.newest.len() < self.limit { None } else { self.newest.keys().next() };
        let may_be_newer = |partition: i32, side: &Side| {
            side.below > side.low && oldest.is_none_or(|oldest| (side.age_ms, partition, side.below - 1) > *oldest)
        };
        let open: Vec<(i32, &Side)> = self
            .sides
            .iter()
            .filter(|(partition, side)| may_be_newer(**partition, side))
            .map(|(partition, side)| (*partition, side))
            .collect();
        let each = self.stretch.min(look_at_max / open.len().max(1) as u64);
        self.stretch = (self.stretch * 2).min(STRETCH_MAX);
        let stretch = |(partition, side): (i32, &Side)| {
            let from = side.low.max(side.below.saturating_sub_unsigned(each));
            (from < side.below).then_some((partition, (from, side.below)))
        };
        open.into_iter().filter_map(stretch).collect()
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
            let Some(((_, partition, offset), _)) = self.newest.pop_first() else { break };
            if let Some(side) = self.sides.get_mut(&partition) {
                side.left = side.left.max(Some(offset));
            }
        }
    }

    /// What was found, newest first, and for each partition the offset below which the next page goes on; None where
    /// nothing is left.
    #[must_use]
    pub fn page(self) -> (Vec<T>, Option<HashMap<i32, i64>>) {
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
                    left -= (to - from) as u64;
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
            look_at_max in 10_u64..400,
        ) {
            let pages = pages(&partitions, limit, look_at_max);
            prop_assert!(pages.iter().all(|page| page.len() <= limit));
            let mut seen = pages.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, wanted(&partitions));
        }

        #[test]
        fn with_good_clocks_pages_come_newest_first_and_full(
            mut partitions in prop::collection::vec(prop::collection::vec((0_i64..500, any::<bool>()), 0..300), 1..4),
            limit in 1_usize..20,
        ) {
            for records in &mut partitions {
                records.sort_unstable();
            }
            let pages = pages(&partitions, limit, u64::MAX);
            let times: Vec<i64> =
                pages.concat().iter().map(|(partition, offset)| partitions[*partition as usize][*offset as usize].0).collect();
            prop_assert!(times.is_sorted_by(|younger, older| younger >= older));
            // The last may be short, or empty where what is left isn't wanted.
            let full = pages.iter().take_while(|page| page.len() == limit).count();
            prop_assert!(full + 1 >= pages.len(), "{pages:?}");
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
