//! The poll threads. Each one owns a consumer, reads its records and hands them to the fan-out in batches.
//!
//! Rebalances run on these threads, inside `poll`. They may wait for tokio tasks there, because no task runs on these
//! threads.

mod client;
mod committing;
mod coverage;
mod group;
pub(super) mod intake;
mod peek;
mod rebalance;
mod regulating;
mod watchdog;
mod watching;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::assigned::Assigned;
use super::incoming::Batch;
use super::pulse::{Heart, Pulse};
use super::standstill::Standstill;
use crate::conditions::{Conditions, REMIND_EVERY};
use crate::config::Config;
use crate::kafka::clients;
use crate::metrics;
use crate::store::marks::MarkStreams;
use client::{Blueprint, Client};
pub use group::Group;
pub use intake::Intake;
use intake::Record;

/// The longest that a poll waits, and so the longest delay before the thread notices a pause or the end.
const POLL_MAX: Duration = Duration::from_millis(50);
/// The most records that are read before others are released or handed over.
const READ_MAX: usize = 1_000;
/// The longest wait for a full pipeline before consumption is paused. A pause discards the records that the client has
/// read ahead, so a short wait is cheaper.
const PAUSE_AFTER: Duration = Duration::from_millis(200);

/// The wait of each step while consumption is paused.
const BLOCKED_WAIT: Duration = Duration::from_millis(10);

/// The time that the group may take to report lost partitions after a standstill. Afterwards this member joins
/// again by itself.
const REJOIN_AFTER: Duration = Duration::from_secs(3);

/// The parts that a poll thread shares with the rest of the process.
pub struct Setup {
    /// The configuration.
    pub config: Arc<Config>,
    /// The channel to the fan-out.
    pub batches: mpsc::Sender<Batch>,
    /// The list of the partitions that are assigned to this process.
    pub assigned: Arc<Assigned>,
    /// The streams of marks. A commit trims them.
    pub marks: MarkStreams,
    /// Detects standstills of this process.
    pub standstill: Arc<Standstill>,
    /// The conditions that show an outage.
    pub conditions: Conditions,
    /// Shows that the thread moves.
    pub pulse: Pulse,
    /// Cancelled to drain and end the thread.
    pub stop: CancellationToken,
    /// Dropped when the thread ends, even by a panic.
    pub ended: DropGuard,
}

/// Starts the thread. It returns how many deliveries were still in flight when the drain's time was over.
///
/// # Errors
/// Fails if the consumer or a thread can't be created.
pub fn start(group: Group, setup: Setup) -> anyhow::Result<JoinHandle<usize>> {
    let Group { thread_name, group_id, topics, reads, intake } = group;
    let config = &setup.config;
    let client = clients::consumer(config, &group_id);
    let parts = rebalance::Parts {
        group: group_id,
        drain_timeout: config.worker.drain_timeout,
        marks: setup.marks,
        runtime: tokio::runtime::Handle::current(),
        registry: setup.assigned,
        standstill: setup.standstill.clone(),
        // If the operator has set another reset policy, nothing is committed before a record is settled.
        begins_at_oldest: client.get("auto.offset.reset") == Some("earliest"),
        conditions: setup.conditions.clone(),
    };
    let blueprint = Blueprint {
        thread_name,
        config: client,
        topics,
        reads,
        parts,
        commit_interval: config.kafka.commit_interval,
        stall_after: config.kafka.stall_after,
        conditions: setup.conditions,
    };
    let thread = Consume {
        client: Client::start(&blueprint)?,
        blueprint,
        intake,
        runtime: tokio::runtime::Handle::current(),
        batches: setup.batches,
        pending: Batch::default(),
        blocked: false,
        open_offsets_max: config.kafka.open_offsets_max,
        drain_timeout: config.worker.drain_timeout,
        epoch: setup.standstill.epoch(),
        standstill: setup.standstill,
        given_up_at: None,
        heart: setup.pulse.watch(thread_name),
        stop: setup.stop,
        away_logged_at: None,
        is_fatal: false,
    };
    let handle = std::thread::Builder::new().name(thread_name.to_owned()).spawn(move || {
        let _ended = setup.ended;
        thread.run()
    });
    handle.context("a thread for the consumer")
}

struct Consume {
    client: Client,
    blueprint: Blueprint,
    intake: Intake,
    runtime: tokio::runtime::Handle,
    batches: mpsc::Sender<Batch>,
    /// The records that the pipeline has had no room for yet.
    pending: Batch,
    /// Whether all partitions are paused, because the pipeline has had no room for long.
    blocked: bool,
    open_offsets_max: usize,
    drain_timeout: Duration,
    standstill: Arc<Standstill>,
    /// The number of standstills that were handled.
    epoch: u64,
    /// The time when the partitions were given up after a standstill.
    given_up_at: Option<Instant>,
    heart: Heart,
    stop: CancellationToken,
    /// When an unavailable broker was last logged.
    away_logged_at: Option<Instant>,
    /// Whether the consumer has had a fatal error. Only a new process can go on.
    is_fatal: bool,
}

impl Consume {
    fn run(mut self) -> usize {
        while !self.stop.is_cancelled() && !self.is_fatal {
            self.heart.beat();
            self.read();
            self.hand_over();
            self.regulate();
            self.after_standstill();
            if self.client.must_be_replaced.load(Ordering::Relaxed) {
                self.replace_consumer("reads nothing");
            }
        }
        let left = self.finish();
        // Dropping the consumer leaves the group.
        self.client.end();
        left
    }

    /// Drains and closes all partitions. Returns how many deliveries were still in flight when the time was over.
    fn finish(&self) -> usize {
        self.client.consumer.context().finish(&self.client.consumer, self.drain_timeout)
    }

    /// Replaces the consumer. Its partitions are drained first, so that the new one repeats nothing.
    fn replace_consumer(&mut self, reason: &str) {
        tracing::warn!(thread = self.blueprint.thread_name, "the consumer {reason}, so it is replaced");
        metrics::CONSUMERS_RENEWED.increment();
        self.finish();
        self.pending = Batch::default();
        self.given_up_at = None;
        match Client::start(&self.blueprint) {
            Ok(new) => {
                let old = std::mem::replace(&mut self.client, new);
                // A consumer that has stalled may hang when it is closed (rust-rdkafka issue 509). Its group then
                // removes it after the session timeout.
                let closing = std::thread::Builder::new().name("closing".to_owned()).spawn(move || old.end());
                if let Err(error) = closing {
                    tracing::warn!(%error, "the old consumer is closed by this thread");
                }
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a new consumer can't be created, so the process ends");
                self.is_fatal = true;
            }
        }
    }

    /// Reads until a batch or a window is full, or no further record is there. Polls at least once, even if the batch is full: a
    /// member that doesn't poll is removed from its group, and a poll returns no records while everything is paused.
    fn read(&mut self) {
        let mut wait = if self.blocked { BLOCKED_WAIT } else { self.intake.wait(POLL_MAX) };
        // Records that wait until they are due don't fill a batch, and with a large backlog there is always a further one.
        for _ in 0..READ_MAX {
            match self.client.consumer.poll(wait) {
                Some(Ok(message)) => {
                    if let Some(partition) = self.client.consumer.context().partition(&message) {
                        self.intake.take(&Record::of(&message), &partition, &mut self.pending);
                        if self.intake.is_full(&partition) || partition.open_offsets() >= self.open_offsets_max {
                            break;
                        }
                    }
                }
                Some(Err(error)) => {
                    self.is_fatal |= matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fatal));
                    self.report(&error);
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

    /// Gives up all partitions after a standstill, because other members have them by now. The group usually reports
    /// that and assigns partitions again. If it doesn't, because it waited longer than expected, this member leaves and
    /// joins again.
    fn after_standstill(&mut self) {
        let epoch = self.standstill.epoch();
        let context = self.client.consumer.context();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.pending = Batch::default();
            context.give_up();
            self.given_up_at = Some(Instant::now());
        }
        let Some(since) = self.given_up_at else { return };
        // A rebalance alone proves nothing, because a cooperative one may leave partitions that were given up with this
        // member.
        if context.has_all_of(&self.client.consumer) {
            self.given_up_at = None;
        } else if since.elapsed() >= REJOIN_AFTER {
            self.given_up_at = None;
            // A new consumer, because one that leaves and joins again within a rebalance may get no partitions any more.
            self.replace_consumer("has partitions that were given up after a standstill");
        }
    }

    /// Hands the batch to the fan-out. Waits a moment if the pipeline is full.
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

    /// Logs an error of the consumer. librdkafka reconnects by itself and repeats itself many times a second meanwhile,
    /// so an unavailable broker is logged once a minute.
    fn report(&mut self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
                if self.away_logged_at.is_none_or(|logged_at| logged_at.elapsed() >= REMIND_EVERY) {
                    self.away_logged_at = Some(Instant::now());
                    tracing::warn!(%error, "kafka is away, and consumption goes on when it is back");
                }
            }
            _ => tracing::error!(%error, "kafka consumer"),
        }
    }
}
