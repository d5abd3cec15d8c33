//! Finds consumer groups that lost their committed offsets: the offsets expired, the group was renamed, or somebody
//! deleted them. `kafka.offsets_lost` decides where such a group begins.

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::group::{Extent, Group, Position};
use super::{clients, logging::Logging};
use crate::config::Config;
use crate::offsets::Watermark;
use crate::offsets::commit_note;
use crate::schedule::Schedule;
use crate::topics::Names;

/// The state of a group before this worker joins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtStart {
    /// The group's name.
    pub group: String,
    /// The group's position in each partition, and the partition's extent.
    pub partitions: Vec<(Position, Extent)>,
}

impl AtStart {
    /// Whether the group has a committed offset in any partition.
    #[must_use]
    pub fn has_commits(&self) -> bool {
        self.partitions.iter().any(|(position, _)| position.committed.is_some())
    }

    /// The number of records in the group's topics.
    #[must_use]
    pub fn records(&self) -> u64 {
        let count = |extent: &Extent| u64::try_from(extent.high.saturating_sub(extent.low)).unwrap_or(0);
        self.partitions.iter().map(|(_, extent)| count(extent)).sum()
    }

    /// Whether the group has no committed offset although its topics have records. If only some partitions have no
    /// commit, those count as new partitions.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        !self.has_commits() && self.records() > 0
    }

    /// Returns the partitions whose committed offset is outside their extent. The topic was created again, or records
    /// were deleted before the group read them.
    pub fn outside(&self) -> impl Iterator<Item = &(Position, Extent)> {
        self.partitions.iter().filter(|(position, extent)| {
            position.committed.is_some_and(|offset| !(extent.low..=extent.high).contains(&offset))
        })
    }
}

/// Reads the state of the events group and of the retry group. Blocks on the network.
///
/// # Errors
/// Fails if the broker doesn't answer or refuses.
pub fn look(config: &Config) -> anyhow::Result<[AtStart; 2]> {
    let names = Names::new(config);
    let read = |name: String, topics: &[String]| -> anyhow::Result<AtStart> {
        let group = Group::new(config, &name)?;
        let mut partitions = Vec::new();
        for position in group.positions(topics)? {
            let extent = group.extent(&position.topic, position.partition)?;
            partitions.push((position, extent));
        }
        Ok(AtStart { group: name, partitions })
    };
    let tiers = Schedule::new(&config.delivery).tiers();
    let retry_topics: Vec<String> = (1..=tiers).map(|tier| names.retry(tier)).chain([names.replays()]).collect();
    Ok([
        read(names.events_group().to_owned(), &[names.events().to_owned()])?,
        read(names.retry_group(), &retry_topics)?,
    ])
}

/// Commits the end of each partition, so that the group begins with records that are written from now on. Blocks on the
/// network.
///
/// # Errors
/// Fails if the broker refuses, as it does while another member is active in the group. Such a group has commits
/// already.
pub fn skip_to_end(config: &Config, group: &AtStart) -> anyhow::Result<()> {
    let consumer: BaseConsumer<Logging> = clients::consumer(config, &group.group)
        .create_with_context(Logging)
        .context("the Kafka client can't be made")?;
    let mut ends = TopicPartitionList::new();
    for (position, extent) in &group.partitions {
        let mut element = ends.add_partition(&position.topic, position.partition);
        element.set_offset(Offset::Offset(extent.high)).context("the end offset can't be set")?;
        let end = Watermark { offset: extent.high, stamp_ms: None, settled_above: Vec::new(), epoch: None };
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
    fn offsets_are_lost_if_no_partition_has_one_and_records_exist() {
        assert!(group(&[(None, 5, 9), (None, 0, 0)]).is_lost());
        assert!(!group(&[(None, 0, 9), (Some(3), 0, 9)]).is_lost(), "one partition is new");
        assert!(!group(&[(None, 7, 7)]).is_lost(), "no records");
        assert!(!group(&[]).is_lost());
        assert_eq!(group(&[(None, 5, 9), (None, 0, 2)]).records(), 6);
    }

    #[test]
    fn committed_offsets_outside_the_extent_are_found() {
        assert_eq!(group(&[(Some(4), 5, 9), (Some(10), 5, 9), (Some(9), 5, 9)]).outside().count(), 2);
    }
}
