//! What a crashed predecessor settled above its commit: loaded before the first record of a partition is fanned out.

use std::sync::Arc;

use redis::aio::ConnectionManager;
use uuid::Uuid;

use super::partition::{Partition, Receipt};
use super::settle::Groups;
use crate::conditions::{Conditions, Severity};
use crate::store::Keys;
use crate::store::marks::{self, Mark};

/// Loads the marks of each partition once.
#[derive(Clone)]
pub struct Predecessors {
    /// To Redis.
    pub connection: ConnectionManager,
    /// Its keys.
    pub keys: Keys,
    /// Which group reads a topic.
    pub groups: Groups,
    /// Where a wait shows.
    pub conditions: Conditions,
}

impl Predecessors {
    /// Whether a predecessor settled this already; waits while Redis is away.
    pub async fn settled(&self, receipt: &Receipt, id: Uuid) -> bool {
        let loaded = receipt.partition.predecessor.get_or_init(async || self.load(&receipt.partition).await).await;
        loaded.contains(Mark::of(id, receipt.offset, receipt.timestamp_ms))
    }

    async fn load(&self, partition: &Arc<Partition>) -> marks::Loaded {
        let key = self.groups.marks_key(&self.keys, partition);
        let mut outage = self.conditions.outage("redis: reading what is settled", Severity::NotReady);
        loop {
            let mut connection = self.connection.clone();
            let loaded = if partition.marks_are_void {
                marks::discard(&mut connection, &key).await
            } else {
                marks::load(&mut connection, &key).await
            };
            match loaded {
                Ok(loaded) => {
                    partition.inherited(&loaded.entries);
                    tracing::debug!(topic = %partition.topic, partition = partition.number, marks = loaded.marks.len(), "marks loaded");
                    return loaded;
                }
                Err(error) => {
                    outage.failed(format_args!("{key} can't be read: {error}"));
                    outage.wait().await;
                }
            }
        }
    }
}
