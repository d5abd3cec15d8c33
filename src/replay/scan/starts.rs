//! Where a scan begins to read.

use std::collections::HashMap;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::{BROKER_TIMEOUT, Start};
use crate::kafka::logging::Logging;

/// The prefix of the cluster id of the in-process broker of librdkafka.
const IN_PROCESS_BROKER: &str = "mockCluster";

/// The offset at which to begin in each partition. A partition that is absent begins at its oldest record.
pub(super) fn starts(
    consumer: &BaseConsumer<Logging>,
    topic: &str,
    numbers: &[i32],
    start: Start,
) -> Result<HashMap<i32, i64>, KafkaError> {
    // If the topic has few partitions, a reader may have none.
    if numbers.is_empty() {
        return Ok(HashMap::new());
    }
    let at_ms = match start {
        Start::Oldest => return Ok(HashMap::new()),
        Start::At(at_ms) => at_ms,
    };
    // The in-process broker of `dev` answers every time with the end of the partition, so read everything instead.
    let cluster = consumer.client().fetch_cluster_id(BROKER_TIMEOUT);
    if cluster.is_some_and(|id| id.starts_with(IN_PROCESS_BROKER)) {
        return Ok(HashMap::new());
    }
    let mut times = TopicPartitionList::new();
    for number in numbers {
        times.add_partition_offset(topic, *number, Offset::Offset(at_ms))?;
    }
    let found = consumer.offsets_for_times(times, BROKER_TIMEOUT)?;
    let offset = |offset| match offset {
        Offset::Offset(offset) => offset,
        // No record is that new.
        _ => i64::MAX,
    };
    Ok(found.elements().iter().map(|element| (element.partition(), offset(element.offset()))).collect())
}
