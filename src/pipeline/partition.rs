//! One partition for as long as it is assigned to this process: its open offsets and the work in flight.
//!
//! Each assignment creates a new [`Partition`]. A delivery belongs to the assignment under which it was started. A
//! delivery that finishes after a revoke therefore can't change the offsets of the next owner, even if that is this
//! process again.

mod going_back;
mod rereading;
mod standing;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::Instant;

use tokio::sync::OnceCell;

use super::blocker::Blocker;
use super::committed::Committed;
use super::receipt::Receipt;
use super::standstill::Standstill;
use crate::offsets::OpenOffsets;
use crate::offsets::commit_note::{self, CommitNote};
use crate::position::{Offset, TimestampMs};
use crate::store::marks::{Loaded, MarkEntry};
pub use standing::Standing;

/// One assignment of one partition.
#[derive(Debug)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// The number of the partition within its topic.
    pub number: i32,
    /// The marks of a predecessor that crashed. They are loaded before the first record is fanned out.
    pub predecessor: OnceCell<Loaded>,
    /// Whether the marks of predecessors are void, because the committed offset doesn't come from a worker.
    pub marks_are_void: bool,
    /// Whether its consumption is paused. Only the poll thread changes this.
    pub paused: AtomicBool,
    /// When the next delivery of a retry tier is due, in Unix milliseconds. `i64::MAX` if none waits.
    next_due_ms: AtomicI64,
    standstill: Arc<Standstill>,
    /// The number of standstills when it was assigned.
    epoch: u64,
    state: Mutex<State>,
    /// Notified when nothing is in flight any more.
    quiet: Condvar,
}

#[derive(Debug, Default)]
struct State {
    offsets: OpenOffsets,
    /// Raised when the log turns out to have gone back: its end was lost, or the topic was created again.
    generation: u64,
    /// Each generation that began so, with the offset that the log went back to. Receipts of an earlier generation count
    /// only below it. The offsets ascend, because a lower one replaces those before it.
    went_back: Vec<(u64, i64)>,
    /// The number of parts of records that are being handled.
    in_flight: usize,
    /// Whether nothing may be started any more.
    draining: bool,
    /// Whether nothing may be settled any more.
    closed: bool,
    /// The note in the commit of a predecessor.
    note: Option<CommitNote>,
    /// Whether the first record has been compared with the note.
    is_note_checked: bool,
    /// The offset that was committed last, and its metadata.
    committed: Option<(i64, String)>,
    /// The entries in the stream of marks, oldest first, each with the highest of its offsets that is still in the log.
    entries: VecDeque<MarkEntry>,
    /// The receipts of open records, by offset. Some of them may be settled already.
    receipts: VecDeque<Weak<Receipt>>,
    noted: standing::Noted,
    rereading: rereading::Rereading,
}

impl Partition {
    /// A partition that was just assigned.
    #[must_use]
    pub fn new(topic: Arc<str>, number: i32, committed: Committed, standstill: Arc<Standstill>) -> Self {
        let Committed { note, marks_are_void } = committed;
        Self {
            topic,
            number,
            predecessor: OnceCell::new(),
            marks_are_void,
            paused: AtomicBool::new(false),
            next_due_ms: AtomicI64::new(i64::MAX),
            epoch: standstill.epoch(),
            standstill,
            state: Mutex::new(State { note, ..State::default() }),
            quiet: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Opens the offset of a record that was read, with its leader epoch if it is known. Returns None if the note of a
    /// predecessor says that it is settled, or if the record is read again after a pause.
    pub fn open_in(self: &Arc<Self>, at: Offset, written: TimestampMs, epoch: Option<i32>) -> Option<Arc<Receipt>> {
        let (Offset(offset), TimestampMs(timestamp_ms)) = (at, written);
        let mut state = self.state();
        if !state.is_further(offset, timestamp_ms) {
            return None;
        }
        if !state.offsets.open(at, written) {
            tracing::warn!(topic = %self.topic, partition = self.number, offset, "the log has gone back: its end was lost or the topic was created again, so its records from here on are new");
            state.go_back(offset);
            let opened = state.offsets.open(at, written);
            debug_assert!(opened, "the offset that the log went back to always opens");
        }
        state.offsets.read_in(epoch);
        // The note is about this topic, and not about a deleted one of the same name, only if the record at the
        // watermark has the same timestamp. That record is read first.
        if !std::mem::replace(&mut state.is_note_checked, true)
            && state.note.as_ref().is_some_and(|note| {
                !note.is_settled(offset)
                    && note.stamp_ms != Some(timestamp_ms)
                    && note.settled.first().is_none_or(|(first, _)| offset < *first)
            })
        {
            state.note = None;
        }
        if state.note.as_ref().is_some_and(|note| note.is_settled_in(offset, epoch)) {
            state.offsets.settle(offset);
            return None;
        }
        if state.offsets.count() == 1 {
            state.watermark_moved(None);
        }
        let receipt = Arc::new(Receipt::new(self.clone(), state.generation, at, written));
        state.receipts.push_back(Arc::downgrade(&receipt));
        Some(receipt)
    }

    /// The record that blocks the watermark, or None if no offset is open.
    #[must_use]
    pub fn blocker(&self) -> Option<Blocker> {
        // Receipts below the watermark are settled, and some of an earlier generation don't count. Both are removed.
        let receipt = {
            let mut state = self.state();
            let watermark = state.offsets.watermark()?;
            loop {
                let first = state.receipts.front()?.upgrade();
                let counts = |first: &Arc<Receipt>| state.counts(first.generation(), first.offset);
                if let Some(receipt) = first.filter(|first| first.offset >= watermark && counts(first)) {
                    break receipt;
                }
                state.receipts.pop_front();
            }
        };
        let (stage, webhook) = receipt.stage();
        Some(Blocker { offset: receipt.offset, timestamp_ms: receipt.timestamp_ms, stage, webhook })
    }

    /// Begins work on a part of a record. Returns false if nothing may be started, because the partition drains or this
    /// process may have lost it.
    pub(super) fn begin_work(&self) -> bool {
        if self.is_lost() {
            return false;
        }
        let mut state = self.state();
        let may_start = !state.draining && !state.closed;
        state.in_flight += usize::from(may_start);
        may_start
    }

    /// Ends work on a part of a record.
    pub(super) fn end_work(&self) {
        let mut state = self.state();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            self.quiet.notify_all();
        }
    }

    /// Settles `offset`, because every part of its record is settled. Does nothing if the record was read in an earlier
    /// `generation` and is no longer in the log, or if the partition is closed.
    pub(super) fn settle(&self, generation: u64, offset: i64) {
        let mut state = self.state();
        if !state.closed && state.counts(generation, offset) {
            let before = state.offsets.watermark();
            state.offsets.settle(offset);
            state.watermark_moved(before);
        }
        // Settled receipts at the front are removed, so the list is bounded by the open offsets.
        while state.receipts.front().is_some_and(|first| first.strong_count() == 0) {
            state.receipts.pop_front();
        }
    }

    /// The number of offsets from the watermark to the last record that was read.
    #[must_use]
    pub fn open_offsets(&self) -> usize {
        self.state().offsets.count()
    }

    /// The offset to commit and its note, if one of them has changed since the last commit.
    #[must_use]
    pub fn to_commit(&self) -> Option<(i64, String)> {
        let state = self.state();
        if state.closed || state.rereading.begins_anew() {
            return None;
        }
        let watermark = state.offsets.commit()?;
        // The missing note is the only sign that an operator reset the offset. The commit therefore stays without one
        // until the void marks are gone, or until there is another offset to commit.
        let is_reset = self.marks_are_void && state.committed.as_ref().is_some_and(|(at, _)| *at == watermark.offset);
        if is_reset && !self.predecessor.initialized() {
            return None;
        }
        let commit = (watermark.offset, commit_note::encode(&watermark));
        (state.committed.as_ref() != Some(&commit)).then_some(commit)
    }

    /// Remembers that the broker has the commit. Returns the stream id up to which marks can be trimmed.
    pub fn committed(&self, offset: i64, note: String) -> Option<String> {
        let mut state = self.state();
        state.committed = Some((offset, note));
        let mut passed = None;
        while state.entries.front().is_some_and(|entry| entry.highest < offset) {
            passed = state.entries.pop_front().map(|entry| entry.id);
        }
        passed
    }

    /// Remembers an entry that was added to the stream of marks.
    pub fn marked(&self, mut entry: MarkEntry) {
        let mut state = self.state();
        // An entry above every offset that was read belongs to an earlier generation. None of its offsets above the one
        // that the log went back to is there any more.
        if state.offsets.end().is_some_and(|end| entry.highest >= end)
            && let Some((_, went_back_to)) = state.went_back.last()
        {
            entry.highest = entry.highest.min(went_back_to - 1);
        }
        state.entries.push_back(entry);
    }

    /// Remembers the entries that a predecessor left in the stream of marks. Their offsets may not have been read yet.
    pub fn inherited(&self, entries: &[MarkEntry]) {
        self.state().entries.extend(entries.iter().cloned());
    }

    /// The watermark, and the offset after the highest one that was read. None before anything was read.
    #[must_use]
    pub fn span(&self) -> Option<(i64, i64)> {
        let state = self.state();
        Some((state.offsets.watermark()?, state.offsets.end()?))
    }

    /// Sets the offset at which reading begins, before anything was read. `metadata` is that of the commit of this
    /// offset, if there is one.
    pub fn begins_at(&self, offset: i64, metadata: Option<&str>) {
        let mut state = self.state();
        state.offsets.begin(offset);
        state.committed = metadata.map(|metadata| (offset, metadata.to_owned()));
    }

    /// Whether this process may have lost the partition without knowing it, because it stood still.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.standstill.has_been_since(self.epoch)
    }

    /// Begins a drain: nothing is started from now on.
    pub fn drain(&self) {
        self.state().draining = true;
    }

    /// Waits until nothing is in flight, but not beyond `deadline`. Returns how much is still in flight.
    pub fn wait_until_quiet(&self, deadline: Instant) -> usize {
        let mut state = self.state();
        while state.in_flight > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            state = self.quiet.wait_timeout(state, left).expect("no code panics while it holds this lock").0;
        }
        state.in_flight
    }

    /// Closes the partition: deliveries that finish from now on are ignored.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Whether the partition is closed, because it is no longer ours.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Stage;
    use crate::webhook::WebhookId;

    impl Partition {
        /// Opens the offset of a record that was read, if its leader epoch isn't known.
        pub fn open(self: &Arc<Self>, at: Offset, written: TimestampMs) -> Option<Arc<Receipt>> {
            self.open_in(at, written, None)
        }
    }

    fn partition(note: Option<CommitNote>) -> Arc<Partition> {
        let committed = Committed { note, marks_are_void: false };
        let standstill = Standstill::watch(std::time::Duration::from_secs(60)).unwrap();
        Arc::new(Partition::new("t".into(), 0, committed, standstill))
    }

    fn commit_of(partition: &Partition) -> Option<i64> {
        partition.to_commit().map(|(offset, _)| offset)
    }

    #[test]
    fn mark_entries_of_an_older_log_do_not_block_trimming() {
        let partition = partition(None);
        let old = partition.open(Offset(50), TimestampMs(0)).unwrap();
        partition.marked(MarkEntry { id: "1-0".into(), highest: 50 });
        let new = partition.open(Offset(0), TimestampMs(9)).unwrap();
        // The attempt ended before the topic was created again, and it is recorded only now.
        old.settle();
        partition.marked(MarkEntry { id: "2-0".into(), highest: 50 });
        partition.marked(MarkEntry { id: "3-0".into(), highest: 0 });
        new.settle();
        assert_eq!(partition.committed(1, String::new()).as_deref(), Some("3-0"));
    }

    #[test]
    fn a_record_that_is_read_again_after_a_pause_is_not_handled_twice() {
        let partition = partition(None);
        let open = partition.open(Offset(5), TimestampMs(50)).unwrap();
        assert_eq!(partition.reread(), Some(5));
        assert!(partition.open(Offset(5), TimestampMs(50)).is_none());
        assert_eq!((commit_of(&partition), partition.open_offsets()), (Some(5), 1));
        open.settle();
        assert_eq!(commit_of(&partition), Some(6));
    }

    #[test]
    fn another_record_at_the_offset_of_the_last_one_lets_the_commit_go_back_to_the_beginning() {
        let partition = partition(None);
        let old = partition.open(Offset(5), TimestampMs(50)).unwrap();
        assert_eq!(partition.reread(), Some(5));
        assert!(partition.open(Offset(5), TimestampMs(99)).is_none());
        assert!(partition.begins_anew());
        assert!(partition.open(Offset(6), TimestampMs(99)).is_none(), "nothing is read until the position is changed");
        old.settle();
        assert_eq!(commit_of(&partition), None, "no offset of the old log is committed");
        partition.begin_anew(3);
        assert_eq!(commit_of(&partition), Some(3), "a crash now skips nothing");
        partition.open(Offset(3), TimestampMs(90)).unwrap().settle();
        assert_eq!(commit_of(&partition), Some(4));
    }

    #[test]
    fn entries_of_a_predecessor_stay_until_a_commit_passes_them() {
        let partition = partition(None);
        partition.begins_at(5, None);
        partition.inherited(&[MarkEntry { id: "1-0".into(), highest: 7 }]);
        partition.open(Offset(5), TimestampMs(0)).unwrap().settle();
        assert_eq!(partition.committed(6, String::new()), None);
        assert_eq!(partition.committed(8, String::new()).as_deref(), Some("1-0"));
    }

    #[test]
    fn an_offset_is_committed_when_every_part_of_its_record_is_settled() {
        let partition = partition(None);
        let receipt = partition.open(Offset(5), TimestampMs(0)).unwrap();
        receipt.add();
        receipt.settle();
        assert_eq!(commit_of(&partition), Some(5));
        receipt.settle();
        assert_eq!(commit_of(&partition), Some(6));
        let (offset, note) = partition.to_commit().unwrap();
        partition.committed(offset, note);
        assert_eq!(partition.to_commit(), None, "the same offset is not committed again");
    }

    #[test]
    fn the_lowest_open_record_blocks_the_watermark() {
        let partition = partition(None);
        let (first, second) =
            (partition.open(Offset(5), TimestampMs(70)).unwrap(), partition.open(Offset(6), TimestampMs(80)).unwrap());
        let webhook = WebhookId(uuid::Uuid::from_u128(1));
        first.note(Stage::Sending, webhook);
        let blocker = Blocker { offset: 5, timestamp_ms: 70, stage: Stage::Sending, webhook: Some(webhook) };
        assert_eq!(partition.blocker(), Some(blocker));
        first.settle();
        drop(first);
        let blocker = Blocker { offset: 6, timestamp_ms: 80, stage: Stage::Queued, webhook: None };
        assert_eq!(partition.blocker(), Some(blocker));
        second.settle();
        assert_eq!(partition.blocker(), None);
    }

    #[test]
    fn deliveries_that_finish_after_a_revoke_are_ignored() {
        let partition = partition(None);
        let receipt = partition.open(Offset(5), TimestampMs(0)).unwrap();
        partition.close();
        receipt.settle();
        assert_eq!(partition.to_commit(), None);
        assert!(receipt.start().is_none());
    }

    #[test]
    fn a_drain_starts_nothing_and_waits_for_work_in_flight() {
        let partition = partition(None);
        let receipt = partition.open(Offset(5), TimestampMs(0)).unwrap();
        let in_flight = receipt.start().unwrap();
        partition.drain();
        assert!(receipt.start().is_none());
        assert_eq!(partition.wait_until_quiet(Instant::now()), 1);
        drop(in_flight);
        assert_eq!(partition.wait_until_quiet(Instant::now()), 0);
    }

    #[test]
    fn a_predecessors_note_counts_only_for_the_same_log() {
        let note = CommitNote { stamp_ms: Some(77), settled: vec![(6, 7)], epoch: Some(3) };
        let same = partition(Some(note.clone()));
        assert!(
            same.open(Offset(5), TimestampMs(77)).is_some()
                && same.open(Offset(6), TimestampMs(80)).is_none()
                && same.open(Offset(8), TimestampMs(90)).is_some()
        );
        let other = partition(Some(note));
        assert!(other.open(Offset(5), TimestampMs(78)).is_some() && other.open(Offset(6), TimestampMs(80)).is_some());
    }

    #[test]
    fn a_topic_that_is_created_again_forgets_its_offsets() {
        let partition = partition(None);
        let old = partition.open(Offset(50), TimestampMs(0)).unwrap();
        let new = partition.open(Offset(0), TimestampMs(9)).unwrap();
        old.settle();
        assert_eq!(partition.to_commit().unwrap().0, 0);
        new.settle();
        assert_eq!(partition.to_commit().unwrap().0, 1);
    }

    #[test]
    fn records_below_a_lost_end_of_the_log_hold_the_watermark_back_until_they_are_settled() {
        let partition = partition(None);
        let open = |offset, stamp| partition.open(Offset(offset), TimestampMs(stamp)).unwrap();
        let old: Vec<_> = (5..10).map(|offset| open(offset, 0)).collect();
        partition.marked(MarkEntry { id: "1-0".into(), highest: 9 });
        let new = open(8, 1);
        new.settle();
        // The records 8 and 9 that were read first are no longer in the log.
        old[3].settle();
        old[4].settle();
        assert_eq!(commit_of(&partition), Some(5), "5 to 7 are still open");
        assert_eq!(partition.committed(5, String::new()), None);
        old[..3].iter().for_each(|receipt| receipt.settle());
        assert_eq!(commit_of(&partition), Some(9));
        assert_eq!(partition.committed(9, String::new()).as_deref(), Some("1-0"));
    }

    #[test]
    fn a_note_does_not_count_for_records_that_were_written_after_the_end_of_the_log_was_lost() {
        let note = CommitNote { stamp_ms: Some(77), settled: vec![(6, 9)], epoch: Some(3) };
        let partition = partition(Some(note));
        let is_open = |offset, epoch| partition.open_in(Offset(offset), TimestampMs(77), Some(epoch)).is_some();
        assert!(is_open(5, 3) && !is_open(6, 3) && !is_open(7, 2));
        assert!(is_open(8, 4) && is_open(9, 4), "these were written by a later leader");
    }
}
