//! One plain thread that owns a consumer and polls it: records in, offsets out.
//!
//! Rebalances run on this thread, inside of `poll`; waiting there for tokio's tasks is safe, since none of
//! them runs on it.

mod committing;
mod intake;
mod rebalance;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::assigned::Assigned;
use super::incoming::Batch;
use super::standstill::Standstill;
use crate::conditions::Conditions;
use crate::config::Config;
use crate::event;
use crate::kafka::clients;
use crate::store::marks::MarkStreams;
use crate::topics::Names;
use committing::Committing;
use intake::Record;
pub use intake::{Intake, Retries};
use rebalance::Rebalances;
use watchdog::Watchdog;

/// Longest that a poll waits: how soon a commit, a pause or the end is noticed.
const POLL_MAX: Duration = Duration::from_millis(50);
/// How long a full pipeline is waited for before consumption is paused: a pause drops what was read ahead.
const PAUSE_AFTER: Duration = Duration::from_millis(200);

/// How long each step waits while consumption is paused.
const BLOCKED_WAIT: Duration = Duration::from_millis(10);

/// How long the group may take to say that partitions are lost after a standstill, before this member joins anew by itself.
const REJOIN_AFTER: Duration = Duration::from_secs(3);

/// One of the two consumer groups: its name, what it subscribes to, and what it makes of its records.
pub struct Group {
    thread_name: &'static str,
    group_id: String,
    topics: Vec<String>,
    intake: Intake,
}

impl Group {
    /// The group that reads `task-events`.
    #[must_use]
    pub fn events(config: &Config, names: &Names) -> Self {
        Self {
            thread_name: "events",
            group_id: names.events_group().to_owned(),
            topics: vec![names.events().to_owned()],
            intake: Intake::Events { limits: event::Limits::new(config) },
        }
    }

    /// The group that reads the retry tiers and the replay topic.
    #[must_use]
    pub fn retries(config: &Arc<Config>, names: &Names) -> Self {
        Self {
            thread_name: "retries",
            group_id: names.retry_group(),
            // A pattern, so that the group also reads tiers that other settings left, or that are created while it runs.
            topics: vec![names.waiting_pattern()],
            intake: Intake::Retries(Retries::new(config)),
        }
    }

    /// Whether it reads `task-events`.
    #[must_use]
    pub fn reads_events(&self) -> bool {
        matches!(self.intake, Intake::Events { .. })
    }
}

/// What a poll thread shares with the rest of the process.
pub struct Setup {
    /// The configuration.
    pub config: Arc<Config>,
    /// Where records go.
    pub batches: mpsc::Sender<Batch>,
    /// The list of what is assigned to this process.
    pub assigned: Arc<Assigned>,
    /// The streams of marks: a commit trims them.
    pub marks: MarkStreams,
    /// Whether this process stood still.
    pub standstill: Arc<Standstill>,
    /// Where an outage shows.
    pub conditions: Conditions,
    /// Ends the thread, after a drain.
    pub stop: CancellationToken,
    /// Dropped when the thread ends, however it does.
    pub ended: DropGuard,
}

/// Starts the thread. Its result is how many deliveries were still in flight when the drain's time was over.
///
/// # Errors
/// Fails if the consumer or a thread can't be created.
pub fn start(group: Group, setup: Setup) -> anyhow::Result<JoinHandle<usize>> {
    let Group { thread_name, group_id, topics, intake } = group;
    let config = &setup.config;
    let client = clients::consumer(config, &group_id);
    let context = Rebalances::new(rebalance::Parts {
        group: group_id,
        drain_timeout: config.worker.drain_timeout,
        marks: setup.marks,
        runtime: tokio::runtime::Handle::current(),
        registry: setup.assigned,
        standstill: setup.standstill.clone(),
        // An operator who sets another reset policy means it: then nothing is committed before a record is settled.
        begins_at_oldest: client.get("auto.offset.reset") == Some("earliest"),
        conditions: setup.conditions.clone(),
    });
    let consumer: BaseConsumer<Rebalances> = client.create_with_context(context).context("kafka consumer")?;
    let subscribed: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&subscribed).context("kafka consumer: subscribe")?;
    let runtime = tokio::runtime::Handle::current();
    let consumer = Arc::new(consumer);
    let watchdog = Watchdog::new(config.kafka.stall_after, setup.conditions);
    let committing = Committing::start(thread_name, consumer.clone(), config.kafka.commit_interval, watchdog)?;
    let thread = Consume {
        consumer,
        committing,
        topics,
        intake,
        runtime,
        batches: setup.batches,
        pending: Batch::default(),
        blocked: false,
        open_offsets_max: config.kafka.open_offsets_max,
        drain_timeout: config.worker.drain_timeout,
        epoch: setup.standstill.epoch(),
        standstill: setup.standstill,
        given_up: None,
        stop: setup.stop,
        is_fatal: false,
    };
    let handle = std::thread::Builder::new().name(thread_name.to_owned()).spawn(move || {
        let _ended = setup.ended;
        thread.run()
    });
    handle.context("a thread for the consumer")
}

struct Consume {
    consumer: Arc<BaseConsumer<Rebalances>>,
    committing: Committing,
    topics: Vec<String>,
    intake: Intake,
    runtime: tokio::runtime::Handle,
    batches: mpsc::Sender<Batch>,
    /// What the pipeline had no room for yet.
    pending: Batch,
    /// The pipeline had no room for long: everything is paused.
    blocked: bool,
    open_offsets_max: usize,
    drain_timeout: Duration,
    standstill: Arc<Standstill>,
    /// Standstills that were dealt with.
    epoch: u64,
    /// When the partitions were given up after a standstill.
    given_up: Option<Instant>,
    stop: CancellationToken,
    /// librdkafka gave up on this consumer: only a new process can go on.
    is_fatal: bool,
}

impl Consume {
    fn run(mut self) -> usize {
        while !self.stop.is_cancelled() && !self.is_fatal {
            self.read();
            self.hand_over();
            self.regulate();
            self.after_standstill();
        }
        let left = self.consumer.context().finish(&self.consumer, self.drain_timeout);
        self.committing.end();
        // Dropping the consumer leaves the group; what is still assigned is closed by now.
        self.consumer.unsubscribe();
        left
    }

    /// Reads until a batch is full or nothing more is there. Polls at least once, however full it is: a member
    /// that doesn't poll is thrown out of its group, and while everything is paused a poll brings no record.
    fn read(&mut self) {
        let mut wait = if self.blocked { BLOCKED_WAIT } else { self.intake.wait(POLL_MAX) };
        loop {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    if let Some(partition) = self.consumer.context().partition(&message) {
                        self.intake.take(&Record::of(&message), &partition, &mut self.pending);
                    }
                }
                Some(Err(error)) => {
                    self.is_fatal |= matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fatal));
                    report(&error);
                }
                None => break,
            }
            if self.pending.is_full() {
                break;
            }
            wait = Duration::ZERO;
        }
        self.intake.release(self.open_offsets_max, &mut self.pending);
    }

    /// Gives up everything after a standstill: other members have it by now. The group says so itself, and assigns anew;
    /// if it doesn't, because it waited longer than expected, this member leaves and joins again.
    fn after_standstill(&mut self) {
        let epoch = self.standstill.epoch();
        let context = self.consumer.context();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.pending = Batch::default();
            context.give_up();
            self.given_up = Some(Instant::now());
        }
        let Some(since) = self.given_up else { return };
        // A rebalance alone says nothing: a cooperative one may leave the given-up partitions with this member.
        if context.has_all_of(&self.consumer) {
            self.given_up = None;
        } else if since.elapsed() >= REJOIN_AFTER {
            self.given_up = None;
            tracing::warn!("the group hasn't noticed the standstill: this member joins anew");
            self.consumer.unsubscribe();
            let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
            if let Err(error) = self.consumer.subscribe(&topics) {
                tracing::error!(%error, "this member can't join its group again; the process ends");
                self.is_fatal = true;
            }
        }
    }

    /// Hands the batch over, waiting a moment where the pipeline is full.
    fn hand_over(&mut self) {
        if self.pending.is_empty() {
            self.blocked = false;
            return;
        }
        let patience = if self.blocked { BLOCKED_WAIT } else { PAUSE_AFTER };
        let batches = &self.batches;
        let room = match batches.try_reserve() {
            Ok(room) => Some(room),
            Err(_) => {
                self.runtime.block_on(async { tokio::time::timeout(patience, batches.reserve()).await.ok()?.ok() })
            }
        };
        self.blocked = room.is_none();
        if let Some(room) = room {
            room.send(std::mem::take(&mut self.pending));
        }
    }

    /// Pauses what may not read on and resumes what may.
    fn regulate(&mut self) {
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        let partitions = self.consumer.context().partitions();
        self.intake.forget_closed();
        for partition in partitions {
            let wanted =
                self.blocked || self.intake.is_full(&partition) || partition.open_offsets() >= self.open_offsets_max;
            if partition.paused.swap(wanted, Ordering::Relaxed) != wanted {
                let list = if wanted { &mut pause } else { &mut resume };
                list.add_partition(&partition.topic, partition.number);
            }
        }
        for (list, change) in [(pause, "pause"), (resume, "resume")] {
            if list.count() == 0 {
                continue;
            }
            let done = if change == "pause" { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
            tracing::debug!(partitions = list.count(), change, "consumption regulated");
            if let Err(error) = done {
                tracing::warn!(%error, change, "consumption can't be regulated");
            }
        }
    }
}

/// librdkafka reconnects by itself; what it says is passed on once, at a level that fits.
fn report(error: &KafkaError) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
            tracing::warn!(%error, "kafka is away: consumption goes on when it is back");
        }
        _ => tracing::error!(%error, "kafka consumer"),
    }
}
