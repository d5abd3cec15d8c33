//! The progress of a replay: a bar on a terminal, elsewhere a line every few seconds.

use std::time::{Duration, Instant};

use crate::cli::output::{Bar, note};
use crate::replay;

/// The time between two lines where standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of a replay on standard error.
pub struct Progress {
    bar: Bar,
    verb: &'static str,
    began: Instant,
    last_line_at: Instant,
    reading_marks: bool,
}

impl Progress {
    /// The progress of a replay, or of one that only counts.
    pub fn new(dry_run: bool) -> Self {
        let bar = Bar::new(0, "{msg} [{wide_bar}] {pos}/{len} records, {eta} left");
        let now = Instant::now();
        let verb = if dry_run { "found" } else { "replayed" };
        Self { bar, verb, began: now, last_line_at: now, reading_marks: true }
    }

    /// Shows `now`. Where there is no bar, prints at most one line per [`LINE_EVERY`].
    pub fn show(&mut self, now: replay::Progress) {
        if self.reading_marks && !now.reading_marks {
            self.reading_marks = false;
            self.began = Instant::now();
            self.bar.reset();
        }
        if self.bar.is_shown() {
            self.bar.show(now.read, now.total, &self.message(now));
        } else if self.last_line_at.elapsed() >= LINE_EVERY {
            self.last_line_at = Instant::now();
            let left = self.seconds_left(now).map_or(String::new(), |left| format!(", {left} s left"));
            note(&format!("{}; {} of {} records looked at{left}", self.message(now), now.read, now.total));
        }
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.bar.end();
    }

    fn message(&self, now: replay::Progress) -> String {
        if now.reading_marks {
            return "reading what was replayed before".to_owned();
        }
        let rate = now.replayed as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        format!("{} {}, {rate:.0} a second", self.verb, now.replayed)
    }

    /// The remaining time in whole seconds, at the average pace so far.
    fn seconds_left(&self, now: replay::Progress) -> Option<u64> {
        if now.read == 0 {
            return None;
        }
        let per_record = self.began.elapsed().as_secs_f64() / now.read as f64;
        Some((per_record * now.total.saturating_sub(now.read) as f64).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_the_count_and_the_rate() {
        let mut progress = Progress::new(false);
        progress.show(replay::Progress { reading_marks: true, read: 1, total: 2, replayed: 0 });
        let now = replay::Progress { reading_marks: false, read: 50, total: 100, replayed: 20 };
        progress.show(now);
        assert!(progress.message(now).starts_with("replayed 20, "));
        assert!(progress.seconds_left(now).is_some());
        assert_eq!(progress.seconds_left(replay::Progress::default()), None);
    }
}
