//! A log that goes back: its end was lost in an election, or the topic was created again.

use super::State;

impl State {
    /// Forgets what is known about the records from `offset` on, because others are there now. What is known about those
    /// below stays: they may still be in the log, and nobody else handles those that are open.
    pub(super) fn go_back(&mut self, offset: i64) {
        self.offsets.go_back(offset);
        self.generation += 1;
        self.went_back.retain(|(_, earlier)| *earlier < offset);
        self.went_back.push((self.generation, offset));
        self.note = None;
        for entry in &mut self.entries {
            entry.highest = entry.highest.min(offset - 1);
        }
    }

    /// Whether a record that was read in this generation is still in the log.
    pub(super) fn counts(&self, generation: u64, offset: i64) -> bool {
        self.went_back.iter().all(|(began, to)| generation >= *began || offset < *to)
    }
}
