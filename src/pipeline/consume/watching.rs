//! Watches on a separate thread how far the partitions of a consumer are behind the ends of their logs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::client::Helper;
use super::coverage::Coverage;
use super::peek::Peek;
use super::rebalance::Rebalances;
use super::watchdog::Watchdog;
use crate::kafka::describe::members::{self, Partitions};

/// How often the broker is asked for the ends of the logs.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time that the broker may take to name the ends of the logs.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Starts the thread.
///
/// # Errors
/// Fails if the thread can't be created.
pub(super) fn start(
    name: &str,
    consumer: Arc<BaseConsumer<Rebalances>>,
    mut watchdog: Watchdog,
    peek: Peek,
    mut coverage: Coverage,
) -> anyhow::Result<Helper> {
    Helper::start(format!("{name} watches"), INTERVAL, move || {
        note_ends(&consumer);
        let rebalances = consumer.context();
        watchdog.look(&rebalances.partitions(), rebalances.is_rebalancing(), |suspects| peek.records(suspects));
        coverage.look(|group| Ok((topics(&consumer)?, members::assigned(consumer.client(), group, ANSWER_MAX)?)));
    })
}

/// Asks for the ends of all partitions at once. If the broker doesn't answer, the ends that are known stay.
fn note_ends(consumer: &BaseConsumer<Rebalances>) {
    let partitions = consumer.context().partitions();
    let mut ends = TopicPartitionList::new();
    for partition in &partitions {
        // Instead of a time, a lookup by time also takes the end.
        if ends.add_partition_offset(&partition.topic, partition.number, Offset::End).is_err() {
            return;
        }
    }
    if partitions.is_empty() {
        return;
    }
    let found = match consumer.offsets_for_times(ends, ANSWER_MAX) {
        Ok(found) => found,
        Err(error) => return tracing::debug!(%error, "the ends of the partitions can't be read"),
    };
    let found: HashMap<(String, i32), Offset> = found.to_topic_map();
    for partition in partitions {
        if let Some(Offset::Offset(end)) = found.get(&(partition.topic.to_string(), partition.number)) {
            partition.log_ends_at(*end);
        }
    }
}

/// All partitions of all topics.
fn topics(consumer: &BaseConsumer<Rebalances>) -> Result<Partitions, String> {
    let metadata = consumer.fetch_metadata(None, ANSWER_MAX).map_err(|error| error.to_string())?;
    let partitions = metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .flat_map(|topic| topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id())));
    Ok(partitions.collect())
}
