//! What may be committed of one partition.

pub mod commit_note;

use crate::position::{Offset, TimestampMs};
use std::collections::VecDeque;

/// One record that was read and lies at or above the watermark.
#[derive(Debug, Clone, Copy)]
struct Seen {
    offset: i64,
    timestamp_ms: i64,
    settled: bool,
}

/// Offsets of one partition that were read and are not all settled yet.
///
/// Deliveries finish out of order; a commit is a single number. What may be committed is the
/// lowest offset still open: everything below it is settled for good. Offsets have gaps
/// (compaction, transaction markers), so what was seen is kept, never counted.
#[derive(Debug, Default)]
pub struct OpenOffsets {
    /// By offset; the front is open, else it would have been taken off.
    seen: VecDeque<Seen>,
    /// One past the highest offset that was seen.
    end: Option<i64>,
}

/// What a commit says of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    /// The next record that a new owner must look at.
    pub offset: i64,
    /// Timestamp of the record at `offset`, if it was read.
    pub stamp_ms: Option<i64>,
    /// Settled offsets above it, as runs (first, last), ascending.
    pub settled_above: Vec<(i64, i64)>,
}

impl OpenOffsets {
    /// A record was read. False if it lies below one read before: the log was cut or made anew,
    /// and what is known of it counts no more.
    #[must_use]
    pub fn open(&mut self, Offset(offset): Offset, TimestampMs(timestamp_ms): TimestampMs) -> bool {
        if self.end.is_some_and(|end| offset < end) {
            return false;
        }
        self.seen.push_back(Seen { offset, timestamp_ms, settled: false });
        self.end = Some(offset.saturating_add(1));
        true
    }

    /// Nothing was read yet: `offset` is the first that will be.
    pub fn begin(&mut self, offset: i64) {
        if self.end.is_none() {
            self.end = Some(offset);
        }
    }

    /// One past the highest offset that was read; None before anything was.
    #[must_use]
    pub fn end(&self) -> Option<i64> {
        self.end
    }

    /// Every delivery of the record is durable.
    pub fn settle(&mut self, offset: i64) {
        let Ok(at) = self.seen.binary_search_by_key(&offset, |seen| seen.offset) else {
            debug_assert!(false, "offset {offset} is settled once, and only after it was opened");
            return;
        };
        self.seen[at].settled = true;
        while self.seen.front().is_some_and(|front| front.settled) {
            self.seen.pop_front();
        }
    }

    /// What may be committed now; None before anything was read.
    #[must_use]
    pub fn watermark(&self) -> Option<i64> {
        self.seen.front().map(|front| front.offset).or(self.end)
    }

    /// The same with what is settled above it.
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
        })
    }

    /// Records between the watermark and the last one read, settled ones among them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.len()
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
        assert_eq!(offsets.commit(), Some(Watermark { offset: 3, stamp_ms: Some(0), settled_above: vec![(4, 7)] }));
        offsets.settle(3);
        assert_eq!(offsets.watermark(), Some(9));
        offsets.settle(9);
        assert_eq!(offsets.commit(), Some(Watermark { offset: 10, stamp_ms: None, settled_above: vec![] }));
    }

    #[test]
    fn a_log_that_was_made_anew_is_noticed() {
        let mut offsets = OpenOffsets::default();
        assert!(offsets.open(Offset(100), TimestampMs(0)));
        assert!(!offsets.open(Offset(0), TimestampMs(0)));
    }

    proptest! {
        /// Any offsets, any order of completions, any number of them: never past a gap, never lost.
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
                // Above the watermark each record is either open or in exactly one run.
                for record in all.range(commit.offset..) {
                    let noted = commit.settled_above.iter().filter(|(first, last)| (first..=last).contains(&record)).count();
                    prop_assert_eq!(noted, usize::from(!open.contains(record)));
                }
            }
        }
    }
}
