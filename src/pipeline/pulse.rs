//! Whether the threads that read from Kafka still move.
//!
//! A thread that hangs in a client library hangs for good, and only a new process helps. `/healthz` reports it, so that
//! whoever supervises the process restarts it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The beats of all threads that have to move. Clones share them.
#[derive(Debug, Clone)]
pub struct Pulse {
    began: Instant,
    threads: Arc<Mutex<Vec<Beats>>>,
}

/// The beats of one thread. It is no longer watched once this is dropped.
#[derive(Debug)]
pub struct Heart {
    began: Instant,
    last_ms: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Beats {
    thread: &'static str,
    /// The last beat, in milliseconds since the pulse began.
    last_ms: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { began: Instant::now(), threads: Arc::default() }
    }
}

impl Pulse {
    /// Begins to watch a thread.
    #[must_use]
    pub fn watch(&self, thread: &'static str) -> Heart {
        let heart = Heart { began: self.began, last_ms: Arc::default() };
        heart.beat();
        let mut threads = self.threads.lock().expect("no code panics while it holds this lock");
        threads.push(Beats { thread, last_ms: heart.last_ms.clone() });
        heart
    }

    /// The threads without a beat for longer than `longest`, each with the time since its last one.
    #[must_use]
    pub fn stuck(&self, longest: Duration) -> Vec<(&'static str, Duration)> {
        let mut threads = self.threads.lock().expect("no code panics while it holds this lock");
        threads.retain(|one| Arc::strong_count(&one.last_ms) > 1);
        let now = self.began.elapsed();
        let since = |one: &Beats| now.saturating_sub(Duration::from_millis(one.last_ms.load(Ordering::Relaxed)));
        threads.iter().map(|one| (one.thread, since(one))).filter(|(_, since)| *since > longest).collect()
    }
}

impl Heart {
    /// The thread moves.
    pub fn beat(&self) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_stuck_until_it_moves_again_or_ends() {
        let pulse = Pulse::default();
        let (one, other) = (pulse.watch("one"), pulse.watch("other"));
        std::thread::sleep(Duration::from_millis(20));
        other.beat();
        let longest = Duration::from_millis(10);
        assert_eq!(pulse.stuck(longest).iter().map(|(thread, _)| *thread).collect::<Vec<_>>(), ["one"]);
        one.beat();
        assert!(pulse.stuck(longest).is_empty());
        drop((one, other));
        std::thread::sleep(Duration::from_millis(20));
        assert!(pulse.stuck(longest).is_empty());
    }
}
