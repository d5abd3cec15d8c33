//! Finds partitions that no member of the consumer group has.
//!
//! Every partition of a topic that the group reads belongs to one member, except during a rebalance. Kafka clients have
//! failed to join their group again after their session had timed out, although they went on to poll. Such a client has no
//! partition that could be found stalled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::Blueprint;
use super::group::Reads;
use crate::conditions::{Conditions, Severity};
use crate::kafka::describe::members::Partitions;

/// For how many times `kafka.stall_after` a partition must have had no member. A rebalance may take longer than once.
const PATIENCE: u32 = 2;

/// Looks at the whole group, once within `kafka.stall_after`.
pub(super) struct Coverage {
    group: String,
    reads: Reads,
    stall_after: Duration,
    conditions: Conditions,
    missing: Missing,
    looked_at: Instant,
    /// Set when the consumer has to be replaced.
    must_be_replaced: Arc<AtomicBool>,
}

impl Coverage {
    pub(super) fn new(blueprint: &Blueprint, must_be_replaced: Arc<AtomicBool>) -> Self {
        Self {
            group: blueprint.parts.group.clone(),
            reads: blueprint.reads.clone(),
            stall_after: blueprint.stall_after,
            conditions: blueprint.conditions.clone(),
            missing: Missing::default(),
            looked_at: Instant::now(),
            must_be_replaced,
        }
    }

    /// Asks for the partitions of all topics and for those that the members of the group have, if it is time. None for
    /// the members means that nobody can say, for example during a rebalance. One that lasts is not the fault of this
    /// consumer: if it were replaced, it would only wait for the same member as before, and keep no partitions meanwhile.
    pub(super) fn look(&mut self, ask: impl FnOnce(&str) -> Result<(Partitions, Option<Partitions>), String>) {
        if self.looked_at.elapsed() < self.stall_after {
            return;
        }
        self.looked_at = Instant::now();
        let (mut all, assigned) = match ask(&self.group) {
            Ok((all, Some(assigned))) => (all, assigned),
            Ok((_, None)) => return self.missing = Missing::default(),
            Err(error) => return tracing::debug!(group = self.group, error, "the members of a group can't be read"),
        };
        all.retain(|(topic, _)| (self.reads)(topic));
        let missing = self.missing.count(all, &assigned, self.looked_at, self.stall_after * PATIENCE);
        tracing::debug!(group = self.group, missing, "looked for partitions without a member");
        if missing == 0 {
            return self.conditions.clear(&self.condition());
        }
        let reason = format!("no member of the group has {missing} of the partitions that it must read");
        self.conditions.set(&self.condition(), Severity::NotReady, reason);
        self.must_be_replaced.store(true, Ordering::Relaxed);
    }

    fn condition(&self) -> String {
        format!("kafka: members of {}", self.group)
    }
}

impl Drop for Coverage {
    fn drop(&mut self) {
        self.conditions.clear(&self.condition());
    }
}

/// The partitions without a member, each with the time at which it was first found without one.
#[derive(Debug, Default)]
struct Missing(HashMap<(String, i32), Instant>);

impl Missing {
    /// Compares the partitions that the group must read with those that its members have. Returns how many have had no
    /// member for at least `patience`.
    fn count(&mut self, must_read: Partitions, assigned: &Partitions, now: Instant, patience: Duration) -> usize {
        let before = std::mem::take(&mut self.0);
        let missing = must_read.into_iter().filter(|partition| !assigned.contains(partition));
        let with_time = missing.map(|partition| {
            let since = *before.get(&partition).unwrap_or(&now);
            (partition, since)
        });
        self.0 = with_time.collect();
        self.0.values().filter(|since| now.duration_since(**since) >= patience).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(numbers: impl IntoIterator<Item = i32>) -> Partitions {
        numbers.into_iter().map(|number| ("t".to_owned(), number)).collect()
    }

    #[test]
    fn a_partition_is_missing_if_it_has_had_no_member_all_the_time() {
        let (mut found, began) = (Missing::default(), Instant::now());
        let mut missing = |assigned: Partitions, seconds| {
            let (now, patience) = (began + Duration::from_secs(seconds), Duration::from_secs(60));
            found.count(partitions(0..4), &assigned, now, patience)
        };
        assert_eq!(missing(partitions([]), 0), 0, "a rebalance takes a while");
        assert_eq!(missing(partitions([0, 1]), 59), 0);
        assert_eq!(missing(partitions([0]), 60), 2, "partition 1 had a member a second ago");
        assert_eq!(missing(partitions(0..4), 100), 0);
        assert_eq!(missing(partitions([]), 119), 0, "the time counts anew");
        assert_eq!(missing(partitions([]), 179), 4);
    }

    #[test]
    fn a_topic_that_is_gone_is_not_missing() {
        let (mut found, began) = (Missing::default(), Instant::now());
        assert_eq!(found.count(partitions([7]), &Partitions::new(), began, Duration::ZERO), 1);
        assert_eq!(found.count(Partitions::new(), &Partitions::new(), began, Duration::ZERO), 0);
    }
}
