//! Making fates durable: the delivery log and the marks in one batch, then the offsets.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use redis::aio::ConnectionManager;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::handling::Handling;
use super::partition::Partition;
use crate::conditions::{Conditions, Severity};
use crate::config;
use crate::delivery::{Attempt, Delivery, Fate, now_ms};
use crate::store::Keys;
use crate::store::failing;
use crate::store::log::{self, Logged};
use crate::store::marks::{self, Entry, Mark};
use crate::store::success::{self, Counts};
use crate::webhook::WebhookId;

/// Settlements that go into one batch, and that may wait for one.
const BATCH_MAX: usize = 256;
const WAITING_MAX: usize = 4_096;
/// Marks of a partition that nobody owns any more go away after this, in seconds.
const MARKS_EXPIRE_S: i64 = 7 * 86_400;

/// An attempt on its way into the log.
#[derive(Debug)]
struct Line {
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
            webhook: delivery.webhook_id,
            meta: Logged::new(delivery, attempt, fate).to_json(),
            body: delivery.body.clone(),
            succeeded: attempt.failure.is_none(),
        };
        Self { log: Some(line), ..Self::silent(delivery.id.0, handling) }
    }

    /// Without an attempt.
    #[must_use]
    pub fn silent(id: Uuid, handling: Handling) -> Self {
        let receipt = &handling.receipt;
        Self { mark: Mark::of(id, receipt.offset, receipt.timestamp_ms), log: None, handling }
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

/// Starts the task that settles. It ends when every [`Settler`] is gone.
#[must_use]
pub fn start(
    connection: ConnectionManager,
    keys: Keys,
    groups: Groups,
    log: config::Log,
    conditions: Conditions,
) -> Settler {
    let (waiting, batches) = mpsc::channel(WAITING_MAX);
    tokio::spawn(
        Batches { connection, keys, groups, log, conditions, cut: HashSet::new(), cut_since: Instant::now() }
            .run(batches),
    );
    Settler { waiting }
}

/// Which group reads a topic; marks are kept per group.
#[derive(Debug, Clone)]
pub struct Groups(pub crate::topics::Names);

impl Groups {
    /// The key of a partition's marks.
    #[must_use]
    pub fn marks_key(&self, keys: &Keys, partition: &Partition) -> String {
        let group =
            if self.0.is_waiting(&partition.topic) { self.0.retry_group() } else { self.0.events_group().to_owned() };
        keys.marks(&group, &partition.topic, partition.number)
    }
}

struct Batches {
    connection: ConnectionManager,
    keys: Keys,
    groups: Groups,
    log: config::Log,
    conditions: Conditions,
    /// Webhooks whose log was cut by age since.
    cut: HashSet<WebhookId>,
    cut_since: Instant,
}

impl Batches {
    async fn run(mut self, mut waiting: mpsc::Receiver<Settlement>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        // What arrives while a batch is on its way makes up the next one: batches grow with the load.
        while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.write(&batch).await;
            // Record first, release second: a crash between the two repeats a delivery, the other order loses one.
            for settlement in batch.drain(..) {
                settlement.handling.receipt.settle();
                drop(settlement.handling);
            }
        }
    }

    /// Writes until Redis has it.
    async fn write(&mut self, batch: &[Settlement]) {
        let (pipe, marked) = self.pipeline(batch);
        let mut outage = self.conditions.outage("redis: recording attempts", Severity::NotReady);
        loop {
            match pipe.query_async::<Vec<String>>(&mut self.connection).await {
                Ok(ids) => {
                    debug_assert_eq!(ids.len(), marked.len());
                    for (id, (partition, highest)) in ids.into_iter().zip(marked) {
                        partition.marked(Entry { id, highest });
                    }
                    return;
                }
                Err(error) => {
                    outage.failed(format_args!("attempts can't be recorded, and their offsets stay: {error}"));
                    outage.wait().await;
                }
            }
        }
    }

    fn pipeline(&mut self, batch: &[Settlement]) -> (redis::Pipeline, Vec<(Arc<Partition>, i64)>) {
        let mut pipe = redis::pipe();
        if self.cut_since.elapsed() >= log::TRIM_INTERVAL {
            self.cut.clear();
            self.cut_since = Instant::now();
        }
        let mut counts: HashMap<WebhookId, Counts> = HashMap::new();
        let mut partitions: HashMap<*const Partition, (&Arc<Partition>, i64, Vec<Mark>)> = HashMap::new();
        for settlement in batch {
            if let Some(Line { webhook, meta, body, succeeded }) = &settlement.log {
                let count = counts.entry(*webhook).or_default();
                count.succeeded += u64::from(*succeeded);
                count.failed += u64::from(!*succeeded);
                log::append(&mut pipe, &self.keys, *webhook, meta, body, &self.log);
                pipe.ignore();
                if self.cut.insert(*webhook) {
                    log::trim(&mut pipe, &self.keys, *webhook, now_ms(), &self.log);
                }
            }
            let partition = &settlement.handling.receipt.partition;
            let (_, highest, marks) =
                partitions.entry(Arc::as_ptr(partition)).or_insert((partition, i64::MIN, Vec::new()));
            *highest = (*highest).max(settlement.handling.receipt.offset);
            marks.push(settlement.mark);
        }
        for webhook in counts.keys() {
            log::expire(&mut pipe, &self.keys, *webhook, &self.log);
        }
        success::add(&mut pipe, &self.keys, &counts, now_ms());
        let succeeded = counts.iter().filter(|(_, counts)| counts.succeeded > 0).map(|(webhook, _)| *webhook);
        failing::succeeded(&mut pipe, &self.keys, succeeded);
        let mut marked = Vec::with_capacity(partitions.len());
        for (partition, highest, marks) in partitions.into_values() {
            let key = self.groups.marks_key(&self.keys, partition);
            pipe.cmd("XADD").arg(&key).arg("*").arg("m").arg(marks::encode(highest, &marks));
            pipe.cmd("EXPIRE").arg(&key).arg(MARKS_EXPIRE_S).ignore();
            marked.push((partition.clone(), highest));
        }
        (pipe, marked)
    }
}
