//! Making fates durable: the delivery log and the marks in one batch, then the offsets.
//!
//! While Redis takes nothing, nothing is sent either: what is sent couldn't be recorded, and would be sent again after
//! a crash.

mod batch_bytes;
mod refusals;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::handling::Handling;
use super::partition::Partition;
use crate::clock::now_ms;
use crate::conditions::{Conditions, Severity};
use crate::config;
use crate::delivery::{Attempt, Delivery, Fate};
use crate::position::{Offset, TimestampMs};
use crate::store::log::{self, Logged};
use crate::store::marks::{self, Mark, MarkEntry, MarkStreams, NewEntry, Settled};
use crate::store::settled::{self, Recorder};
use crate::store::snapshot::Snapshots;
use crate::store::{is_away, refuses_writes};
use crate::webhook::WebhookId;
use batch_bytes::BatchBytes;
use refusals::Refusals;

/// Settlements that go into one batch, and that may wait for one.
const BATCH_MAX: usize = 256;
const WAITING_MAX: usize = 4_096;
/// How long nothing may be recorded before the process isn't ready.
const LOUD_AFTER: Duration = Duration::from_secs(2);
/// Bytes of a settlement beside its log entry, roughly.
const SETTLEMENT_BYTES: usize = 128;

/// An attempt on its way into the log.
#[derive(Debug)]
struct Line {
    /// Grows with each line of this process; given when it is taken up.
    number: u64,
    webhook: WebhookId,
    meta: Vec<u8>,
    body: Bytes,
    succeeded: bool,
}

/// One part of a record whose fate is known.
#[derive(Debug)]
pub struct Settlement {
    mark: Mark,
    log: Option<Line>,
    handling: Handling,
}

impl Settlement {
    /// After an attempt: it goes into the log.
    #[must_use]
    pub fn attempted(delivery: &Delivery, attempt: &Attempt, fate: Fate, handling: Handling) -> Self {
        let line = Line {
            number: 0,
            webhook: delivery.webhook_id,
            meta: Logged::new(delivery, attempt, fate.due_at_ms()).to_json(),
            body: delivery.body.clone(),
            succeeded: attempt.failure.is_none(),
        };
        Self { log: Some(line), ..Self::silent(Settled::Delivery(delivery.id), handling) }
    }

    /// Without an attempt.
    #[must_use]
    pub fn silent(what: Settled, handling: Handling) -> Self {
        let receipt = &handling.receipt;
        Self { mark: Mark::of(what, Offset(receipt.offset), TimestampMs(receipt.timestamp_ms)), log: None, handling }
    }

    fn bytes(&self) -> usize {
        SETTLEMENT_BYTES + self.log.as_ref().map_or(0, |line| line.meta.len() + line.body.len())
    }
}

/// Takes settlements.
#[derive(Clone)]
pub struct Settler {
    waiting: mpsc::Sender<Settlement>,
}

impl Settler {
    /// Hands one over; it is settled with the next batch.
    pub async fn settle(&self, settlement: Settlement) {
        if self.waiting.send(settlement).await.is_err() {
            tracing::debug!("the process ends: an offset stays open");
        }
    }
}

/// What settling needs.
#[allow(missing_docs, reason = "each is what its type says")]
pub struct Setup {
    pub recorder: Recorder,
    pub marks: MarkStreams,
    pub redis: config::Redis,
    /// Told when nothing can be recorded.
    pub snapshots: Snapshots,
    pub conditions: Conditions,
    /// Dropped when settling ends, however it does: without it offsets would stay open for ever, and nobody would know.
    pub ended: DropGuard,
}

/// Starts the task that settles. It ends when every [`Settler`] is gone.
#[must_use]
pub fn start(setup: Setup) -> Settler {
    let (waiting, batches) = mpsc::channel(WAITING_MAX);
    let Setup { recorder, marks, redis, snapshots, conditions, ended } = setup;
    let settling = Settling {
        recorder,
        marks,
        snapshots,
        refusals: Refusals::new(conditions.clone()),
        conditions,
        bytes: BatchBytes::new(redis.batch_bytes_max, redis.timeout),
        last_number: 0,
        cut: HashSet::new(),
        cut_since: Instant::now(),
    };
    tokio::spawn(async move {
        let _ended = ended;
        settling.run(batches).await;
    });
    Settler { waiting }
}

struct Settling {
    recorder: Recorder,
    marks: MarkStreams,
    snapshots: Snapshots,
    conditions: Conditions,
    refusals: Refusals,
    bytes: BatchBytes,
    last_number: u64,
    /// Webhooks whose log was cut by age since.
    cut: HashSet<WebhookId>,
    cut_since: Instant,
}

/// A batch, and which partitions its entries of marks are of.
struct Prepared<'a> {
    batch: settled::Batch<'a>,
    partitions: Vec<(Arc<Partition>, i64)>,
    bytes: usize,
}

impl Settling {
    async fn run(mut self, mut waiting: mpsc::Receiver<Settlement>) {
        let mut taken = Vec::with_capacity(BATCH_MAX);
        // What arrives while a batch is on its way makes up the next one: batches grow with the load.
        while waiting.recv_many(&mut taken, BATCH_MAX).await > 0 {
            for line in taken.iter_mut().filter_map(|settlement| settlement.log.as_mut()) {
                self.last_number += 1;
                line.number = self.last_number;
            }
            while !taken.is_empty() {
                let count = self.write(&taken).await;
                // Record first, release second: a crash between the two repeats a delivery, the other order loses one.
                for settlement in taken.drain(..count) {
                    settlement.handling.receipt.settle();
                    drop(settlement.handling);
                }
            }
        }
    }

    /// Writes as many of the first as fit into a batch, until Redis has them. How many that are.
    async fn write(&mut self, settlements: &[Settlement]) -> usize {
        let name = "redis: recording attempts";
        let mut outage = self.conditions.outage(name, Severity::NotReady).loud_after(LOUD_AFTER);
        let mut is_withheld = false;
        loop {
            let count = self.bytes.fit(settlements.iter().map(Settlement::bytes));
            let prepared = self.prepare(&settlements[..count]);
            let began = Instant::now();
            let error = match self.recorder.record(&prepared.batch, now_ms()).await {
                Ok(recorded) => {
                    self.bytes.answered(began.elapsed());
                    self.recorded(prepared, recorded);
                    if is_withheld {
                        self.snapshots.settling(None);
                    }
                    return count;
                }
                Err(error) => error,
            };
            if error.is_timeout() {
                self.bytes.timed_out(prepared.bytes);
                // What of it is still to be sent would stand before the next try.
                self.recorder.renew_connection();
            }
            let reason = match refuses_writes(&error) {
                Some(why) => format!("reads but refuses writes: {why}"),
                None if is_away(&error) => format!("attempts can't be recorded: {error}"),
                None => format!("attempts can't be recorded, and Redis isn't away: {error}"),
            };
            is_withheld = true;
            outage.failed(format_args!("{reason}; their offsets stay"));
            self.snapshots.settling(Some(reason));
            outage.wait().await;
        }
    }

    fn recorded(&mut self, prepared: Prepared<'_>, recorded: settled::Recorded) {
        let Prepared { batch, partitions, .. } = prepared;
        debug_assert_eq!(recorded.entries.len(), partitions.len());
        for (id, (partition, highest)) in recorded.entries.into_iter().zip(partitions) {
            if let Some(id) = id {
                partition.marked(MarkEntry { id, highest });
            }
        }
        let logs: Vec<String> = match recorded.refused.is_empty() && self.refusals.is_empty() {
            true => Vec::new(),
            false => batch.lines.iter().map(|line| self.recorder.log_key(line.webhook)).collect(),
        };
        let used = logs.iter().chain(batch.marks.iter().map(|marks| &marks.key)).map(String::as_str);
        self.refusals.note(used, &recorded.refused);
    }

    fn prepare<'a>(&mut self, settlements: &'a [Settlement]) -> Prepared<'a> {
        if self.cut_since.elapsed() >= log::TRIM_INTERVAL {
            self.cut.clear();
            self.cut_since = Instant::now();
        }
        let mut lines = Vec::with_capacity(settlements.len());
        let mut partitions: HashMap<*const Partition, (&Arc<Partition>, i64, Vec<Mark>)> = HashMap::new();
        for settlement in settlements {
            if let Some(Line { number, webhook, meta, body, succeeded }) = &settlement.log {
                lines.push(settled::Line {
                    number: *number,
                    webhook: *webhook,
                    meta,
                    body,
                    succeeded: *succeeded,
                    cut: self.cut.insert(*webhook),
                });
            }
            let partition = &settlement.handling.receipt.partition;
            let (_, highest, marks) =
                partitions.entry(Arc::as_ptr(partition)).or_insert((partition, i64::MIN, Vec::new()));
            *highest = (*highest).max(settlement.handling.receipt.offset);
            marks.push(settlement.mark);
        }
        let (mut marks, mut of) = (Vec::with_capacity(partitions.len()), Vec::with_capacity(partitions.len()));
        for (partition, highest, settled) in partitions.into_values() {
            let key = self.marks.key(&partition.topic, partition.number);
            marks.push(NewEntry { key, value: marks::encode(highest, &settled) });
            of.push((partition.clone(), highest));
        }
        let bytes = settlements.iter().map(Settlement::bytes).sum();
        Prepared { batch: settled::Batch { lines, marks }, partitions: of, bytes }
    }
}
