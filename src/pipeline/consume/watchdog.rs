//! Notices a consumer that polls and reads nothing although records wait for it.
//!
//! Nothing in this program makes one, but clients of Kafka have been seen to do so after rebalances and broker failures
//! (rust-rdkafka 638). Whoever operates it learns of it here instead of from its users.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::rebalance::Rebalances;
use crate::conditions::{Conditions, Severity};
use crate::pipeline::partition::Partition;

/// How long the broker may take to say how far a partition goes.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What was seen of the partitions.
pub(super) struct Watchdog {
    stall_after: Duration,
    conditions: Conditions,
    /// By the assignment's address; the entry keeps the assignment, so that no other can have it.
    seen: HashMap<usize, Seen>,
    looked: Instant,
}

struct Seen {
    partition: Arc<Partition>,
    /// Where reading had come to, and since when it has been there.
    end: Option<i64>,
    since: Instant,
    /// Where the partition ended when it was first found to stand still.
    high: Option<i64>,
    is_stalled: bool,
}

impl Watchdog {
    pub(super) fn new(stall_after: Duration, conditions: Conditions) -> Self {
        Self { stall_after, conditions, seen: HashMap::new(), looked: Instant::now() }
    }

    /// Looks at every partition, a few times within `kafka.stall_after`. Blocks on the network only for those that have stood
    /// still for that long.
    pub(super) fn look(&mut self, consumer: &BaseConsumer<Rebalances>) {
        let now = Instant::now();
        if now.duration_since(self.looked) < self.stall_after / 4 {
            return;
        }
        self.looked = now;
        for partition in consumer.context().partitions() {
            let seen = self.seen.entry(Arc::as_ptr(&partition).addr()).or_insert_with(|| Seen {
                partition: partition.clone(),
                end: None,
                since: now,
                high: None,
                is_stalled: false,
            });
            let end = partition.span().map(|(_, end)| end);
            // While it is paused it isn't meant to be read.
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
    /// How many records wait beyond what was read, if they have become more since it stands still; 0 where that can't be
    /// known. The end of a partition alone says nothing: the last offsets may be markers of transactions, or compacted.
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
            format!("nothing is read of it although {unread} records wait, and more"),
        );
    } else if seen.is_stalled {
        conditions.clear(&name);
    }
    seen.is_stalled = unread > 0;
}
