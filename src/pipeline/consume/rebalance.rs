//! What is assigned, and the two ways that it ends: revoked (drained, committed) or lost (nothing committed).

use crate::metrics;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};

use crate::conditions::{Conditions, Outage, Severity};
use crate::kafka::logging;
use crate::offsets::commit_note;
use crate::pipeline::assigned::Assigned;
use crate::pipeline::partition::{Committed, Partition};
use crate::pipeline::standstill::Standstill;
use crate::store::marks::MarkStreams;

/// How long the committed offsets of new partitions are waited for.
const COMMITTED_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Rebalances {
    assigned: Mutex<HashMap<(Arc<str>, i32), Arc<Partition>>>,
    /// Held while offsets are being committed: an older commit must not land behind the last one of a revoke.
    committing: Mutex<()>,
    refused: Mutex<Outage>,
    parts: Parts,
}

/// What rebalances need.
pub(super) struct Parts {
    pub(super) group: String,
    pub(super) drain_timeout: Duration,
    pub(super) marks: MarkStreams,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) registry: Arc<Assigned>,
    pub(super) standstill: Arc<Standstill>,
    /// Whether partitions without a commit are read from their oldest record.
    pub(super) begins_at_oldest: bool,
    pub(super) conditions: Conditions,
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        logging::log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        logging::error(&error, reason);
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
}

impl Rebalances {
    pub(super) fn new(parts: Parts) -> Self {
        let refused = parts.conditions.outage(format!("kafka: commits of {}", parts.group), Severity::NotReady);
        Self { assigned: Mutex::default(), committing: Mutex::default(), refused: Mutex::new(refused), parts }
    }

    /// Whether every partition that the client takes for assigned is known here: none of them was given up.
    pub(super) fn has_all_of(&self, consumer: &BaseConsumer<Self>) -> bool {
        let Ok(list) = consumer.assignment() else { return false };
        let assigned = self.assigned();
        list.elements().iter().all(|one| assigned.contains_key(&(Arc::from(one.topic()), one.partition())))
    }

    fn assigned(&self) -> std::sync::MutexGuard<'_, HashMap<(Arc<str>, i32), Arc<Partition>>> {
        self.assigned.lock().expect("nothing panics while it holds the assignment")
    }

    pub(super) fn partition(&self, message: &BorrowedMessage<'_>) -> Option<Arc<Partition>> {
        self.assigned().get(&(Arc::from(message.topic()), message.partition())).cloned()
    }

    pub(super) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.assigned().values().cloned().collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let found = consumer
            .committed_offsets(list.clone(), COMMITTED_WAIT)
            .inspect_err(|error| tracing::warn!(%error, "notes of earlier commits can't be read"))
            .ok();
        let mut fresh = Vec::new();
        for element in list.elements() {
            let (topic, number) = (Arc::<str>::from(element.topic()), element.partition());
            // What can't be read of one partition isn't the same as never committed.
            let element = found.as_ref().and_then(|found| found.find_partition(&topic, number));
            let element = element.filter(|element| element.error().is_ok());
            let offset = element.as_ref().map(|element| element.offset());
            let committed = committed(offset, element.as_ref().map_or("", |element| element.metadata()));
            let is_fresh = offset == Some(Offset::Invalid);
            tracing::info!(%topic, partition = number, note = committed.note.is_some(), fresh = is_fresh, "partition assigned");
            if committed.marks_are_void && !is_fresh {
                tracing::warn!(%topic, partition = number, ?offset, "the committed offset isn't from a worker: it is obeyed, and what is known to be settled above it is void");
            }
            let partition = Arc::new(Partition::new(topic.clone(), number, committed, self.parts.standstill.clone()));
            if let Some(Offset::Offset(offset)) = offset {
                partition.begins_at(offset, element.as_ref().map(|element| element.metadata()));
            }
            self.parts.registry.add(&partition);
            if is_fresh {
                fresh.push(partition.clone());
            }
            self.assigned().insert((topic, number), partition);
        }
        if self.parts.begins_at_oldest {
            self.commit_the_beginning(consumer, &fresh);
        }
    }

    /// Commits where reading begins in partitions without a commit. From then on a partition without one has lost it, or is
    /// new, and marks of it are void; without this, a crash before the first commit would look the same.
    fn commit_the_beginning(&self, consumer: &BaseConsumer<Self>, fresh: &[Arc<Partition>]) {
        // This runs inside of a poll: what the broker doesn't say in time is left out.
        let deadline = Instant::now() + COMMITTED_WAIT;
        for partition in fresh {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                break;
            };
            match consumer.fetch_watermarks(&partition.topic, partition.number, left) {
                Ok((low, _)) => partition.begins_at(low, None),
                Err(error) => {
                    tracing::warn!(%error, topic = %partition.topic, partition = partition.number, "where a new partition begins can't be read")
                }
            }
        }
        self.commit_of(consumer, fresh);
    }

    /// Stop starting, finish what is in flight, commit, let go: in this order, so that the next owner repeats nothing.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let leaving: Vec<Arc<Partition>> = list
            .elements()
            .iter()
            .filter_map(|element| self.assigned().remove(&(Arc::from(element.topic()), element.partition())))
            .collect();
        let lost = consumer.assignment_lost() || leaving.iter().any(|partition| partition.is_lost());
        for partition in &leaving {
            partition.drain();
        }
        if lost {
            tracing::warn!(partitions = leaving.len(), "partitions lost: nothing of them is committed");
        } else {
            self.settle_and_commit(consumer, &leaving, self.parts.drain_timeout);
        }
        for partition in &leaving {
            partition.close();
            tracing::info!(topic = %partition.topic, partition = partition.number, "partition revoked");
        }
    }

    /// Gives up everything without a commit: it isn't ours any more. What is in flight ends without touching offsets.
    pub(super) fn give_up(&self) {
        let lost: Vec<Arc<Partition>> = self.assigned().drain().map(|(_, partition)| partition).collect();
        for partition in &lost {
            partition.drain();
            partition.close();
        }
        tracing::warn!(
            partitions = lost.len(),
            "partitions given up: nothing of them is committed, and nothing more is started"
        );
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
        partitions: &[Arc<Partition>],
        drain_timeout: Duration,
    ) -> usize {
        let deadline = Instant::now() + drain_timeout;
        let left = partitions.iter().map(|partition| partition.wait_until_quiet(deadline)).sum();
        if left > 0 {
            tracing::warn!(in_flight = left, "the drain's time is over: what is in flight may be repeated");
        }
        // A commit that is under way may wait for a broker that is away: then the marks say what is settled.
        match self.lock_commits(deadline.max(Instant::now() + COMMITTED_WAIT)) {
            Some(_committing) => self.commit_of(consumer, partitions),
            None => tracing::warn!("the last commit is left out: another one hasn't come to its end"),
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

    /// Commits what has changed. Blocks until the broker has it.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Self>) {
        let _committing = self.committing.lock().expect("nothing panics while it commits");
        self.commit_of(consumer, &self.partitions());
    }

    fn commit_of(&self, consumer: &BaseConsumer<Self>, partitions: &[Arc<Partition>]) {
        let mut list = TopicPartitionList::new();
        let mut commits = Vec::new();
        for partition in partitions {
            let Some((offset, note)) = partition.to_commit() else { continue };
            let mut element = list.add_partition(&partition.topic, partition.number);
            // The offset of the next record to look at, as Kafka wants it: the watermark itself, never plus one.
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
        // Synchronous: only so does rdkafka say whether the broker took it.
        let committed = consumer.commit(&list, CommitMode::Sync);
        let mut refused = self.refused.lock().expect("nothing panics while it holds the outage");
        match committed {
            Ok(()) => {
                refused.over();
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
                tracing::warn!(%error, group = self.parts.group, "offsets can't be committed; tried again");
                refused.failed(error);
            }
        }
    }
}

/// What a committed offset and its metadata say of predecessors.
fn committed(offset: Option<Offset>, metadata: &str) -> Committed {
    match offset {
        // A commit of ours always has a note.
        Some(Offset::Offset(offset)) => {
            let note = commit_note::decode(metadata, offset);
            Committed { marks_are_void: note.is_none(), note }
        }
        // Never committed, lost, or of a topic that was made anew.
        Some(_) => Committed { note: None, marks_are_void: true },
        // It can't be read now: the marks say what the note would have said.
        None => Committed { note: None, marks_are_void: false },
    }
}
