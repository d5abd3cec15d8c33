//! Commits offsets on a separate thread.
//!
//! rdkafka reports no result of an asynchronous commit (rust-rdkafka issue 856). A synchronous commit on the poll
//! thread would stop polling for a round trip, or for as long as the broker is away.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::rebalance::Rebalances;
use super::watchdog::Watchdog;

/// The thread that commits.
pub(super) struct Committing {
    stop: std::sync::mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// The longest wait at the end for a commit that is in flight.
const COMMITTING_ENDS_MAX: Duration = Duration::from_secs(2);

impl Committing {
    /// Starts the thread. It commits every `interval`.
    ///
    /// # Errors
    /// Fails if the thread can't be created.
    pub(super) fn start(
        name: &str,
        consumer: Arc<BaseConsumer<Rebalances>>,
        interval: Duration,
        mut watchdog: Watchdog,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name(format!("{name} commits"));
        let run = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                consumer.context().commit(&consumer);
                watchdog.look(&consumer);
            }
        };
        let thread = thread.spawn(run).context("a thread for commits")?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread, and waits a moment for it. The poll thread must be the last one to drop the consumer, because
    /// that drop leaves the group.
    pub(super) fn end(self) {
        drop(self.stop);
        let deadline = Instant::now() + COMMITTING_ENDS_MAX;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
