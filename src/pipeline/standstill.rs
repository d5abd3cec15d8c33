//! Detects standstills: this process was suspended, by a signal or a debugger, or its machine was.
//!
//! A process that stands still for longer than its group waits loses its partitions, and doesn't know it when it goes
//! on. Every attempt that it starts then is made twice. Each start therefore compares the clock with the ticks of a
//! separate thread, and partitions that were assigned before a standstill start nothing more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::since_boot;

/// The time between two ticks of the thread.
const TICK: Duration = Duration::from_millis(100);

/// The ticks of this process, and the number of its standstills.
#[derive(Debug)]
pub struct Standstill {
    /// When it began, since the machine started. This clock goes on while the machine is suspended.
    began: Duration,
    /// The time of the last tick, in milliseconds since `began`.
    tick_ms: AtomicU64,
    /// The number of standstills so far.
    epoch: AtomicU64,
    longest: Duration,
}

impl Standstill {
    /// Starts a thread that ticks for as long as the returned value is held. A gap between two ticks that is longer
    /// than `longest` is a standstill.
    ///
    /// # Errors
    /// Fails if the thread can't be created.
    pub fn watch(longest: Duration) -> std::io::Result<Arc<Self>> {
        let watched = Arc::new(Self::new(longest));
        let weak = Arc::downgrade(&watched);
        std::thread::Builder::new().name("ticks".to_owned()).spawn(move || keep_ticking(&weak))?;
        Ok(watched)
    }

    fn new(longest: Duration) -> Self {
        Self { began: since_boot(), tick_ms: AtomicU64::new(0), epoch: AtomicU64::new(0), longest }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(since_boot().saturating_sub(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// The time since the last tick, if it is long enough for a standstill.
    fn pause(&self) -> Option<Duration> {
        let pause_ms = self.now_ms().saturating_sub(self.tick_ms.load(Ordering::Acquire));
        Some(Duration::from_millis(pause_ms)).filter(|pause| *pause > self.longest)
    }

    fn tick(&self) {
        if let Some(pause) = self.pause() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            tracing::error!(
                stood_still_ms = pause.as_millis() as u64,
                "this process stood still for longer than its group waits, so its partitions are given up"
            );
        }
        self.tick_ms.store(self.now_ms(), Ordering::Release);
    }

    /// The number of standstills so far. A partition that was assigned under another number is lost.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether the process has stood still since `epoch`, whether the thread has noticed it yet or not.
    #[must_use]
    pub fn has_been_since(&self, epoch: u64) -> bool {
        self.pause().is_some() || self.epoch() != epoch
    }
}

fn keep_ticking(watched: &Weak<Standstill>) {
    while let Some(watched) = watched.upgrade() {
        watched.tick();
        drop(watched);
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_counts_before_and_after_the_thread_notices_it() {
        let standstill = Standstill::new(Duration::from_millis(20));
        standstill.tick();
        assert!(!standstill.has_been_since(0));
        std::thread::sleep(Duration::from_millis(40));
        assert!(standstill.has_been_since(0), "before it is noticed");
        standstill.tick();
        assert!(
            standstill.has_been_since(0) && !standstill.has_been_since(standstill.epoch()),
            "a partition that is assigned now is ours"
        );
    }
}
