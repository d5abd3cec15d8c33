//! What is assigned, and the two ways that it ends: revoked (drained, committed) or lost (nothing committed).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};

use super::{Assigned, Trim};
use crate::kafka::words;
use crate::pipeline::commit_note;
use crate::pipeline::partition::Partition;
use crate::worker::reporting;

/// How long the committed offsets of new partitions are waited for.
const COMMITTED_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Rebalances {
    assigned: Mutex<HashMap<(Arc<str>, i32), Assigned>>,
    drain_timeout: Duration,
    trim: Trim,
    registry: Arc<reporting::Assigned>,
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        words::log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        words::error(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, list);
            if cooperative { consumer.incremental_assign(list) } else { consumer.assign(list) }
        } else {
            self.revoke(consumer, list);
            if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
        };
        if let Err(error) = done {
            tracing::error!(%error, "an assignment can't be taken over");
        }
        // A pause survives an assignment on the same consumer: clear it, or nothing arrives.
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
            && list.count() > 0
            && let Err(error) = consumer.resume(list)
        {
            tracing::warn!(%error, "new partitions can't be resumed");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.committed(offsets),
            Err(KafkaError::ConsumerCommit(rdkafka::types::RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => tracing::warn!(%error, "offsets can't be committed; tried again"),
        }
    }
}

impl Rebalances {
    pub(super) fn new(drain_timeout: Duration, trim: Trim, registry: Arc<reporting::Assigned>) -> Self {
        Self { assigned: Mutex::default(), drain_timeout, trim, registry }
    }

    fn assigned(&self) -> std::sync::MutexGuard<'_, HashMap<(Arc<str>, i32), Assigned>> {
        self.assigned.lock().expect("nothing panics while it holds the assignment")
    }

    pub(super) fn partition(&self, message: &BorrowedMessage<'_>) -> Option<Assigned> {
        self.assigned().get(&(Arc::from(message.topic()), message.partition())).cloned()
    }

    pub(super) fn partitions(&self) -> Vec<Assigned> {
        self.assigned().values().cloned().collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        // The marks in Redis say what the notes say: without the notes nothing is lost or repeated while they are there.
        let committed = consumer
            .committed_offsets(list.clone(), COMMITTED_WAIT)
            .inspect_err(|error| tracing::warn!(%error, "notes of earlier commits can't be read"))
            .ok();
        for element in list.elements() {
            let (topic, number) = (Arc::<str>::from(element.topic()), element.partition());
            let note = committed.as_ref().and_then(|committed| {
                let element = committed.find_partition(&topic, number)?;
                let Offset::Offset(offset) = element.offset() else { return None };
                commit_note::decode(element.metadata(), offset)
            });
            tracing::info!(%topic, partition = number, note = note.is_some(), "partition assigned");
            let partition = Arc::new(Partition::new(topic.clone(), number, note));
            self.registry.add(&partition);
            self.assigned().insert((topic, number), partition);
        }
    }

    /// Stop starting, finish what is in flight, commit, let go: in this order, so that the next owner repeats nothing.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let leaving: Vec<Assigned> = list
            .elements()
            .iter()
            .filter_map(|element| self.assigned().remove(&(Arc::from(element.topic()), element.partition())))
            .collect();
        let lost = consumer.assignment_lost();
        for partition in &leaving {
            partition.drain();
        }
        if lost {
            tracing::warn!(partitions = leaving.len(), "partitions lost: nothing of them is committed");
        } else {
            self.settle_and_commit(consumer, &leaving, self.drain_timeout);
        }
        for partition in &leaving {
            partition.close();
            tracing::info!(topic = %partition.topic, partition = partition.number, "partition revoked");
        }
    }

    /// Drains everything; how much was still in flight when the time was over.
    pub(super) fn finish(&self, consumer: &BaseConsumer<Self>, drain_timeout: Duration) -> usize {
        let partitions = self.partitions();
        for partition in &partitions {
            partition.drain();
        }
        let left = self.settle_and_commit(consumer, &partitions, drain_timeout);
        for partition in &partitions {
            partition.close();
        }
        left
    }

    fn settle_and_commit(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[Assigned],
        drain_timeout: Duration,
    ) -> usize {
        let deadline = Instant::now() + drain_timeout;
        let left = partitions.iter().map(|partition| partition.wait_until_quiet(deadline)).sum();
        if left > 0 {
            tracing::warn!(in_flight = left, "the drain's time is over: what is in flight may be repeated");
        }
        self.commit_of(consumer, partitions, CommitMode::Sync);
        left
    }

    pub(super) fn commit(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
        self.commit_of(consumer, &self.partitions(), mode);
    }

    fn commit_of(&self, consumer: &BaseConsumer<Self>, partitions: &[Assigned], mode: CommitMode) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            let Some((offset, note)) = partition.to_commit() else { continue };
            let mut element = list.add_partition(&partition.topic, partition.number);
            // The offset of the next record to look at, as Kafka wants it: the watermark itself, never plus one.
            if let Err(error) = element.set_offset(Offset::Offset(offset)) {
                tracing::error!(%error, offset, "an offset can't be committed");
            }
            element.set_metadata(note);
        }
        if list.count() == 0 {
            return;
        }
        match consumer.commit(&list, mode) {
            Ok(()) if matches!(mode, CommitMode::Sync) => self.committed(&list),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "offsets can't be committed; tried again"),
        }
    }

    fn committed(&self, list: &TopicPartitionList) {
        for element in list.elements() {
            let Offset::Offset(offset) = element.offset() else { continue };
            if element.error().is_err() {
                continue;
            }
            let found = self.assigned().get(&(Arc::from(element.topic()), element.partition())).cloned();
            let Some(partition) = found else { continue };
            if let Some(passed) = partition.committed(offset, element.metadata().to_owned()) {
                (self.trim)(&partition, passed);
            }
        }
    }
}
