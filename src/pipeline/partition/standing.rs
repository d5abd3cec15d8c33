//! How far a partition has come, for metrics and for the watchdog.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Partition, State};

/// The parts of a partition's standing that its poll thread and its watching thread note.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// One past the last offset in the log, when the broker was last asked.
    log_end: Option<i64>,
    /// Since when the log has had records that were not read.
    behind_since: Option<Instant>,
    /// Since when the same record has been at the watermark.
    pub(super) blocked_since: Option<Instant>,
}

/// How far a partition has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The number of records that were read and are not settled.
    pub unsettled: usize,
    /// The number of records from the watermark to the last one that was read.
    pub open_offsets: usize,
    /// The number of records that were not read. None until the broker has named the end of the log.
    pub lag: Option<i64>,
    /// The timestamp of the oldest record that was read and is not settled, in Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// How long the log has had records that were not read.
    pub behind_for: Duration,
    /// How long the same record has blocked the watermark.
    pub blocked_for: Duration,
    /// When the next delivery of a retry tier is due, in Unix milliseconds.
    pub next_due_ms: Option<i64>,
}

impl Standing {
    /// The age of the oldest record that is not settled, as far as it is known. A record that was not read has no
    /// timestamp yet, so the time counts since when it has been seen to wait.
    #[must_use]
    pub fn oldest_age(&self, now_ms: i64) -> Duration {
        let of_read = self.oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest));
        Duration::from_millis(u64::try_from(of_read).unwrap_or(0)).max(self.behind_for)
    }
}

impl State {
    /// Begins to measure how long a record blocks the watermark, if another one blocks it than `before`.
    pub(super) fn watermark_moved(&mut self, before: Option<i64>) {
        let now = self.offsets.watermark().filter(|_| self.offsets.count() > 0);
        if now != before || self.noted.blocked_since.is_none() {
            self.noted.blocked_since = now.map(|_| Instant::now());
        }
    }
}

impl Partition {
    /// Notes the end of the log, as the broker has named it.
    pub fn log_ends_at(&self, end: i64) {
        let mut state = self.state();
        let is_behind = state.offsets.end().is_some_and(|read| end > read);
        let noted = &mut state.noted;
        noted.log_end = Some(end);
        noted.behind_since = if is_behind { noted.behind_since.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Notes when the next delivery of a retry tier is due, in Unix milliseconds.
    pub fn next_is_due_at(&self, next_due_ms: Option<i64>) {
        self.next_due_ms.store(next_due_ms.unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The end of the log when the broker was last asked.
    #[must_use]
    pub fn log_end(&self) -> Option<i64> {
        self.state().noted.log_end
    }

    /// How far it has come.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let state = self.state();
        let noted = &state.noted;
        let since = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| since.elapsed());
        // Before anything was read or committed, the whole log is unread, and its beginning is not known.
        let read = state.offsets.end();
        Standing {
            unsettled: state.offsets.unsettled(),
            open_offsets: state.offsets.count(),
            lag: noted.log_end.zip(read).map(|(end, read)| end.saturating_sub(read).max(0)),
            oldest_ms: state.offsets.oldest_ms(),
            behind_for: since(noted.behind_since),
            blocked_for: since(noted.blocked_since),
            next_due_ms: Some(self.next_due_ms.load(Ordering::Relaxed)).filter(|due| *due != i64::MAX),
        }
    }
}
