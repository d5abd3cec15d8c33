//! Detects a consumer that polls but reads nothing, although records wait for it, and has it replaced.
//!
//! Nothing in this program causes that, but Kafka clients have stalled in this way after rebalances and broker failures
//! (rust-rdkafka issue 638), and when a topic was deleted and created again. `/readyz` shows it first, so that operators know about it before users do.

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
    /// The two ends, `end` and that of the log, between which there is no record.
    nothing_between: Option<(i64, i64)>,
    /// The number of looks in a row that found it stalled.
    stalled_looks: u32,
}

/// The number of looks in a row that must find a partition stalled before its consumer is replaced.
const LOOKS_BEFORE_REPLACED: u32 = 2;

impl Watchdog {
    pub(super) fn new(stall_after: Duration, conditions: Conditions, must_be_replaced: Arc<AtomicBool>) -> Self {
        Self { stall_after, conditions, seen: HashMap::new(), looked_at: Instant::now(), must_be_replaced }
    }

    /// Looks at every partition, a few times within `kafka.stall_after`. `has_record` says whether a record can be read
    /// at an offset of a partition; None if it doesn't know.
    pub(super) fn look(&mut self, partitions: &[Arc<Partition>], has_record: impl Fn(&Partition, i64) -> Option<bool>) {
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
                nothing_between: None,
                stalled_looks: 0,
            });
            let end = partition.span().map(|(_, end)| end);
            // A paused partition is not expected to make progress.
            if end != seen.end || partition.paused.load(Ordering::Relaxed) {
                (seen.end, seen.since, seen.first_log_end) = (end, now, None);
            }
            let is_quiet = now.duration_since(seen.since) >= self.stall_after;
            let unread = if is_quiet { seen.unread(&has_record) } else { 0 };
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
    /// The approximate number of records that wait to be read. It is 0 if it can't be known. A distance from the end of
    /// the log alone proves nothing, because the last offsets may be transaction markers or compacted records, and an
    /// end below the position may be that of a topic that was created again.
    fn unread(&mut self, has_record: impl Fn(&Partition, i64) -> Option<bool>) -> i64 {
        let (Some(end), Some(log_end)) = (self.end, self.partition.log_end()) else { return 0 };
        let unread = if log_end < end { log_end } else { log_end - end };
        let first = *self.first_log_end.get_or_insert(log_end);
        if unread == 0 || self.nothing_between == Some((end, log_end)) {
            return 0;
        }
        match has_record(&self.partition, end) {
            Some(true) => unread,
            Some(false) => {
                self.nothing_between = Some((end, log_end));
                0
            }
            // What is written meanwhile is most likely no marker.
            None if log_end > first.max(end) => unread,
            None => 0,
        }
    }
}

/// Raises or ends the condition. Returns the number of looks in a row that found the partition stalled.
fn report(conditions: &Conditions, seen: &mut Seen, unread: i64) -> u32 {
    let name = format!("kafka: reading {}/{}", seen.partition.topic, seen.partition.number);
    if unread > 0 {
        seen.stalled_looks += 1;
        conditions.set(&name, Severity::NotReady, format!("nothing is read although about {unread} records wait"));
    } else if std::mem::take(&mut seen.stalled_looks) > 0 {
        conditions.clear(&name);
    }
    seen.stalled_looks
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::pipeline::committed::Committed;
    use crate::pipeline::standstill::Standstill;

    /// A partition that was read up to `end`, and whose log ends at `log_end`.
    fn seen(end: i64, log_end: i64) -> Seen {
        let standstill = Standstill::watch(Duration::from_secs(3_600)).unwrap();
        let partition = Arc::new(Partition::new("t".into(), 0, Committed::default(), standstill));
        partition.log_ends_at(log_end);
        Seen {
            partition,
            end: Some(end),
            since: Instant::now(),
            first_log_end: None,
            nothing_between: None,
            stalled_looks: 0,
        }
    }

    #[test]
    fn records_wait_if_the_log_grows_or_one_can_be_read() {
        let mut growing = seen(10, 15);
        assert_eq!(growing.unread(|_, _| None), 0, "nobody knows whether these are records");
        growing.partition.log_ends_at(16);
        assert_eq!(growing.unread(|_, _| None), 6);
        let at_once = |_: &Partition, offset| Some(offset == 10);
        assert_eq!(seen(10, 15).unread(at_once), 5, "nothing more needs to be written");
        assert_eq!(seen(10, 10).unread(|_, _| panic!("there is nothing to look for")), 0);
    }

    #[test]
    fn a_topic_that_was_created_again_is_read_from_its_beginning() {
        assert_eq!(seen(10, 4).unread(|_, _| Some(true)), 4);
        assert_eq!(seen(10, 0).unread(|_, _| panic!("an empty log has no records")), 0);
    }

    #[test]
    fn markers_are_looked_at_once() {
        let (mut marked, looks) = (seen(10, 11), Cell::new(0));
        let has_record = |_: &Partition, _| {
            looks.set(looks.get() + 1);
            Some(false)
        };
        assert_eq!([marked.unread(has_record), marked.unread(has_record)], [0, 0]);
        assert_eq!(looks.get(), 1);
        marked.partition.log_ends_at(12);
        assert_eq!(marked.unread(has_record), 0, "another marker is no record either");
        assert_eq!(looks.get(), 2);
    }
}
