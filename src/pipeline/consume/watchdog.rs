//! Detects a consumer that polls but reads nothing, although records wait for it.
//!
//! Nothing in this program causes that, but Kafka clients have stalled in this way after rebalances and broker failures
//! (rust-rdkafka issue 638). `/readyz` shows it, so that operators know about it before users do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::rebalance::Rebalances;
use crate::conditions::{Conditions, Severity};
use crate::pipeline::partition::Partition;

/// The time that the broker may take to name the end of a partition.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The last observations of each partition.
pub(super) struct Watchdog {
    stall_after: Duration,
    conditions: Conditions,
    /// The observations by the address of their partition. Each entry keeps its partition alive, so that no other
    /// partition can have the same address.
    seen: HashMap<usize, Seen>,
    looked_at: Instant,
}

struct Seen {
    partition: Arc<Partition>,
    /// The offset after the last record that was read.
    end: Option<i64>,
    /// The time since when `end` has not changed.
    since: Instant,
    /// The end of the partition when it was first found to make no progress.
    high: Option<i64>,
    is_stalled: bool,
}

impl Watchdog {
    pub(super) fn new(stall_after: Duration, conditions: Conditions) -> Self {
        Self { stall_after, conditions, seen: HashMap::new(), looked_at: Instant::now() }
    }

    /// Looks at every partition, a few times within `kafka.stall_after`. Blocks on the network only for partitions that
    /// have made no progress for that time.
    pub(super) fn look(&mut self, consumer: &BaseConsumer<Rebalances>) {
        let now = Instant::now();
        if now.duration_since(self.looked_at) < self.stall_after / 4 {
            return;
        }
        self.looked_at = now;
        for partition in consumer.context().partitions() {
            let seen = self.seen.entry(Arc::as_ptr(&partition).addr()).or_insert_with(|| Seen {
                partition: partition.clone(),
                end: None,
                since: now,
                high: None,
                is_stalled: false,
            });
            let end = partition.span().map(|(_, end)| end);
            // A paused partition is not expected to make progress.
            if end != seen.end || partition.paused.load(Ordering::Relaxed) {
                (seen.end, seen.since, seen.high) = (end, now, None);
            }
            let is_quiet = now.duration_since(seen.since) >= self.stall_after;
            let unread = if is_quiet { seen.unread(consumer) } else { 0 };
            report(&self.conditions, seen, unread);
        }
        let conditions = &self.conditions;
        self.seen.retain(|_, seen| {
            let is_ours = !seen.partition.is_closed();
            if !is_ours {
                report(conditions, seen, 0);
            }
            is_ours
        });
    }
}

impl Seen {
    /// The number of records that wait to be read, if it has grown since the partition made no progress. It is 0 if it
    /// can't be known. A distance from the end of the partition alone proves nothing, because the last offsets may be
    /// transaction markers or compacted records.
    fn unread(&mut self, consumer: &BaseConsumer<Rebalances>) -> i64 {
        let Some(end) = self.end else { return 0 };
        let Ok((_, high)) = consumer.fetch_watermarks(&self.partition.topic, self.partition.number, ANSWER_MAX) else {
            return 0;
        };
        let first = *self.high.get_or_insert(high);
        if high > first { high.saturating_sub(end).max(0) } else { 0 }
    }
}

fn report(conditions: &Conditions, seen: &mut Seen, unread: i64) {
    let name = format!("kafka: reading {}/{}", seen.partition.topic, seen.partition.number);
    if unread > 0 {
        conditions.set(
            &name,
            Severity::NotReady,
            format!("nothing is read although {unread} records wait, and their number grows"),
        );
    } else if seen.is_stalled {
        conditions.clear(&name);
    }
    seen.is_stalled = unread > 0;
}
