//! The search for the newest wanted records of a topic, from its end backwards: which stretches of offsets to read
//! next.
//!
//! This module only does the bookkeeping. [`super::browse`] reads the records.
//!
//! Within a partition, records are ordered by offset. Across partitions they are ordered by time. The clocks of writers
//! differ, so a record counts as no newer than the record at the next higher offset of its partition. The part of a
//! partition that is left for the next page is therefore everything below one offset.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// The number of offsets that the first round reads of all partitions together, as a multiple of the limit. With a
/// higher value, fewer partitions need a second round. Each later round reads twice as many offsets per partition as
/// the round before, but only of some partitions.
const FIRST_ROUND: u64 = 2;
/// The largest number of offsets in a stretch.
const STRETCH_MAX: u64 = 16_384;

/// The wanted records of one stretch of offsets.
#[derive(Debug)]
pub struct Stretch<T> {
    /// The offset, time in Unix milliseconds and value of each wanted record, by offset.
    wanted: VecDeque<(i64, i64, T)>,
    limit: usize,
    /// The highest offset of a wanted record that exceeded the limit.
    left_over: Option<i64>,
    /// The time of the oldest record, wanted or not, in Unix milliseconds.
    oldest_ms: i64,
}

impl<T> Stretch<T> {
    /// Creates an empty stretch. It keeps the last `limit` wanted records.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { wanted: VecDeque::new(), limit, left_over: None, oldest_ms: i64::MAX }
    }

    /// Records that a record with this time (Unix milliseconds) was read.
    pub fn looked_at(&mut self, at_ms: i64) {
        self.oldest_ms = self.oldest_ms.min(at_ms);
    }

    /// Adds a wanted record. Calls must be in the order of rising offsets.
    pub fn found(&mut self, offset: i64, at_ms: i64, value: T) {
        self.wanted.push_back((offset, at_ms, value));
        if self.wanted.len() > self.limit {
            self.left_over = self.wanted.pop_front().map(|(offset, ..)| offset);
        }
    }
}

/// The state of the search in one partition.
#[derive(Debug)]
struct PartitionSearch {
    /// The oldest offset of the partition.
    low: i64,
    /// All records from this offset on were read. The next stretch ends here.
    below: i64,
    /// Records below count as no newer than this time, in Unix milliseconds.
    newest_ms: i64,
    /// The highest offset of a record that was found but is not among the newest.
    left_over: Option<i64>,
}

impl PartitionSearch {
    /// The offset below which the next page begins. All wanted records from this offset on are on this page.
    fn end(&self) -> i64 {
        self.left_over.map_or(self.below, |offset| offset + 1)
    }

    /// The position (time, partition, offset) that the newest unread record may have at most. None if all records were
    /// read.
    fn frontier(&self, partition: i32) -> Option<(i64, i32, i64)> {
        (self.below > self.low).then_some((self.newest_ms, partition, self.below - 1))
    }
}

/// A search for the newest wanted records of a topic.
#[derive(Debug)]
pub struct Backwards<T> {
    partitions: BTreeMap<i32, PartitionSearch>,
    limit: usize,
    /// The number of offsets in each of the next stretches. None before the first round.
    stretch: Option<u64>,
    /// The newest records found so far, by time, partition and offset.
    newest: BTreeMap<(i64, i32, i64), T>,
}

impl<T> Backwards<T> {
    /// Creates a search for the newest `limit` wanted records, at least 1. `spans` has the oldest offset of each
    /// partition and the offset after its last record.
    #[must_use]
    pub fn new(spans: impl IntoIterator<Item = (i32, (i64, i64))>, limit: usize) -> Self {
        let partition = |(low, below)| PartitionSearch { low, below, newest_ms: i64::MAX, left_over: None };
        Self {
            partitions: spans.into_iter().map(|(number, span)| (number, partition(span))).collect(),
            limit,
            stretch: None,
            newest: BTreeMap::new(),
        }
    }

    /// The next stretches to read, by partition: those that may contain newer records than the ones found so far. Empty
    /// once the newest records are found, or if `look_at_max` is 0.
    ///
    /// The first round covers all partitions. Later rounds cover the partition whose unread records may be the newest,
    /// or several if their times are equal. The stretches have up to `look_at_max` offsets in all, but at least one
    /// each.
    pub fn stretches(&mut self, look_at_max: u64) -> HashMap<i32, (i64, i64)> {
        let oldest = if self.newest.len() < self.limit { None } else { self.newest.keys().next() };
        let frontiers = self.partitions.iter().filter_map(|(number, partition)| partition.frontier(*number));
        let open: Vec<_> = frontiers.filter(|frontier| oldest.is_none_or(|oldest| frontier > oldest)).collect();
        let Some(latest_ms) = open.iter().map(|(newest_ms, ..)| *newest_ms).max().filter(|_| look_at_max > 0) else {
            return HashMap::new();
        };
        let next: Vec<_> = open.into_iter().filter(|(newest_ms, ..)| *newest_ms == latest_ms).collect();
        let count = next.len() as u64;
        let each = self.stretch.unwrap_or_else(|| (FIRST_ROUND * self.limit as u64).div_ceil(count));
        let each = each.min(look_at_max / count).clamp(1, STRETCH_MAX);
        self.stretch = Some(each * 2);
        let stretch = |(_, partition, last): (i64, i32, i64)| {
            let low = self.partitions.get(&partition).map_or(0, |partition| partition.low);
            (partition, (low.max((last + 1).saturating_sub_unsigned(each)), last + 1))
        };
        next.into_iter().map(stretch).collect()
    }

    /// Adds the stretch of `partition` that begins at the offset `from`, after it was read.
    pub fn read(&mut self, partition: i32, from: i64, stretch: Stretch<T>) {
        let Some(search) = self.partitions.get_mut(&partition) else { return };
        search.left_over = search.left_over.max(stretch.left_over);
        for (offset, at_ms, value) in stretch.wanted.into_iter().rev() {
            search.newest_ms = search.newest_ms.min(at_ms);
            self.newest.insert((search.newest_ms, partition, offset), value);
        }
        search.newest_ms = search.newest_ms.min(stretch.oldest_ms);
        search.below = from;
        while self.newest.len() > self.limit {
            self.drop_oldest();
        }
    }

    /// Leaves the oldest record that was found to a later page.
    fn drop_oldest(&mut self) {
        let Some(((_, partition, offset), _)) = self.newest.pop_first() else { return };
        if let Some(search) = self.partitions.get_mut(&partition) {
            search.left_over = search.left_over.max(Some(offset));
        }
    }

    /// The records that were found, newest first, and for each partition the offset below which the next page begins.
    /// None if no records are left.
    ///
    /// If the search ended early, records that may be older than an unread record are left to a later page, so that
    /// pages stay in order. The page is then short.
    #[must_use]
    pub fn page(mut self) -> (Vec<T>, Option<HashMap<i32, i64>>) {
        let frontier = self.partitions.iter().filter_map(|(number, partition)| partition.frontier(*number)).max();
        while self.newest.first_key_value().is_some_and(|(key, _)| frontier.is_some_and(|frontier| *key < frontier)) {
            self.drop_oldest();
        }
        let is_over = self.partitions.values().all(|partition| partition.end() <= partition.low);
        let ends = self.partitions.iter().map(|(number, partition)| (*number, partition.end())).collect();
        (self.newest.into_values().rev().collect(), (!is_over).then_some(ends))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Record = (i64, bool);

    /// All pages of `partitions`, which have the time of each record and whether it is wanted, by offset.
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
            assert_ne!(next, below, "each page makes progress");
            below = next;
        }
    }

    fn wanted(partitions: &[Vec<Record>]) -> Vec<(i32, i64)> {
        let in_partition = |(partition, records): (i32, &Vec<Record>)| {
            let offsets = (0..).zip(records.clone()).filter(|(_, (_, is_wanted))| *is_wanted);
            offsets.map(|(offset, _)| (partition, offset)).collect::<Vec<_>>()
        };
        (0..).zip(partitions).flat_map(in_partition).collect()
    }

    proptest! {
        #[test]
        fn every_wanted_record_is_on_exactly_one_page_with_any_clocks(
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
        fn with_correct_clocks_pages_are_in_order_and_full(
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
            prop_assert!(times.is_sorted_by(|newer, older| newer >= older));
            // The last page may be short, or empty if no wanted records are left.
            let full = pages.iter().take_while(|page| page.len() == limit).count();
            prop_assert!(look_at_max < u64::MAX || full + 1 >= pages.len(), "{pages:?}");
        }
    }

    #[test]
    fn the_first_page_reads_little_of_a_long_topic() {
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
