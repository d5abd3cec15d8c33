//! The deliveries that a crashed predecessor settled above its commit. Their marks are loaded before the first record
//! of a partition is fanned out.

use std::sync::Arc;

use super::partition::Partition;
use super::receipt::Receipt;
use crate::conditions::{Conditions, Severity};
use crate::position::{Offset, TimestampMs};
use crate::store::is_away;
use crate::store::marks::{Loaded, Mark, MarkStreams, Page, Settled};

/// Loads the marks of each partition once.
#[derive(Clone)]
pub struct Predecessors {
    /// The streams of marks.
    pub marks: MarkStreams,
    /// The conditions that show a long wait.
    pub conditions: Conditions,
}

impl Predecessors {
    /// Whether a predecessor has settled this delivery. Waits while Redis is away.
    pub async fn settled(&self, receipt: &Receipt, what: Settled) -> bool {
        let predecessor = &receipt.partition.predecessor;
        let loaded = match predecessor.get() {
            Some(loaded) => loaded,
            None => Box::pin(predecessor.get_or_init(async || self.load(&receipt.partition).await)).await,
        };
        loaded.contains(Mark::of(what, Offset(receipt.offset), TimestampMs(receipt.timestamp_ms)))
    }

    async fn load(&self, partition: &Arc<Partition>) -> Loaded {
        let key = self.marks.key(&partition.topic, partition.number);
        let mut outage = self.conditions.outage("redis: reading what is settled", Severity::NotReady);
        let mut loaded = Loaded::default();
        // The next owner of a partition loads its marks itself. Nothing is started here any more.
        while !partition.is_closed() {
            let page = match partition.marks_are_void {
                true => self.marks.discard(&key).await.map(|()| Page::Last),
                false => self.marks.load(&key, &mut loaded).await,
            };
            match page {
                Ok(Page::More) => outage.over(),
                Ok(end) => {
                    partition.inherited(&loaded.entries);
                    let marks = loaded.marks.len();
                    tracing::debug!(topic = %partition.topic, partition = partition.number, marks, "marks loaded");
                    if end == Page::Full {
                        tracing::error!(
                            key,
                            marks,
                            "a predecessor left more marks than can be kept, so deliveries that it settled may be sent again"
                        );
                    }
                    return loaded;
                }
                // The key has another type, for example. Deliveries are then sent again after a crash, as with a lost
                // Redis.
                Err(error) if !is_away(&error) => {
                    tracing::error!(key, %error, "the marks of a predecessor can't be read, so deliveries may be sent again");
                    return loaded;
                }
                Err(error) => {
                    outage.failed(format_args!("{key} can't be read: {error}"));
                    outage.wait().await;
                }
            }
        }
        loaded
    }
}
