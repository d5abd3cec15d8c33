//! The offsets of one partition that are open, and the watermark that may be committed.

pub mod commit_note;

use crate::position::{Offset, TimestampMs};
use std::collections::VecDeque;

/// A record that was read, at or above the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Seen {
    offset: i64,
    timestamp_ms: i64,
    settled: bool,
}

/// The offsets of one partition from the watermark on.
///
/// Deliveries finish out of order, but a commit is a single number. Only the watermark may be committed, which is the
/// lowest offset that is still open: everything below it is settled. Offsets have gaps (compaction, transaction
/// markers), so each offset that was read is kept instead of computed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OpenOffsets {
    /// The records in the order of their offsets. The front is always open, because settled records are removed there.
    seen: VecDeque<Seen>,
    /// One past the highest offset that was read.
    end: Option<i64>,
    /// The number of records in `seen` that are not settled.
    unsettled: usize,
    /// The highest leader epoch of a record that was read, if the broker names it.
    epoch: Option<i32>,
}

/// The contents of a commit of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    /// The offset to commit: the next record that a new owner must look at.
    pub offset: i64,
    /// The timestamp of the record at `offset` in Unix milliseconds, if it was read.
    pub stamp_ms: Option<i64>,
    /// The settled offsets above `offset`, as ascending runs (first, last).
    pub settled_above: Vec<(i64, i64)>,
    /// The highest leader epoch of a record that was read, if the broker names it. A record with a higher one was written
    /// later.
    pub epoch: Option<i32>,
}

impl OpenOffsets {
    /// Adds a record that was read. Returns false if its offset is lower than one that was read before. Then the end of
    /// the log was lost or the topic was created again, and [`Self::go_back`] must be called.
    #[must_use]
    pub fn open(&mut self, Offset(offset): Offset, TimestampMs(timestamp_ms): TimestampMs) -> bool {
        if self.end.is_some_and(|end| offset < end) {
            return false;
        }
        self.seen.push_back(Seen { offset, timestamp_ms, settled: false });
        self.unsettled += 1;
        self.end = Some(offset.saturating_add(1));
        true
    }

    /// Notes the leader epoch of a record that was read.
    pub fn read_in(&mut self, epoch: Option<i32>) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Forgets all records at or above `offset`, because the log has others there: its end was lost, or the topic was
    /// created again. The records below may still be in the log, so they still hold the watermark back.
    pub fn go_back(&mut self, offset: i64) {
        let kept = self.seen.partition_point(|seen| seen.offset < offset);
        self.unsettled -= self.seen.drain(kept..).filter(|seen| !seen.settled).count();
        self.end = Some(offset);
        // The epochs of a topic that was created again begin anew. Otherwise, the next record has the highest one.
        self.epoch = None;
    }

    /// Sets the first offset that will be read, unless one is known already.
    pub fn begin(&mut self, offset: i64) {
        if self.end.is_none() {
            self.end = Some(offset);
        }
    }

    /// Returns one past the highest offset that was read, or `None` before the first one.
    #[must_use]
    pub fn end(&self) -> Option<i64> {
        self.end
    }

    /// Marks a record as settled, and moves the watermark past all settled records at the front.
    pub fn settle(&mut self, offset: i64) {
        let Ok(at) = self.seen.binary_search_by_key(&offset, |seen| seen.offset) else {
            debug_assert!(false, "offset {offset} is settled once, and only after it was opened");
            return;
        };
        self.unsettled -= usize::from(!std::mem::replace(&mut self.seen[at].settled, true));
        while self.seen.front().is_some_and(|front| front.settled) {
            self.seen.pop_front();
        }
    }

    /// Returns the offset that may be committed now, or `None` before anything was read.
    #[must_use]
    pub fn watermark(&self) -> Option<i64> {
        self.seen.front().map(|front| front.offset).or(self.end)
    }

    /// Returns the watermark with the settled offsets above it, or `None` before anything was read.
    #[must_use]
    pub fn commit(&self) -> Option<Watermark> {
        let mut settled_above: Vec<(i64, i64)> = Vec::new();
        let mut extends = false;
        for seen in &self.seen {
            match settled_above.last_mut() {
                Some((_, last)) if seen.settled && extends => *last = seen.offset,
                _ if seen.settled => settled_above.push((seen.offset, seen.offset)),
                _ => {}
            }
            extends = seen.settled;
        }
        Some(Watermark {
            offset: self.watermark()?,
            stamp_ms: self.seen.front().map(|front| front.timestamp_ms),
            settled_above,
            epoch: self.epoch,
        })
    }

    /// The number of records from the watermark to the last one that was read, including settled ones.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// The number of records that were read and are not settled.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// The timestamp of the record at the watermark in Unix milliseconds, or `None` if no record is open.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<i64> {
        self.seen.front().map(|front| front.timestamp_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_watermark_stays_at_the_lowest_gap() {
        let mut offsets = OpenOffsets::default();
        for offset in [3, 4, 7, 9] {
            assert!(offsets.open(Offset(offset), TimestampMs(0)));
        }
        offsets.settle(7);
        offsets.settle(4);
        assert_eq!((offsets.count(), offsets.unsettled()), (4, 2));
        assert_eq!(
            offsets.commit(),
            Some(Watermark { offset: 3, stamp_ms: Some(0), settled_above: vec![(4, 7)], epoch: None })
        );
        offsets.settle(3);
        assert_eq!(offsets.watermark(), Some(9));
        offsets.settle(9);
        assert_eq!(
            offsets.commit(),
            Some(Watermark { offset: 10, stamp_ms: None, settled_above: vec![], epoch: None })
        );
    }

    #[test]
    fn a_topic_that_was_created_again_is_noticed() {
        let mut offsets = OpenOffsets::default();
        assert!(offsets.open(Offset(100), TimestampMs(0)));
        assert!(!offsets.open(Offset(0), TimestampMs(0)));
        offsets.go_back(0);
        assert_eq!((offsets.watermark(), offsets.count(), offsets.unsettled()), (Some(0), 0, 0));
        offsets.read_in(Some(40));
        offsets.go_back(0);
        offsets.read_in(Some(0));
        assert_eq!(offsets.commit().unwrap().epoch, Some(0), "its epochs begin anew");
    }

    #[test]
    fn records_below_a_lost_end_of_the_log_still_hold_the_watermark_back() {
        let mut offsets = OpenOffsets::default();
        for offset in 5..10 {
            assert!(offsets.open(Offset(offset), TimestampMs(0)));
        }
        offsets.settle(6);
        offsets.settle(9);
        offsets.go_back(8);
        assert!(offsets.open(Offset(8), TimestampMs(1)));
        offsets.settle(8);
        let commit = offsets.commit().unwrap();
        assert_eq!((commit.offset, commit.settled_above, offsets.unsettled()), (5, vec![(6, 6), (8, 8)], 2));
    }

    proptest! {
        /// For any offsets and any order and number of completions, the watermark is the lowest open offset.
        #[test]
        fn any_order_of_completions_never_commits_past_a_gap(
            steps in prop::collection::vec(1_i64..4, 1..200), order in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut offsets = OpenOffsets::default();
            let mut open = BTreeSet::new();
            let mut at = 0;
            for step in steps {
                at += step;
                prop_assert!(offsets.open(Offset(at), TimestampMs(at)));
                open.insert(at);
            }
            let all = open.clone();
            for index in order {
                let Some(offset) = open.iter().nth(index.index(open.len().max(1))).copied() else { break };
                open.remove(&offset);
                offsets.settle(offset);
                let commit = offsets.commit().expect("records were read");
                prop_assert_eq!(commit.offset, open.first().copied().unwrap_or(at + 1));
                // Each record above the watermark is either open or in exactly one run.
                for record in all.range(commit.offset..) {
                    let noted = commit.settled_above.iter().filter(|(first, last)| (first..=last).contains(&record)).count();
                    prop_assert_eq!(noted, usize::from(!open.contains(record)));
                }
            }
        }
    }
}
