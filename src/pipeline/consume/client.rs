//! A consumer with its two helping threads, as one part that can be replaced.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::committing;
use super::coverage::Coverage;
use super::group::Reads;
use super::peek::Peek;
use super::rebalance::{Parts, Rebalances};
use super::watchdog::Watchdog;
use super::watching;
use crate::conditions::Conditions;

/// The longest wait for each helping thread when they end. A thread may be in a call to a broker that is away.
const THREADS_END_MAX: Duration = Duration::from_secs(2);

/// How a consumer is made.
#[derive(Clone)]
pub(super) struct Blueprint {
    pub(super) thread_name: &'static str,
    pub(super) config: ClientConfig,
    pub(super) topics: Vec<String>,
    /// Whether the group reads a topic.
    pub(super) reads: Reads,
    pub(super) parts: Parts,
    pub(super) commit_interval: Duration,
    pub(super) stall_after: Duration,
    pub(super) conditions: Conditions,
}

/// A consumer that has joined its group, with the thread that commits and the thread that watches its progress.
pub(super) struct Client {
    pub(super) consumer: Arc<BaseConsumer<Rebalances>>,
    /// Set by the watchdog when the consumer has to be replaced.
    pub(super) must_be_replaced: Arc<AtomicBool>,
    committing: Helper,
    watching: Helper,
}

/// A thread that works at intervals until it is told to stop.
pub(super) struct Helper {
    stop: std::sync::mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Client {
    /// Creates the consumer, subscribes it, and starts its threads.
    ///
    /// # Errors
    /// Fails if the consumer or a thread can't be created.
    pub(super) fn start(blueprint: &Blueprint) -> anyhow::Result<Self> {
        let context = Rebalances::new(blueprint.parts.clone());
        let consumer: BaseConsumer<Rebalances> =
            blueprint.config.create_with_context(context).context("kafka consumer")?;
        let topics: Vec<&str> = blueprint.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).context("kafka consumer: subscribe")?;
        let consumer = Arc::new(consumer);
        let must_be_replaced = Arc::<AtomicBool>::default();
        let watchdog = Watchdog::new(blueprint.stall_after, blueprint.conditions.clone(), must_be_replaced.clone());
        let name = blueprint.thread_name;
        let committing = committing::start(name, consumer.clone(), blueprint.commit_interval)?;
        let coverage = Coverage::new(blueprint, must_be_replaced.clone());
        let peek = Peek::new(blueprint.config.clone());
        let watching = watching::start(name, consumer.clone(), watchdog, peek, coverage)?;
        Ok(Self { consumer, must_be_replaced, committing, watching })
    }

    /// Ends the threads and leaves the group. All partitions must be closed by now.
    pub(super) fn end(self) {
        self.committing.end();
        self.watching.end();
        // The drop leaves the group, and it may hang (rust-rdkafka issue 509), so it doesn't happen on the poll thread
        // of a process that goes on.
        self.consumer.unsubscribe();
    }
}

impl Helper {
    /// Starts a thread that does `work` at each `interval`.
    ///
    /// # Errors
    /// Fails if the thread can't be created.
    pub(super) fn start(
        name: String,
        interval: Duration,
        mut work: impl FnMut() + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let run = move || {
            while stopped.recv_timeout(interval) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                work();
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(run).context("a thread beside the consumer")?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread, and waits a moment for it. The poll thread must be the last one to drop the consumer, because
    /// that drop leaves the group.
    fn end(self) {
        drop(self.stop);
        let deadline = Instant::now() + THREADS_END_MAX;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
