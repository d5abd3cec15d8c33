//! Pauses the partitions whose records find no room, and resumes them later.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;

use super::Consume;
use crate::metrics::{self, PauseReason};
use crate::pipeline::partition::Partition;

impl Consume {
    /// Pauses partitions that have to stop reading, and resumes the others.
    pub(super) fn regulate(&mut self) {
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
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
            }
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
