//! How often a delivery may be repeated: after an interruption, each of its records that was not settled is handled again.

use std::collections::BTreeSet;

use super::outside::{Outside, Stored, event_id};
use crate::delivery::DeliveryId;
use crate::offsets::commit_note;
use crate::position::{Offset, TimestampMs};
use crate::store::Keys;
use crate::store::marks::{self, Mark, Settled};

impl Outside {
    /// Work in flight was cut off: in one partition, or in all of them if the process died.
    pub fn interrupted(&mut self, only: Option<&(String, i32)>) {
        let all = [self.partitions(true), self.partitions(false)].concat();
        for partition in all.iter().filter(|partition| only.is_none_or(|only| only == *partition)) {
            for delivery in self.open(partition) {
                *self.may_repeat.entry(delivery).or_default() += 1;
            }
        }
    }

    /// The deliveries of the records in a partition that neither a commit, its note nor a mark says to be settled.
    fn open(&self, partition: &(String, i32)) -> Vec<String> {
        let (topic, number) = partition;
        let (committed, note) = self.commits.get(partition).cloned().unwrap_or_default();
        let note = commit_note::decode(&note, committed);
        let marked = self.marked(topic, *number);
        let log = self.logs.get(partition).map_or(&[][..], Vec::as_slice);
        let open = (0_i64..)
            .zip(log)
            .filter(|(offset, _)| *offset >= committed && !note.as_ref().is_some_and(|note| note.is_settled(*offset)));
        open.flat_map(|(offset, record)| self.deliveries(record).into_iter().map(move |id| (offset, record, id)))
            .filter(|(offset, record, id)| {
                let mark = Mark::of(Settled::Delivery(*id), Offset(*offset), TimestampMs(record.timestamp_ms));
                !marked.contains(&marks::encode(0, &[mark])[8..])
            })
            .map(|(_, _, id)| id.to_string())
            .collect()
    }

    /// All marks in the stream of a partition. Without a commit they are void, because the offsets may have been lost
    /// ([`crate::pipeline::committed`]).
    fn marked(&self, topic: &str, number: i32) -> BTreeSet<&[u8]> {
        if !self.commits.contains_key(&(topic.to_owned(), number)) {
            return BTreeSet::new();
        }
        let names = &self.names;
        let group = if names.is_waiting(topic) { names.retry_group() } else { names.events_group().to_owned() };
        let key = Keys::new(&self.config.redis.prefix).marks(&group, topic, number);
        let entries = self.marks.get(key.as_bytes()).into_iter().flatten();
        // Each entry begins with its highest offset.
        entries.flat_map(|(_, entry)| entry[8..].chunks_exact(8)).collect()
    }

    fn deliveries(&self, record: &Stored) -> Vec<DeliveryId> {
        match &record.delivery {
            Some(delivery) => vec![delivery.parse().expect("the worker wrote its id")],
            None => {
                let event = event_id(record);
                self.webhooks.iter().map(|webhook| DeliveryId::of(&event, webhook.id)).collect()
            }
        }
    }
}
