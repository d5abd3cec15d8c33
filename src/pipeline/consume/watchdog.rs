//! Detects a consumer that polls but reads nothing, although records wait for it, and has it replaced.
//!
//! Nothing in this program causes that, but Kafka clients have stalled in this way after rebalances and broker failures
//! (rust-rdkafka issue 638). `/readyz` shows it first, so that operators know about it before users do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::conditions::{Conditions, Severity};
use crate::pipeline::partition::Partition;

/// The last observations of each partition.
pub(super) struct Watchdog {
    stall_after: Duration,
    conditions: Conditions,
    /// The observations by the address of their partition. Each entry keeps its partition alive, so that no other
    /// partition can have the same address.
    seen: HashMap<usize, Seen>,
    looked_at: Instant,
    /// Set when the consumer has to be replaced.
    must_be_replaced: Arc<AtomicBool>,
}

struct Seen {
    partition: Arc<Partition>,
    /// The offset after the last record that was read.
    end: Option<i64>,
    /// The time since when `end` has not changed.
    since: Instant,
    /// The end of the log when it was first found to make no progress.
    first_log_end: Option<i64>,
    /// The number of looks in a row that found it stalled.
    stalled_looks: u32,
}

/// The number of looks in a row that must find a partition stalled before its consumer is replaced.
const LOOKS_BEFORE_REPLACED: u32 = 2;

impl Watchdog {
    pub(super) fn new(stall_after: Duration, conditions: Conditions, must_be_replaced: Arc<AtomicBool>) -> Self {
        Self { stall_after, conditions, seen: HashMap::new(), looked_at: Instant::now(), must_be_replaced }
    }

    /// Looks at every partition, a few times within `kafka.stall_after`.
    pub(super) fn look(&mut self, partitions: &[Arc<Partition>]) {
        let now = Instant::now();
        if now.duration_since(self.looked_at) < self.stall_after / 4 {
            return;
        }
        self.looked_at = now;
        for partition in partitions {
            let seen = self.seen.entry(Arc::as_ptr(partition).addr()).or_insert_with(|| Seen {
                partition: partition.clone(),
                end: None,
                since: now,
                first_log_end: None,
                stalled_looks: 0,
            });
            let end = partition.span().map(|(_, end)| end);
            // A paused partition is not expected to make progress.
            if end != seen.end || partition.paused.load(Ordering::Relaxed) {
                (seen.end, seen.since, seen.first_log_end) = (end, now, None);
            }
            let is_quiet = now.duration_since(seen.since) >= self.stall_after;
            let unread = if is_quiet { seen.unread() } else { 0 };
            if report(&self.conditions, seen, unread) >= LOOKS_BEFORE_REPLACED {
                self.must_be_replaced.store(true, Ordering::Relaxed);
            }
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

impl Drop for Watchdog {
    fn drop(&mut self) {
        for seen in self.seen.values_mut() {
            report(&self.conditions, seen, 0);
        }
    }
}

impl Seen {
    /// The number of records that wait to be read, if it has grown since the partition made no progress. It is 0 if it
    /// can't be known. A distance from the end of the log alone proves nothing, because the last offsets may be
    /// transaction markers or compacted records.
    fn unread(&mut self) -> i64 {
        let (Some(end), Some(log_end)) = (self.end, self.partition.log_end()) else { return 0 };
        let first = *self.first_log_end.get_or_insert(log_end);
        if log_end > first { log_end.saturating_sub(end).max(0) } else { 0 }
    }
}

/// Raises or ends the condition. Returns the number of looks in a row that found the partition stalled.
fn report(conditions: &Conditions, seen: &mut Seen, unread: i64) -> u32 {
    let name = format!("kafka: reading {}/{}", seen.partition.topic, seen.partition.number);
    if unread > 0 {
        seen.stalled_looks += 1;
        conditions.set(
            &name,
            Severity::NotReady,
            format!("nothing is read although {unread} records wait, and their number grows"),
        );
    } else if std::mem::take(&mut seen.stalled_looks) > 0 {
        conditions.clear(&name);
    }
    seen.stalled_looks
}
