//! A simulated consumer: it reads, commits, and now and then loses a partition and gets it back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use tokio::sync::mpsc;

use super::outside::World;
use crate::pipeline::committed::Committed;
use crate::pipeline::consume::intake::{Intake, Record};
use crate::pipeline::incoming::Batch;
use crate::pipeline::partition::Partition;
use crate::pipeline::standstill::Standstill;
use crate::store::marks::MarkStreams;

/// The longest time between two rounds.
const ROUND_MAX: Duration = Duration::from_millis(150);

/// A partition that is assigned, and the offset of the next record.
struct Assigned {
    name: (String, i32),
    partition: Arc<Partition>,
    next: i64,
}

pub struct Consumer {
    world: World,
    intake: Intake,
    batches: mpsc::Sender<Batch>,
    marks: MarkStreams,
    standstill: Arc<Standstill>,
    assigned: Vec<Assigned>,
}

impl Consumer {
    pub fn new(
        world: World,
        is_of_events: bool,
        intake: Intake,
        batches: mpsc::Sender<Batch>,
        marks: MarkStreams,
        standstill: Arc<Standstill>,
    ) -> Self {
        let mut consumer = Self { world, intake, batches, marks, standstill, assigned: Vec::new() };
        let names = consumer.world.with(|outside| outside.partitions(is_of_events));
        consumer.assigned = names.into_iter().map(|name| consumer.assign(name)).collect();
        consumer
    }

    /// What a rebalance does with a new partition.
    fn assign(&self, name: (String, i32)) -> Assigned {
        let commit = self.world.with(|outside| outside.commits.get(&name).cloned());
        let (offset, metadata) = commit.clone().unwrap_or_default();
        let offset_read = commit.as_ref().map_or(Offset::Invalid, |(offset, _)| Offset::Offset(*offset));
        let committed = Committed::read(Some(offset_read), &metadata);
        let partition = Partition::new(name.0.as_str().into(), name.1, committed, self.standstill.clone());
        partition.begins_at(offset, commit.as_ref().map(|(_, metadata)| metadata.as_str()));
        Assigned { name, partition: Arc::new(partition), next: offset }
    }

    /// Never returns.
    pub async fn run(mut self) {
        loop {
            self.read().await;
            for at in 0..self.assigned.len() {
                self.commit(at).await;
            }
            if self.world.happens(2) {
                self.rebalance().await;
            }
            self.world.pause(ROUND_MAX).await;
        }
    }

    async fn read(&mut self) {
        let open_max = self.world.with(|outside| outside.config.kafka.open_offsets_max);
        let mut batch = Batch::default();
        self.intake.forget_closed();
        for Assigned { name, partition, next } in &mut self.assigned {
            while !batch.is_full() && !self.intake.is_full(partition) && partition.open_offsets() < open_max {
                let found = self.world.with(|outside| outside.logs.get(name)?.get(*next as usize).cloned());
                let Some(stored) = found else { break };
                let record = Record {
                    key: None,
                    value: Some(&stored.value),
                    headers: Some(stored.headers.as_borrowed()),
                    offset: *next,
                    timestamp_ms: stored.timestamp_ms,
                    epoch: None,
                };
                self.intake.take(&record, partition, &mut batch);
                *next += 1;
            }
        }
        self.intake.release(open_max, &mut batch);
        if !batch.is_empty() {
            let _ = self.batches.send(batch).await;
        }
    }

    /// Commits, as the committing thread does. The broker may be away, or its answer may be lost.
    async fn commit(&self, at: usize) {
        let Assigned { name, partition, .. } = &self.assigned[at];
        let Some((offset, note)) = partition.to_commit() else { return };
        self.world.pause(Duration::from_millis(10)).await;
        if self.world.happens(5) {
            return;
        }
        self.world.with(|outside| outside.commit(name, offset, note.clone()));
        if self.world.happens(5) {
            return;
        }
        if let Some(passed) = partition.committed(offset, note) {
            self.marks.trim(&self.marks.key(&name.0, name.1), &passed).await;
        }
    }

    /// Gives a partition up, either well or not, and gets it back.
    async fn rebalance(&mut self) {
        let at = self.world.with(|outside| rand::RngExt::random_range(&mut outside.random, 0..self.assigned.len()));
        let partition = self.assigned[at].partition.clone();
        if self.world.happens(50) {
            partition.drain();
            let mut left = 200;
            while partition.wait_until_quiet(Instant::now()) > 0 && left > 0 {
                left -= 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if left == 0 {
                self.world.with(|outside| outside.interrupted(Some(&self.assigned[at].name)));
            }
            self.commit(at).await;
        } else {
            self.world.with(|outside| outside.interrupted(Some(&self.assigned[at].name)));
        }
        partition.close();
        self.intake.forget_closed();
        let name = self.assigned[at].name.clone();
        self.world.with(|outside| outside.trace.push(format!("assigned {}/{}", name.0, name.1)));
        self.assigned[at] = self.assign(name);
    }
}
