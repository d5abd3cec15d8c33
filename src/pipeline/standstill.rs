//! Whether this process stood still: suspended by a signal, a debugger or a frozen machine.
//!
//! A process that stood still for longer than its group waits for it has lost its partitions, and doesn't know it yet
//! when it wakes. Whatever it starts then is started twice. So each start compares the clock with a beat that a thread of
//! its own keeps, and partitions from before a standstill start nothing more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often the thread beats.
const BEAT: Duration = Duration::from_millis(100);

/// The beat of this process.
#[derive(Debug)]
pub struct Standstill {
    began: Instant,
    /// When the thread last beat, in milliseconds since `began`.
    beat_ms: AtomicU64,
    /// How often the process stood still for too long.
    epoch: AtomicU64,
    longest: Duration,
}

impl Standstill {
    /// Keeps the beat on a thread of its own for as long as someone holds this. A pause of more than `longest` is a
    /// standstill.
    ///
    /// # Errors
    /// Where no thread can be made.
    pub fn watch(longest: Duration) -> std::io::Result<Arc<Self>> {
        let watched = Arc::new(Self::new(longest));
        let weak = Arc::downgrade(&watched);
        std::thread::Builder::new().name("beat".to_owned()).spawn(move || keep(&weak))?;
        Ok(watched)
    }

    fn new(longest: Duration) -> Self {
        Self { began: Instant::now(), beat_ms: AtomicU64::new(0), epoch: AtomicU64::new(0), longest }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_late(&self) -> Option<Duration> {
        let pause_ms = self.now_ms().saturating_sub(self.beat_ms.load(Ordering::Acquire));
        Some(Duration::from_millis(pause_ms)).filter(|pause| *pause > self.longest)
    }

    fn beat(&self) {
        if let Some(pause) = self.is_late() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            tracing::error!(
                stood_still_ms = pause.as_millis() as u64,
                "this process stood still for longer than its group waits: its partitions are given up"
            );
        }
        self.beat_ms.store(self.now_ms(), Ordering::Release);
    }

    /// The number of standstills so far. What was assigned under another number is lost.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether the process has stood still since `epoch`, noticed by the thread yet or not.
    #[must_use]
    pub fn has_been_since(&self, epoch: u64) -> bool {
        self.is_late().is_some() || self.epoch() != epoch
    }
}

fn keep(watched: &Weak<Standstill>) {
    while let Some(watched) = watched.upgrade() {
        watched.beat();
        drop(watched);
        std::thread::sleep(BEAT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pause_counts_before_and_after_the_thread_has_noticed_it() {
        let still = Standstill::new(Duration::from_millis(20));
        still.beat();
        assert!(!still.has_been_since(0));
        std::thread::sleep(Duration::from_millis(40));
        assert!(still.has_been_since(0), "before it is noticed");
        still.beat();
        assert!(still.has_been_since(0) && !still.has_been_since(still.epoch()), "what is assigned now is ours");
    }
}
