//! Offsets of a consumer group that are gone although there is something to deliver: they expired, the group was renamed,
//! or somebody deleted them. `kafka.offsets_lost` decides where such a group begins.

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::group::{Extent, Group, Position};
use super::{clients, logging::Logging};
use crate::config::Config;
use crate::pipeline::commit_note;
use crate::pipeline::offsets::Watermark;
use crate::schedule::Schedule;
use crate::topics::Names;

/// A group at the start of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtStart {
    /// Its name.
    pub group: String,
    /// Its partitions, with the records that each of them has.
    pub partitions: Vec<(Position, Extent)>,
}

impl AtStart {
    /// Whether anything was ever committed by it, and is remembered.
    #[must_use]
    pub fn has_commits(&self) -> bool {
        self.partitions.iter().any(|(position, _)| position.committed.is_some())
    }

    /// Records in its topics.
    #[must_use]
    pub fn records(&self) -> u64 {
        let count = |extent: &Extent| u64::try_from(extent.high.saturating_sub(extent.low)).unwrap_or(0);
        self.partitions.iter().map(|(_, extent)| count(extent)).sum()
    }

    /// Whether its offsets are gone although its topics have records. A single partition without a commit is a new one.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        !self.has_commits() && self.records() > 0
    }

    /// Partitions whose committed offset is outside of their records: the topic was made anew, or what wasn't read yet is gone.
    pub fn outside(&self) -> impl Iterator<Item = &(Position, Extent)> {
        self.partitions.iter().filter(|(position, extent)| {
            position.committed.is_some_and(|offset| !(extent.low..=extent.high).contains(&offset))
        })
    }
}

/// Asks about both groups, and the topics that the settings name. Blocks on the network.
///
/// # Errors
/// Where the broker doesn't answer, or refuses.
pub fn look(config: &Config) -> anyhow::Result<[AtStart; 2]> {
    let names = Names::new(config);
    let of = |name: String, topics: &[String]| -> anyhow::Result<AtStart> {
        let group = Group::new(config, &name)?;
        let mut partitions = Vec::new();
        for position in group.positions(topics)? {
            let extent = group.extent(&position.topic, position.partition)?;
            partitions.push((position, extent));
        }
        Ok(AtStart { group: name, partitions })
    };
    let tiers = Schedule::new(&config.delivery).tiers();
    let waiting: Vec<String> = (1..=tiers).map(|tier| names.retry(tier)).chain([names.replays()]).collect();
    Ok([of(names.events_group().to_owned(), &[names.events().to_owned()])?, of(names.retry_group(), &waiting)?])
}

/// Commits the end of each partition, so that the group begins with what is written from now on. Blocks on the network.
///
/// # Errors
/// Where the broker refuses: another member of the group is at work already, and has commits of its own then.
pub fn skip_to_end(config: &Config, group: &AtStart) -> anyhow::Result<()> {
    let consumer: BaseConsumer<Logging> =
        clients::consumer(config, &group.group).create_with_context(Logging).context("kafka client")?;
    let mut ends = TopicPartitionList::new();
    for (position, extent) in &group.partitions {
        let mut element = ends.add_partition(&position.topic, position.partition);
        element.set_offset(Offset::Offset(extent.high)).context("an offset")?;
        let end = Watermark { offset: extent.high, stamp_ms: None, settled_above: Vec::new() };
        element.set_metadata(commit_note::encode(&end));
    }
    consumer.commit(&ends, CommitMode::Sync).context("the ends can't be committed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(partitions: &[(Option<i64>, i64, i64)]) -> AtStart {
        let partition = |(committed, low, high)| {
            let position = Position { topic: "t".to_owned(), partition: 0, committed };
            (position, Extent { low, high })
        };
        AtStart { group: "g".to_owned(), partitions: partitions.iter().copied().map(partition).collect() }
    }

    #[test]
    fn offsets_are_lost_where_no_partition_has_any_and_there_are_records() {
        assert!(group(&[(None, 5, 9), (None, 0, 0)]).is_lost());
        assert!(!group(&[(None, 0, 9), (Some(3), 0, 9)]).is_lost(), "a partition that was added");
        assert!(!group(&[(None, 7, 7)]).is_lost(), "there is nothing to deliver");
        assert!(!group(&[]).is_lost());
        assert_eq!(group(&[(None, 5, 9), (None, 0, 2)]).records(), 6);
    }

    #[test]
    fn a_commit_outside_of_the_records_is_found() {
        assert_eq!(group(&[(Some(4), 5, 9), (Some(10), 5, 9), (Some(9), 5, 9)]).outside().count(), 2);
    }
}
