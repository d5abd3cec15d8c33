//! Rebalances. A revoked partition is drained and committed. Of a lost partition nothing is committed.

mod commits;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};

use crate::conditions::{Conditions, Outage, Severity};
use crate::kafka::logging;
use crate::metrics::{self, Rebalance};
use crate::pipeline::assigned::Assigned;
use crate::pipeline::committed::Committed;
use crate::pipeline::partition::Partition;
use crate::pipeline::standstill::Standstill;
use crate::store::marks::MarkStreams;

/// The assigned partitions, by topic and number.
type ByPartition = HashMap<(Arc<str>, i32), Arc<Partition>>;

/// The longest wait for the committed offsets of new partitions, and for other answers of the broker in a rebalance.
const COMMITTED_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Rebalances {
    assigned: Mutex<ByPartition>,
    /// Locked while offsets are committed, so that an older commit can't overwrite the last commit of a revoke.
    committing: Mutex<()>,
    outage: Mutex<Outage>,
    /// Whether a rebalance is being handled, inside a poll.
    is_rebalancing: AtomicBool,
    parts: Parts,
}

/// The parts that rebalances need.
#[derive(Clone)]
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
        self.is_rebalancing.store(true, Ordering::Release);
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            metrics::REBALANCES.increment(Rebalance::Assigned.as_str());
            self.assign(consumer, list);
            if cooperative { consumer.incremental_assign(list) } else { consumer.assign(list) }
        } else {
            self.revoke(consumer, list);
            if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
        };
        if let Err(error) = done {
            tracing::error!(%error, "an assignment can't be applied");
        }
        // A pause outlasts a new assignment on the same consumer. Without the resume no record would arrive.
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
            && list.count() > 0
            && let Err(error) = consumer.resume(list)
        {
            tracing::warn!(%error, "new partitions can't be resumed");
        }
        self.is_rebalancing.store(false, Ordering::Release);
    }
}

impl Rebalances {
    pub(super) fn new(parts: Parts) -> Self {
        let outage = parts.conditions.outage(format!("kafka: commits of {}", parts.group), Severity::NotReady);
        Self {
            assigned: Mutex::default(),
            committing: Mutex::default(),
            outage: Mutex::new(outage),
            is_rebalancing: AtomicBool::new(false),
            parts,
        }
    }

    /// Whether a rebalance is being handled, so that nothing is read. It lasts as long as its drain.
    pub(super) fn is_rebalancing(&self) -> bool {
        self.is_rebalancing.load(Ordering::Acquire)
    }

    /// Whether every partition that the client counts as assigned is known here, so that none of them was given up.
    pub(super) fn has_all_of(&self, consumer: &BaseConsumer<Self>) -> bool {
        let Ok(list) = consumer.assignment() else { return false };
        let assigned = self.assigned();
        list.elements().iter().all(|one| assigned.contains_key(&(Arc::from(one.topic()), one.partition())))
    }

    fn assigned(&self) -> std::sync::MutexGuard<'_, ByPartition> {
        self.assigned.lock().expect("no code panics while it holds this lock")
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
            .inspect_err(|error| tracing::warn!(%error, "the committed offsets can't be read"))
            .ok();
        let mut fresh = Vec::new();
        for element in list.elements() {
            let (topic, number) = (Arc::<str>::from(element.topic()), element.partition());
            // An offset that can't be read is not the same as one that was never committed.
            let element = found.as_ref().and_then(|found| found.find_partition(&topic, number));
            let element = element.filter(|element| element.error().is_ok());
            let offset = element.as_ref().map(|element| element.offset());
            let metadata = element.as_ref().map(metadata);
            let committed = Committed::read(offset, metadata.as_deref().unwrap_or_default());
            let is_fresh = offset == Some(Offset::Invalid);
            tracing::info!(%topic, partition = number, note = committed.note.is_some(), fresh = is_fresh, "partition assigned");
            if committed.marks_are_void && !is_fresh {
                tracing::warn!(%topic, partition = number, ?offset, "the committed offset doesn't come from a worker: it is obeyed, and marks above it are void");
            }
            let partition = Arc::new(Partition::new(topic.clone(), number, committed, self.parts.standstill.clone()));
            if let Some(Offset::Offset(offset)) = offset {
                partition.begins_at(offset, metadata.as_deref());
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

    /// Commits the offset at which reading begins in partitions without a commit. From then on, a partition without a
    /// commit is new or has lost its commit, and its marks are void. Without this first commit, a crash before the next
    /// one would look the same, although its marks are valid.
    fn commit_the_beginning(&self, consumer: &BaseConsumer<Self>, fresh: &[Arc<Partition>]) {
        // This runs inside `poll`. Partitions for which the broker doesn't answer in time are left out.
        let deadline = Instant::now() + COMMITTED_WAIT;
        for partition in fresh {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                break;
            };
            match consumer.fetch_watermarks(&partition.topic, partition.number, left) {
                Ok((low, _)) => partition.begins_at(low, None),
                Err(error) => {
                    tracing::warn!(%error, topic = %partition.topic, partition = partition.number, "the lowest offset of a new partition can't be read")
                }
            }
        }
        self.commit_of(consumer, fresh);
    }

    /// Starts nothing more, waits for the work in flight, commits, and closes the partitions. In this order the next
    /// owner repeats nothing.
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
        let change = if lost { Rebalance::Lost } else { Rebalance::Revoked };
        metrics::REBALANCES.increment(change.as_str());
        if lost {
            tracing::warn!(partitions = leaving.len(), "partitions lost, nothing is committed");
        } else {
            self.settle_and_commit(consumer, &leaving, self.parts.drain_timeout);
        }
        for partition in &leaving {
            partition.close();
            tracing::info!(topic = %partition.topic, partition = partition.number, "partition revoked");
        }
    }

    /// Gives up all partitions without a commit, because they are no longer ours. Work in flight ends without a change
    /// of offsets.
    pub(super) fn give_up(&self) {
        let lost: Vec<Arc<Partition>> = self.assigned().drain().map(|(_, partition)| partition).collect();
        for partition in &lost {
            partition.drain();
            partition.close();
        }
        tracing::warn!(partitions = lost.len(), "partitions given up, nothing is committed or started any more");
    }

    /// Drains all partitions. Returns how many deliveries were still in flight when the time was over.
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
}

/// The metadata of a commit. It is anybody's text: rdkafka panics if it isn't UTF-8, and such a commit is no worker's.
fn metadata(element: &TopicPartitionListElem<'_>) -> String {
    std::panic::catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned())).unwrap_or_default()
}
