//! Pauses the partitions whose records find no room, and resumes them later. The last record of each is read again then,
//! because the topic may have been created again meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::Consume;
use crate::metrics::{self, PauseReason};
use crate::pipeline::partition::Partition;

/// The longest wait for the oldest offset of a partition, and for a change of its position.
const SEEK_MAX: Duration = Duration::from_secs(5);

impl Consume {
    /// Pauses partitions that have to stop reading, and resumes the others.
    pub(super) fn regulate(&mut self) {
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        let (mut again, mut anew) = (TopicPartitionList::new(), Vec::new());
        let partitions = self.client.consumer.context().partitions();
        self.intake.forget_closed();
        for partition in partitions {
            let reason = self.pause_reason(&partition);
            let must_pause = reason.is_some();
            if partition.paused.swap(must_pause, Ordering::Relaxed) != must_pause {
                if let Some(reason) = reason {
                    metrics::PAUSES.increment(reason.as_str());
                }
                let list = if must_pause { &mut pause } else { &mut resume };
                list.add_partition(&partition.topic, partition.number);
                if !must_pause {
                    self.read_last_again(&partition, &mut again);
                }
            }
            if partition.begins_anew() {
                anew.push(partition);
            }
        }
        // A position that can't be changed stays where it is: then the last record is not read again.
        if let Err(error) = self.seek(again) {
            tracing::debug!(%error, "the last records before a pause are not read again");
        }
        for partition in anew {
            self.begin_anew(&partition);
        }
        for (list, change) in [(pause, "pause"), (resume, "resume")] {
            if list.count() == 0 {
                continue;
            }
            let done =
                if change == "pause" { self.client.consumer.pause(&list) } else { self.client.consumer.resume(&list) };
            tracing::debug!(partitions = list.count(), change, "partitions paused or resumed");
            if let Err(error) = done {
                tracing::warn!(%error, change, "partitions can't be paused or resumed");
            }
        }
    }

    /// Adds the last record of a partition to the positions from which it is read. Only if a position that is no longer in
    /// the log stands for the oldest record; otherwise the client could go on at the end.
    fn read_last_again(&self, partition: &Partition, positions: &mut TopicPartitionList) {
        if !self.blueprint.parts.begins_at_oldest {
            return;
        }
        let Some(last) = partition.reread() else { return };
        let added = positions.add_partition_offset(&partition.topic, partition.number, Offset::Offset(last));
        debug_assert!(added.is_ok(), "the offset of a record is valid");
    }

    /// Reads a partition from its oldest record. While the broker is away, nothing of it is read, and this is tried again.
    fn begin_anew(&self, partition: &Partition) {
        let Partition { topic, number, .. } = partition;
        let oldest = match self.client.consumer.fetch_watermarks(topic, *number, SEEK_MAX) {
            Ok((oldest, _)) => oldest,
            Err(error) => {
                tracing::warn!(%topic, partition = number, %error, "the oldest record can't be found yet");
                return;
            }
        };
        tracing::warn!(%topic, partition = number, oldest, "the log has changed during a pause: its end was lost or the topic was created again, so it is read from its oldest record");
        // The commit goes back first, so that a crash before the seek skips nothing.
        partition.begin_anew(oldest);
        let mut position = TopicPartitionList::new();
        let added = position.add_partition_offset(topic, *number, Offset::Offset(oldest));
        if let Err(error) = added.and_then(|()| self.seek(position)) {
            // The next consumer begins at the commit.
            tracing::warn!(%topic, partition = number, %error, "the position can't be changed");
            self.client.must_be_replaced.store(true, Ordering::Relaxed);
        }
    }

    fn seek(&self, positions: TopicPartitionList) -> KafkaResult<()> {
        if positions.count() == 0 {
            return Ok(());
        }
        let sought = self.client.consumer.seek_partitions(positions, SEEK_MAX)?;
        sought.elements().iter().try_for_each(TopicPartitionListElem::error)
    }

    /// Why the partition must not be read for now.
    fn pause_reason(&self, partition: &Arc<Partition>) -> Option<PauseReason> {
        if self.blocked {
            Some(PauseReason::PipelineFull)
        } else if self.intake.is_full(partition) {
            Some(PauseReason::WindowFull)
        } else {
            (partition.open_offsets() >= self.open_offsets_max).then_some(PauseReason::OpenOffsets)
        }
    }
}
