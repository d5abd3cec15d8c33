//! Settles deliveries: one batch writes the delivery log and the marks, and then the offsets are released.
//!
//! While Redis refuses writes, nothing is sent. The result of an attempt could not be recorded, and the attempt would
//! be repeated after a crash.

mod batch_bytes;
mod refusals;
mod settlement;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::partition::Partition;
use crate::clock::now_ms;
use crate::conditions::{Conditions, Severity};
use crate::config;
use crate::metrics;
use crate::store::log::{self};
use crate::store::marks::{self, Mark, MarkEntry, MarkStreams, NewEntry};
use crate::store::missed::MissedTogether;
use crate::store::settled::{self, Recorder};
use crate::store::snapshot::Snapshots;
use crate::store::{is_away, refuses_writes};
use crate::webhook::WebhookId;
use batch_bytes::BatchBytes;
use refusals::Refusals;
use settlement::Line;
pub use settlement::Settlement;

/// The most settlements in one batch.
const BATCH_MAX: usize = 256;
/// The most settlements that wait for a batch.
const WAITING_MAX: usize = 4_096;
/// How long recording may fail before the process isn't ready.
const LOUD_AFTER: Duration = Duration::from_secs(2);

/// Queues settlements. Clones share the queue.
#[derive(Clone)]
pub struct Settler {
    queue: mpsc::Sender<Settlement>,
}

impl Settler {
    /// Queues a settlement for one of the next batches. Waits while the queue is full.
    pub async fn settle(&self, settlement: Settlement) {
        if self.queue.send(settlement).await.is_err() {
            tracing::debug!("the process is ending, so an offset stays open");
        }
    }
}

/// The parts that settling needs.
#[allow(missing_docs, reason = "each is what its type says")]
pub struct Setup {
    pub recorder: Recorder,
    pub marks: MarkStreams,
    pub redis: config::Redis,
    /// Stops sending while nothing can be recorded.
    pub snapshots: Snapshots,
    pub conditions: Conditions,
    /// Dropped when settling ends, even by a panic. Without it offsets would stay open forever, and nobody would
    /// notice.
    pub ended: DropGuard,
}

/// Starts the task that settles. It ends when every [`Settler`] is gone.
#[must_use]
pub fn start(setup: Setup) -> Settler {
    let (queue, settlements) = mpsc::channel(WAITING_MAX);
    let Setup { recorder, marks, redis, snapshots, conditions, ended } = setup;
    let settling = Settling {
        recorder,
        marks,
        snapshots,
        refusals: Refusals::new(conditions.clone()),
        conditions,
        bytes: BatchBytes::new(redis.batch_bytes_max, redis.timeout),
        last_number: 0,
        trimmed: HashSet::new(),
        trimmed_since: Instant::now(),
    };
    tokio::spawn(async move {
        let _ended = ended;
        settling.run(settlements).await;
    });
    Settler { queue }
}

struct Settling {
    recorder: Recorder,
    marks: MarkStreams,
    snapshots: Snapshots,
    conditions: Conditions,
    refusals: Refusals,
    bytes: BatchBytes,
    last_number: u64,
    /// The webhooks whose log was trimmed by age since `trimmed_since`.
    trimmed: HashSet<WebhookId>,
    trimmed_since: Instant,
}

/// A batch, with the partition and the highest offset of each of its mark entries.
struct Prepared<'a> {
    batch: settled::Batch<'a>,
    partitions: Vec<(Arc<Partition>, i64)>,
    bytes: usize,
}

impl Settling {
    async fn run(mut self, mut settlements: mpsc::Receiver<Settlement>) {
        let mut taken = Vec::with_capacity(BATCH_MAX);
        // Settlements that arrive while a batch is on its way go into the next one, so batches grow with the load.
        while settlements.recv_many(&mut taken, BATCH_MAX).await > 0 {
            for settlement in &mut taken {
                self.last_number += 1;
                settlement.number = self.last_number;
            }
            while !taken.is_empty() {
                let count = self.write(&taken).await;
                // Record first, release second: a crash between the two repeats a delivery, the other order loses one.
                for settlement in taken.drain(..count) {
                    settlement.handling.receipt.settle();
                    drop(settlement.handling);
                    if let Some(trace) = settlement.trace {
                        trace.settled();
                    }
                }
            }
        }
    }

    /// Writes as many settlements from the front as fit into a batch, and retries until Redis has them. Returns their
    /// number.
    async fn write(&mut self, settlements: &[Settlement]) -> usize {
        let name = "redis: recording attempts";
        let mut outage = self.conditions.outage(name, Severity::NotReady).loud_after(LOUD_AFTER);
        let mut has_stopped_sending = false;
        loop {
            let count = self.bytes.fit(settlements.iter().map(Settlement::bytes));
            let prepared = self.prepare(&settlements[..count]);
            let began = Instant::now();
            let error = match self.recorder.record(&prepared.batch, now_ms()).await {
                Ok(recorded) => {
                    metrics::SETTLE_DURATION.observe(began.elapsed());
                    self.bytes.answered(began.elapsed());
                    self.recorded(prepared, recorded);
                    if has_stopped_sending {
                        self.snapshots.settling(None);
                    }
                    return count;
                }
                Err(error) => error,
            };
            metrics::SETTLE_FAILURES.increment();
            if error.is_timeout() {
                self.bytes.timed_out(prepared.bytes);
                // The rest of the batch may still be in the connection, and would delay the next try.
                self.recorder.renew_connection();
            }
            let reason = match refuses_writes(&error) {
                Some(why) => format!("answers reads but refuses writes: {why}"),
                None if is_away(&error) => format!("attempts can't be recorded: {error}"),
                None => format!("attempts can't be recorded, although Redis answers: {error}"),
            };
            has_stopped_sending = true;
            outage.failed(format_args!("{reason}; the offsets of the attempts stay open"));
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
        let used = match recorded.refused.is_empty() && self.refusals.is_empty() {
            true => BTreeSet::new(),
            false => self.recorder.used(&batch, now_ms()),
        };
        self.refusals.note(used.iter().map(String::as_str).chain([settled::SCRIPTS]), &recorded.refused);
    }

    fn prepare<'a>(&mut self, settlements: &'a [Settlement]) -> Prepared<'a> {
        if self.trimmed_since.elapsed() >= log::TRIM_INTERVAL {
            self.trimmed.clear();
            self.trimmed_since = Instant::now();
        }
        let mut lines = Vec::with_capacity(settlements.len());
        let (mut died, mut missed) = (Vec::new(), MissedTogether::default());
        let mut partitions: HashMap<*const Partition, (&Arc<Partition>, i64, Vec<Mark>)> = HashMap::new();
        for settlement in settlements {
            let number = settlement.number;
            died.extend(settlement.handling.died.map(|webhook| settled::Death { number, webhook }));
            settlement.missed.iter().for_each(|(_, event)| missed.add(number, event));
            if let Some(Line { webhook, packed, succeeded, duration }) = &settlement.log {
                lines.push(settled::Line {
                    number,
                    webhook: *webhook,
                    packed,
                    succeeded: *succeeded,
                    duration: *duration,
                    cut: self.trimmed.insert(*webhook),
                });
            }
            let partition = &settlement.handling.receipt.partition;
            let (_, highest, marks) =
                partitions.entry(Arc::as_ptr(partition)).or_insert((partition, i64::MIN, Vec::new()));
            *highest = (*highest).max(settlement.handling.receipt.offset);
            marks.push(settlement.mark);
            marks.extend(settlement.missed.iter().map(|(mark, _)| *mark));
        }
        let (mut entries, mut owners) = (Vec::with_capacity(partitions.len()), Vec::with_capacity(partitions.len()));
        for (partition, highest, marks) in partitions.into_values() {
            let key = self.marks.key(&partition.topic, partition.number);
            entries.push(NewEntry { key, value: marks::encode(highest, &marks) });
            owners.push((partition.clone(), highest));
        }
        let bytes = settlements.iter().map(Settlement::bytes).sum();
        Prepared {
            batch: settled::Batch { lines, died, missed: missed.all(), marks: entries },
            partitions: owners,
            bytes,
        }
    }
}
