//! One partition for as long as it is assigned: what is open, what is in flight, and the end of it.
//!
//! Each assignment makes a new [`Partition`]; a completion belongs to the one that it was started under, so
//! what finishes after a revoke can't touch the offsets of the next owner, be it this very process.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::Instant;

use tokio::sync::OnceCell;

use super::receipt::Receipt;
use super::standstill::Standstill;
use crate::offsets::OpenOffsets;
use crate::offsets::commit_note::{self, CommitNote};
use crate::position::{Offset, TimestampMs};
use crate::report::Stage;
use crate::store::marks::{Loaded, MarkEntry};
use crate::webhook::WebhookId;

/// One assignment of one partition.
#[derive(Debug)]
pub struct Partition {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub number: i32,
    /// What a crashed predecessor settled above its commit; loaded before the first record is looked at.
    pub predecessor: OnceCell<Loaded>,
    /// Whether marks of predecessors are void: the offset that is committed isn't from us.
    pub marks_are_void: bool,
    /// Whether consumption of it is paused; only the poll thread changes it.
    pub paused: AtomicBool,
    standstill: Arc<Standstill>,
    /// The number of standstills when it was assigned.
    epoch: u64,
    state: Mutex<State>,
    /// Told when nothing is in flight any more.
    quiet: Condvar,
}

#[derive(Debug, Default)]
struct State {
    offsets: OpenOffsets,
    /// Raised when the log turned out to be made anew: receipts from before count no more.
    generation: u64,
    /// Started and not settled yet.
    in_flight: usize,
    /// Nothing is started any more.
    draining: bool,
    /// Nothing is settled any more.
    closed: bool,
    note: Option<CommitNote>,
    /// Whether the first record has been compared with the note.
    is_note_checked: bool,
    committed: Option<(i64, String)>,
    /// Entries in the stream of marks, oldest first, each with the generation that it speaks of.
    entries: VecDeque<(u64, MarkEntry)>,
    /// Receipts of what is open, by offset; some of them are settled already.
    receipts: VecDeque<Weak<Receipt>>,
}

/// What holds a partition's watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocker {
    /// The lowest offset that isn't settled.
    pub offset: i64,
    /// Timestamp of the record there, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Where it is.
    pub stage: Stage,
    /// The webhook that was dealt with last.
    pub webhook: Option<WebhookId>,
}

/// What a partition's committed offset says of its predecessors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The note that came with it.
    pub note: Option<CommitNote>,
    /// Whether it is somebody else's: then marks say nothing of what lies above it.
    pub marks_are_void: bool,
}

impl Partition {
    /// Newly assigned, with what was committed of it.
    #[must_use]
    pub fn new(topic: Arc<str>, number: i32, committed: Committed, standstill: Arc<Standstill>) -> Self {
        let Committed { note, marks_are_void } = committed;
        Self {
            topic,
            number,
            predecessor: OnceCell::new(),
            marks_are_void,
            paused: AtomicBool::new(false),
            epoch: standstill.epoch(),
            standstill,
            state: Mutex::new(State { note, ..State::default() }),
            quiet: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a partition's state")
    }

    /// A record was read. None if the note of a predecessor says that it is settled already.
    pub fn open(self: &Arc<Self>, at: Offset, written: TimestampMs) -> Option<Arc<Receipt>> {
        let (Offset(offset), TimestampMs(timestamp_ms)) = (at, written);
        let mut state = self.state();
        if !state.offsets.open(at, written) {
            tracing::warn!(topic = %self.topic, partition = self.number, offset, "the log begins anew: offsets known of it are forgotten");
            state.offsets = OpenOffsets::default();
            state.generation += 1;
            state.note = None;
            let opened = state.offsets.open(at, written);
            debug_assert!(opened, "the first offset always opens");
        }
        // The note speaks of this log only if the record at the watermark, the first one read, is the same.
        if !std::mem::replace(&mut state.is_note_checked, true)
            && state.note.as_ref().is_some_and(|note| {
                !note.is_settled(offset)
                    && note.stamp_ms != Some(timestamp_ms)
                    && note.settled.first().is_none_or(|(first, _)| offset < *first)
            })
        {
            state.note = None;
        }
        if state.note.as_ref().is_some_and(|note| note.is_settled(offset)) {
            state.offsets.settle(offset);
            return None;
        }
        let receipt = Arc::new(Receipt::new(self.clone(), state.generation, at, written));
        state.receipts.push_back(Arc::downgrade(&receipt));
        Some(receipt)
    }

    /// What holds the watermark; None where nothing is open.
    #[must_use]
    pub fn holding(&self) -> Option<Blocker> {
        // Settled and forgotten, or given up with an old log: not what is looked for.
        let receipt = {
            let mut state = self.state();
            let generation = state.generation;
            let watermark = state.offsets.watermark()?;
            loop {
                let first = state.receipts.front()?.upgrade();
                if let Some(receipt) =
                    first.filter(|first| first.generation() == generation && first.offset >= watermark)
                {
                    break receipt;
                }
                state.receipts.pop_front();
            }
        };
        let (stage, webhook) = receipt.stage();
        Some(Blocker { offset: receipt.offset, timestamp_ms: receipt.timestamp_ms, stage, webhook })
    }

    /// Work on a record begins. Returns false while the partition drains, or if this process may have lost it: then
    /// nothing may be started.
    pub(super) fn begin_work(&self) -> bool {
        if self.is_lost() {
            return false;
        }
        let mut state = self.state();
        let may_start = !state.draining && !state.closed;
        state.in_flight += usize::from(may_start);
        may_start
    }

    /// Work on a record ends.
    pub(super) fn end_work(&self) {
        let mut state = self.state();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            self.quiet.notify_all();
        }
    }

    /// Every part of the record at `offset` is settled. Ignored if the record belongs to an earlier `generation` of the
    /// log, or if the partition is closed.
    pub(super) fn settle(&self, generation: u64, offset: i64) {
        let mut state = self.state();
        if !state.closed && state.generation == generation {
            state.offsets.settle(offset);
        }
        // What is settled in front needs no remembering; the rest is bounded by the offsets that are open.
        while state.receipts.front().is_some_and(|first| first.strong_count() == 0) {
            state.receipts.pop_front();
        }
    }

    /// Records between the watermark and the last one read.
    #[must_use]
    pub fn open_offsets(&self) -> usize {
        self.state().offsets.count()
    }

    /// What to commit, with its note, if that has changed since the last commit.
    #[must_use]
    pub fn to_commit(&self) -> Option<(i64, String)> {
        let state = self.state();
        if state.closed {
            return None;
        }
        let watermark = state.offsets.commit()?;
        // An operator's reset is remembered by nothing but the commit without our note: it stays until the marks that it made
        // void are gone, or until there is another offset to commit.
        let is_reset = self.marks_are_void && state.committed.as_ref().is_some_and(|(at, _)| *at == watermark.offset);
        if is_reset && !self.predecessor.initialized() {
            return None;
        }
        let commit = (watermark.offset, commit_note::encode(&watermark));
        (state.committed.as_ref() != Some(&commit)).then_some(commit)
    }

    /// The broker has the commit. Gives the stream id up to which marks can be trimmed.
    pub fn committed(&self, offset: i64, note: String) -> Option<String> {
        let mut state = self.state();
        state.committed = Some((offset, note));
        let mut passed = None;
        let current = state.generation;
        // What speaks of a log before this one is passed by any commit.
        let is_passed = |(generation, entry): &(u64, MarkEntry)| *generation < current || entry.highest < offset;
        while state.entries.front().is_some_and(is_passed) {
            passed = state.entries.pop_front().map(|(_, entry)| entry.id);
        }
        passed
    }

    /// An entry was added to the stream of marks.
    pub fn marked(&self, entry: MarkEntry) {
        let mut state = self.state();
        // One that is higher than anything read of this log was made for the log before it.
        let is_of_this_log = state.offsets.end().is_none_or(|end| entry.highest < end);
        let generation = if is_of_this_log { state.generation } else { state.generation.saturating_sub(1) };
        state.entries.push_back((generation, entry));
    }

    /// Entries that a predecessor left in the stream of marks. They may speak of offsets that aren't read yet.
    pub fn inherited(&self, entries: &[MarkEntry]) {
        let mut state = self.state();
        let generation = state.generation;
        state.entries.extend(entries.iter().map(|entry| (generation, entry.clone())));
    }

    /// The lowest offset that isn't settled, and one past the highest that was read; None before anything was read.
    #[must_use]
    pub fn span(&self) -> Option<(i64, i64)> {
        let state = self.state();
        Some((state.offsets.watermark()?, state.offsets.end()?))
    }

    /// Nothing of it was read yet: this is where reading begins. `committed` is the metadata of a commit of that offset.
    pub fn begins_at(&self, offset: i64, committed: Option<&str>) {
        let mut state = self.state();
        state.offsets.begin(offset);
        state.committed = committed.map(|metadata| (offset, metadata.to_owned()));
    }

    /// Whether this process may have lost it without knowing, by standing still.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.standstill.has_been_since(self.epoch)
    }

    /// Nothing is started any more.
    pub fn drain(&self) {
        self.state().draining = true;
    }

    /// Waits until nothing is in flight, no longer than `deadline`; how much still is.
    pub fn wait_until_quiet(&self, deadline: Instant) -> usize {
        let mut state = self.state();
        while state.in_flight > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            state = self.quiet.wait_timeout(state, left).expect("nothing panics while it holds a partition's state").0;
        }
        state.in_flight
    }

    /// What finishes from now on is ignored.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Whether it isn't ours any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(note: Option<CommitNote>) -> Arc<Partition> {
        let committed = Committed { note, marks_are_void: false };
        let standstill = Standstill::watch(std::time::Duration::from_secs(60)).unwrap();
        Arc::new(Partition::new("t".into(), 0, committed, standstill))
    }

    fn commit_of(partition: &Partition) -> Option<i64> {
        partition.to_commit().map(|(offset, _)| offset)
    }

    #[test]
    fn entries_of_an_older_log_do_not_keep_newer_ones_from_being_trimmed() {
        let partition = partition(None);
        let old = partition.open(Offset(50), TimestampMs(0)).unwrap();
        partition.marked(MarkEntry { id: "1-0".into(), highest: 50 });
        let new = partition.open(Offset(0), TimestampMs(9)).unwrap();
        // Its attempt ended before the log was made anew, and it is recorded only now.
        old.settle();
        partition.marked(MarkEntry { id: "2-0".into(), highest: 50 });
        partition.marked(MarkEntry { id: "3-0".into(), highest: 0 });
        new.settle();
        assert_eq!(partition.committed(1, String::new()).as_deref(), Some("3-0"));
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
        assert_eq!(partition.to_commit(), None, "nothing new is committed again");
    }

    #[test]
    fn what_holds_the_watermark_is_the_lowest_open_record_and_where_it_is() {
        let partition = partition(None);
        let (first, second) =
            (partition.open(Offset(5), TimestampMs(70)).unwrap(), partition.open(Offset(6), TimestampMs(80)).unwrap());
        let webhook = WebhookId(uuid::Uuid::from_u128(1));
        first.note(Stage::Sending, webhook);
        let holding = Blocker { offset: 5, timestamp_ms: 70, stage: Stage::Sending, webhook: Some(webhook) };
        assert_eq!(partition.holding(), Some(holding));
        first.settle();
        drop(first);
        let holding = Blocker { offset: 6, timestamp_ms: 80, stage: Stage::Queued, webhook: None };
        assert_eq!(partition.holding(), Some(holding));
        second.settle();
        assert_eq!(partition.holding(), None);
    }

    #[test]
    fn what_finishes_after_a_revoke_is_ignored() {
        let partition = partition(None);
        let receipt = partition.open(Offset(5), TimestampMs(0)).unwrap();
        partition.close();
        receipt.settle();
        assert_eq!(partition.to_commit(), None);
        assert!(receipt.start().is_none());
    }

    #[test]
    fn a_drain_starts_nothing_and_waits_for_what_is_in_flight() {
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
    fn a_predecessors_note_is_believed_only_of_the_same_log() {
        let note = CommitNote { stamp_ms: Some(77), settled: vec![(6, 7)] };
        let same = partition(Some(note.clone()));
        assert!(
            same.open(Offset(5), TimestampMs(77)).is_some()
                && same.open(Offset(6), TimestampMs(80)).is_none()
                && same.open(Offset(8), TimestampMs(90)).is_some()
        );
        let anew = partition(Some(note));
        assert!(anew.open(Offset(5), TimestampMs(78)).is_some() && anew.open(Offset(6), TimestampMs(80)).is_some());
    }

    #[test]
    fn a_log_made_anew_forgets_what_was_known_of_it() {
        let partition = partition(None);
        let old = partition.open(Offset(50), TimestampMs(0)).unwrap();
        let new = partition.open(Offset(0), TimestampMs(9)).unwrap();
        old.settle();
        assert_eq!(partition.to_commit().unwrap().0, 0);
        new.settle();
        assert_eq!(partition.to_commit().unwrap().0, 1);
    }
}
