//! How far a replay is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::replay;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Tells how far it is.
pub struct Progress {
    bar: Option<ProgressBar>,
    verb: &'static str,
    began: Instant,
    told: Instant,
    reading_marks: bool,
}

impl Progress {
    /// Of a replay, or of one that only counts.
    pub fn new(dry_run: bool) -> Self {
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} records, {eta} left")
            .expect("the template is read by a test")
            .progress_chars("=> ");
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0).with_style(style));
        let now = Instant::now();
        let verb = if dry_run { "found" } else { "replayed" };
        Self { bar, verb, began: now, told: now, reading_marks: true }
    }

    /// Now.
    pub fn tell(&mut self, now: replay::Progress) {
        if self.reading_marks && !now.reading_marks {
            self.reading_marks = false;
            self.began = Instant::now();
            if let Some(bar) = &self.bar {
                bar.reset();
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_length(now.total);
            bar.set_position(now.read);
            bar.set_message(self.message(now));
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let left = self.left(now).map_or(String::new(), |left| format!(", {left} s left"));
            eprintln!("{}; {} of {} records looked at{left}", self.message(now), now.read, now.total);
        }
    }

    /// It is over.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn message(&self, now: replay::Progress) -> String {
        if now.reading_marks {
            return "reading what was replayed before".to_owned();
        }
        let rate = now.replayed as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        format!("{} {}, {rate:.0} a second", self.verb, now.replayed)
    }

    /// Whole seconds, if it goes on like this.
    fn left(&self, now: replay::Progress) -> Option<u64> {
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
    fn a_message_counts_and_says_how_fast() {
        let mut progress = Progress::new(false);
        progress.tell(replay::Progress { reading_marks: true, read: 1, total: 2, replayed: 0 });
        let now = replay::Progress { reading_marks: false, read: 50, total: 100, replayed: 20 };
        progress.tell(now);
        assert!(progress.message(now).starts_with("replayed 20, "));
        assert!(progress.left(now).is_some());
        assert_eq!(progress.left(replay::Progress::default()), None);
    }
}
