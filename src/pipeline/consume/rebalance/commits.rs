//! Commits: after a drain, and in between.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{COMMITTED_WAIT, Rebalances};
use crate::metrics;
use crate::pipeline::partition::Partition;

impl Rebalances {
    /// Waits until the partitions are quiet, and commits. Returns how many deliveries were still in flight when the time was
    /// over.
    pub(super) fn settle_and_commit(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[Arc<Partition>],
        drain_timeout: Duration,
    ) -> usize {
        let deadline = Instant::now() + drain_timeout;
        let left = partitions.iter().map(|partition| partition.wait_until_quiet(deadline)).sum();
        if left > 0 {
            tracing::warn!(in_flight = left, "the drain's time is over, and deliveries in flight may be repeated");
        }
        // A commit that is under way may wait for a broker that is away. The last commit is then left out, and the
        // marks say what is settled.
        match self.lock_commits(deadline.max(Instant::now() + COMMITTED_WAIT)) {
            Some(_committing) => self.commit_of(consumer, partitions),
            None => tracing::warn!("the last commit is left out, because another one hasn't ended"),
        }
        left
    }

    fn lock_commits(&self, deadline: Instant) -> Option<MutexGuard<'_, ()>> {
        loop {
            match self.committing.try_lock() {
                Ok(guard) => return Some(guard),
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Commits the offsets and notes that have changed. Blocks until the broker has them.
    pub(in crate::pipeline::consume) fn commit(&self, consumer: &BaseConsumer<Self>) {
        let _committing = self.committing.lock().expect("no code panics while it holds this lock");
        self.commit_of(consumer, &self.partitions());
    }

    pub(super) fn commit_of(&self, consumer: &BaseConsumer<Self>, partitions: &[Arc<Partition>]) {
        let mut list = TopicPartitionList::new();
        let mut commits = Vec::new();
        for partition in partitions {
            let Some((offset, note)) = partition.to_commit() else { continue };
            let mut element = list.add_partition(&partition.topic, partition.number);
            // Kafka expects the offset of the next record to read: the watermark itself, never the watermark plus one.
            if let Err(error) = element.set_offset(Offset::Offset(offset)) {
                tracing::error!(%error, offset, "an offset can't be committed");
                continue;
            }
            element.set_metadata(&note);
            commits.push((partition, offset, note));
        }
        if commits.is_empty() {
            return;
        }
        // The commit is synchronous, because rdkafka reports the result of no other commit.
        let began = Instant::now();
        let committed = consumer.commit(&list, CommitMode::Sync);
        let mut outage = self.outage.lock().expect("no code panics while it holds this lock");
        match committed {
            Ok(()) => {
                outage.over();
                metrics::COMMIT_DURATION.observe(began.elapsed());
                tracing::debug!(group = self.parts.group, partitions = commits.len(), "offsets committed");
                for (partition, offset, note) in commits {
                    if let Some(passed) = partition.committed(offset, note) {
                        let marks = self.parts.marks.clone();
                        let key = marks.key(&partition.topic, partition.number);
                        self.parts.runtime.spawn(async move { marks.trim(&key, &passed).await });
                    }
                }
            }
            Err(error) => {
                metrics::COMMIT_FAILURES.increment();
                tracing::warn!(%error, group = self.parts.group, "offsets can't be committed, retrying");
                outage.failed(error);
            }
        }
    }
}
