//! Detects a consumer that polls but reads nothing, although records wait for it, and has it replaced.
//!
//! Nothing in this program causes that, but Kafka clients have stalled in this way after rebalances and broker failures
//! (rust-rdkafka issue 638), and when a topic was deleted and created again. `/readyz` shows it first, so that operators
//! know about it before users do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::peek::{Found, Suspects};
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

    /// Looks at every partition, a few times within `kafka.stall_after`. `records` looks for records that are not read.
    /// During a rebalance nothing is read, because a drain waits for requests in flight.
    pub(super) fn look(
        &mut self,
        partitions: &[Arc<Partition>],
        is_rebalancing: bool,
        records: impl FnOnce(&Suspects) -> Found,
    ) {
        let now = Instant::now();
        if now.duration_since(self.looked_at) < self.stall_after / 4 {
            return;
        }
        self.looked_at = now;
        let mut suspects = Vec::new();
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
            if end != seen.end || is_rebalancing || partition.paused.load(Ordering::Relaxed) {
                (seen.end, seen.since, seen.first_log_end) = (end, now, None);
            }
            let is_quiet = now.duration_since(seen.since) >= self.stall_after;
            match seen.suspected_at().filter(|_| is_quiet) {
                Some(offset) => suspects.push((partition.clone(), offset)),
                None => drop(report(&self.conditions, seen, 0)),
            }
        }
        let found = if suspects.is_empty() { Found::new() } else { records(&suspects) };
        for (partition, _) in suspects {
            let Some(seen) = self.seen.get_mut(&Arc::as_ptr(&partition).addr()) else { continue };
            let unread = seen.unread(found.get(&(partition.topic.clone(), partition.number)).copied());
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
    /// The offset at which a record may wait. A distance from the end of the log alone proves nothing, because the last
    /// offsets may be transaction markers or compacted records, and an end below the position may be that of a topic
    /// that was created again.
    fn suspected_at(&self) -> Option<i64> {
        let (end, log_end) = (self.end?, self.partition.log_end()?);
        (self.distance() > 0 && self.nothing_between != Some((end, log_end))).then_some(end)
    }

    /// The number of offsets that were not read. It is 0 if it can't be known.
    fn distance(&self) -> i64 {
        match (self.end, self.partition.log_end()) {
            (Some(end), Some(log_end)) if log_end < end => log_end,
            (Some(end), Some(log_end)) => log_end - end,
            _ => 0,
        }
    }

    /// The approximate number of records that wait to be read. `has_record` says whether there is one; None if nobody
    /// knows.
    fn unread(&mut self, has_record: Option<bool>) -> i64 {
        let (Some(end), Some(log_end)) = (self.end, self.partition.log_end()) else { return 0 };
        let first = *self.first_log_end.get_or_insert(log_end);
        if has_record == Some(false) {
            self.nothing_between = Some((end, log_end));
        }
        // What is written meanwhile is most likely no marker.
        let waits = has_record.unwrap_or(log_end > first.max(end));
        if waits { self.distance() } else { 0 }
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
        assert_eq!(growing.suspected_at(), Some(10));
        assert_eq!(growing.unread(None), 0, "nobody knows whether these are records");
        growing.partition.log_ends_at(16);
        assert_eq!(growing.unread(None), 6);
        assert_eq!(seen(10, 15).unread(Some(true)), 5, "nothing more needs to be written");
        assert_eq!(seen(10, 10).suspected_at(), None);
    }

    #[test]
    fn a_topic_that_was_created_again_is_suspected_although_its_end_is_below_the_position() {
        let mut again = seen(10, 4);
        assert_eq!(again.suspected_at(), Some(10));
        assert_eq!(again.unread(Some(true)), 4);
        assert_eq!(seen(10, 0).suspected_at(), None, "an empty log has no records");
    }

    #[test]
    fn markers_are_looked_at_once() {
        let mut marked = seen(10, 11);
        assert_eq!((marked.unread(Some(false)), marked.suspected_at()), (0, None));
        marked.partition.log_ends_at(12);
        assert_eq!(marked.suspected_at(), Some(10), "the log has grown, perhaps by a record");
        assert_eq!((marked.unread(Some(false)), marked.suspected_at()), (0, None));
    }

    #[test]
    fn a_consumer_is_replaced_after_two_looks_that_find_a_record() {
        let must_be_replaced = Arc::<AtomicBool>::default();
        let mut watchdog = Watchdog::new(Duration::ZERO, Conditions::default(), must_be_replaced.clone());
        let partition = seen(0, 0).partition;
        partition.begins_at(10, None);
        partition.log_ends_at(4);
        let record = |suspects: &Suspects| {
            suspects.iter().map(|(partition, _)| ((partition.topic.clone(), partition.number), true)).collect()
        };
        for has_looked in [false, true] {
            assert!(!must_be_replaced.load(Ordering::Relaxed));
            watchdog.look(std::slice::from_ref(&partition), false, record);
            assert_eq!(watchdog.seen.values().next().unwrap().stalled_looks, if has_looked { 2 } else { 1 });
        }
        assert!(must_be_replaced.load(Ordering::Relaxed));
    }

    #[test]
    fn a_rebalance_that_waits_for_requests_in_flight_is_no_stall() {
        let must_be_replaced = Arc::<AtomicBool>::default();
        let mut watchdog = Watchdog::new(Duration::from_millis(4), Conditions::default(), must_be_replaced.clone());
        let partition = seen(0, 0).partition;
        partition.begins_at(10, None);
        partition.log_ends_at(14);
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(2));
            watchdog.look(std::slice::from_ref(&partition), true, |_| panic!("nothing is suspected"));
        }
        assert!(!must_be_replaced.load(Ordering::Relaxed));
    }
}
