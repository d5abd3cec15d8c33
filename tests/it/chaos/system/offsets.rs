//! Committed offsets that an operator sets back, or that expire, while no worker runs.

use std::time::Duration;

use optio_webhooks::kafka::clients;
use rand::RngExt as _;
use rdkafka::admin::{AdminOptions, GroupResult};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::block_in_place;

use super::System;
use crate::harness::eventually;

impl System {
    /// The operator sets each partition of the events back to an earlier record. The group must be empty for that.
    pub(super) async fn offsets_are_reset(&mut self) {
        let count = self.all_drain().await;
        let (config, names) = (self.world.config(), self.world.names());
        let consumer: BaseConsumer = clients::consumer(&config, names.events_group()).create().unwrap();
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions as i32 {
            asked.add_partition(names.events(), partition);
        }
        let ask = async || block_in_place(|| consumer.committed_offsets(asked.clone(), Duration::from_secs(10))).ok();
        let committed = eventually("the committed offsets are read", ask).await;
        let mut earlier = TopicPartitionList::new();
        for element in committed.elements() {
            // A partition without a commit is read from its beginning anyway.
            let Offset::Offset(offset) = element.offset() else { continue };
            let back_to = self.random.random_range(0..=offset);
            earlier.add_partition_offset(names.events(), element.partition(), Offset::Offset(back_to)).unwrap();
            self.ledger.read_again += (offset - back_to) as usize;
        }
        if earlier.count() > 0 {
            let reset = async || block_in_place(|| consumer.commit(&earlier, CommitMode::Sync)).ok();
            eventually("the offsets are reset", reset).await;
        }
        self.all_start(count);
    }

    /// Both groups lose their offsets, so that everything in their topics is read again (`kafka.offsets_lost`).
    pub(super) async fn offsets_expire(&mut self) {
        let count = self.all_drain().await;
        let (admin, names, config) = (self.admin(), self.world.names(), self.world.config());
        for group in [names.events_group().to_owned(), names.retry_group()] {
            let deleted = async || {
                let deleted = admin.delete_groups(&[&group], &AdminOptions::new()).await.ok()?;
                // A group that never committed doesn't exist.
                let is_gone = |one: &GroupResult| matches!(one, Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)));
                deleted.iter().all(is_gone).then_some(())
            };
            eventually("a group is deleted", deleted).await;
        }
        let tiers = (1..config.delivery.attempts_max).map(|tier| names.retry(tier));
        let topics = [names.events().to_owned(), names.replays()].into_iter().chain(tiers);
        self.ledger.read_again += topics.map(|topic| self.world.count(&topic) as usize).sum::<usize>();
        self.all_start(count);
    }

    /// Drains all workers in the middle of their work, and returns their number. There are committed offsets by then.
    async fn all_drain(&mut self) -> usize {
        self.world.events_committed().await;
        for record in self.load() {
            record.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
        for worker in &mut self.workers {
            let status = worker.terminate().await;
            assert!(status.success(), "{}", worker.log());
        }
        std::mem::take(&mut self.workers).len()
    }

    fn all_start(&mut self, count: usize) {
        self.workers = (0..count).map(|_| self.worker()).collect();
    }
}
