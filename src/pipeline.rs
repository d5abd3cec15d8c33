//! Joins the stages of the pipeline.
//!
//! A poll thread **consumes** and **decodes** records, and lets retries **wait** until they are due. The fan-out
//! **matches** each event with its webhooks, and the dispatcher **admits** their deliveries to their endpoints and
//! **sends** them. Deliveries that fail are **handed off** to a retry tier or the dead-letter topic. Deliveries whose
//! fate is decided are **settled** in Redis, and a second thread of the consumer **commits** their offsets.

pub mod announce;
pub mod assigned;
pub mod blocker;
pub mod breaker;
pub mod committed;
pub mod consume;
pub mod defer;
pub mod deliver;
pub mod disabling;
pub mod dispatch;
pub mod endpoint;
pub mod endpoints;
pub mod fan_out;
pub mod guarded;
pub mod hand_off;
pub mod handling;

pub mod incoming;
pub mod lane;
pub mod latency;
pub mod missing;
pub mod pace;
pub mod panics;
pub mod parking;
pub mod partition;
pub mod permits;
pub mod predecessors;
pub mod pulse;
pub mod receipt;
pub mod recipient;
pub mod recoveries;
pub mod send;
pub mod settle;
#[cfg(test)]
mod simulation;
pub mod slow_permits;
pub mod spread;
pub mod standstill;
pub mod unreadable;
pub mod unsupported;
pub mod window;

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::conditions::Conditions;
use crate::config::Config;
use crate::http::client::Client;
use crate::kafka::clients;
use crate::schedule::Schedule;
use crate::store::backoffs::Backoffs;
use crate::store::marks::MarkStreams;
use crate::store::recoveries::Recoveries;
use crate::store::settled::Recorder;
use crate::store::snapshot::Snapshots;
use crate::topics::Names;
use assigned::Assigned;
use consume::Group;
use disabling::Disabling;
use dispatch::Dispatcher;
use hand_off::{HandOff, Producing};
use predecessors::Predecessors;
use pulse::Pulse;
use standstill::Standstill;

/// The most batches that wait between a poll thread and its fan-out.
const BATCHES_MAX: usize = 4;

/// The edges of the pipeline: what it reads from and writes to.
#[allow(missing_docs, reason = "each field is what its type says")]
pub struct Edges {
    pub config: Arc<Config>,
    pub snapshots: Snapshots,
    pub producing: Producing,
    pub client: Client,
    pub recorder: Recorder,
    pub marks: MarkStreams,
    pub disabling: Disabling,
    pub backoffs: Backoffs,
    pub recoveries: Recoveries,
    pub conditions: Conditions,
    pub pulse: Pulse,
}

/// The tokens that end the parts of the pipeline.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// Cancelled to start the drain, at the end of which the poll threads end.
    pub stop: CancellationToken,
    /// Cancelled when the drain is over.
    pub drained: CancellationToken,
    /// Cancelled by the pipeline when a part that must keep running has ended.
    pub ended: CancellationToken,
}

/// A running pipeline.
pub struct Running {
    /// The poll threads. Each returns how many deliveries were still in flight when the drain's time was over.
    pub threads: Vec<JoinHandle<usize>>,
    /// The dispatcher, which has all open deliveries.
    pub dispatcher: Arc<Dispatcher>,
    /// The partitions that are assigned to this process.
    pub assigned: Arc<Assigned>,
}

/// Starts the stages, the last one first, because each one needs the next one.
///
/// # Errors
/// Fails if a Kafka client or a thread can't be created.
pub fn start(edges: Edges, ends: &Ends) -> anyhow::Result<Running> {
    let Edges {
        config,
        snapshots,
        producing,
        client,
        recorder,
        marks,
        disabling,
        backoffs,
        recoveries,
        conditions,
        pulse,
    } = edges;
    let names = Names::new(&config);

    // Settle: log, counts and marks go to Redis; then the offsets are released.
    let settler = settle::start(settle::Setup {
        recorder,
        marks: marks.clone(),
        redis: config.redis.clone(),
        snapshots: snapshots.clone(),
        conditions: conditions.clone(),
        ended: ends.ended.clone().drop_guard(),
    });
    // Hand off: failed deliveries go to a retry tier or the dead-letter topic.
    let hand_off = HandOff::new(producing, names.clone(), Schedule::new(&config.delivery).tiers());

    // Admit and send: permits, lanes, breakers, attempts.
    let (announcements, announced) = mpsc::channel(announce::WAITING_MAX);
    let dispatcher = Arc::new(Dispatcher::new(dispatch::Parts {
        config: config.clone(),
        snapshots,
        client,
        hand_off,
        settler,
        disabling,
        backoffs: backoffs.clone(),
        announcements,
        conditions: conditions.clone(),
    }));
    ends.keep(dispatcher.clone().sweep());
    ends.keep(announce::run(announced, backoffs, recoveries.clone()));
    ends.keep(recoveries::listen(dispatcher.clone(), recoveries));

    // Consume, decode and wait: a poll thread per group. Match: a fan-out per group. Commit: another thread per
    // group.
    let assigned = Arc::new(Assigned::default());
    let standstill =
        Standstill::watch(clients::standstill_max(&config)).context("can't start the standstill thread")?;
    let predecessors = Predecessors { marks: marks.clone(), conditions: conditions.clone() };
    let mut threads = Vec::with_capacity(2);
    for group in [Group::events(&config, &names), Group::retries(&config, &names)] {
        let (batches, decoded) = mpsc::channel(BATCHES_MAX);
        let parking = dispatcher.parking(group.reads_events());
        let fan_out = fan_out::run(dispatcher.clone(), predecessors.clone(), parking, decoded);
        let guard = ends.ended.clone().drop_guard();
        tokio::spawn(async move {
            let _ended = guard;
            fan_out.await;
        });
        threads.push(consume::start(
            group,
            consume::Setup {
                config: config.clone(),
                batches,
                assigned: assigned.clone(),
                marks: marks.clone(),
                standstill: standstill.clone(),
                conditions: conditions.clone(),
                pulse: pulse.clone(),
                stop: ends.stop.clone(),
                ended: ends.ended.clone().drop_guard(),
            },
        )?);
    }
    Ok(Running { threads, dispatcher, assigned })
}

impl Ends {
    /// Runs a task until the drain is over. If it panics, the process ends: it would go on without a part of its work, and
    /// nobody would notice.
    pub fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        let task = self.drained.clone().run_until_cancelled_owned(task);
        tokio::spawn(async move {
            if panics::caught(task).await.is_err() {
                ended.cancel();
            }
        });
    }
}
