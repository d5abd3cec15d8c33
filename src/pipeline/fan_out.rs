//! From a record to its deliveries: one per webhook that wants the event, as places come free.

use std::sync::Arc;

use redis::aio::ConnectionManager;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::partition::{Partition, Receipt};
use super::settle::{Groups, Settlement};
use super::{Batch, Incoming, Open, Pipeline};
use crate::delivery::{Delivery, DeliveryId, Source};
use crate::event::Event;
use crate::record::LastError;
use crate::schedule::Reconnect;
use crate::store::Keys;
use crate::store::marks::{self, Mark};
use crate::store::snapshot::Snapshot;

/// Loads what a predecessor settled.
#[derive(Clone)]
pub struct Predecessors {
    /// To Redis.
    pub connection: ConnectionManager,
    /// Its keys.
    pub keys: Keys,
    /// Which group reads a topic.
    pub groups: Groups,
}

impl Predecessors {
    /// Whether a predecessor settled this already; waits while Redis is away.
    async fn settled(&self, receipt: &Receipt, id: Uuid) -> bool {
        let loaded = receipt.partition.predecessor.get_or_init(async || self.load(&receipt.partition).await).await;
        loaded.contains(Mark::of(id, receipt.offset, receipt.timestamp_ms))
    }

    async fn load(&self, partition: &Arc<Partition>) -> marks::Loaded {
        let key = self.groups.marks_key(&self.keys, partition);
        let mut reconnect = Reconnect::default();
        loop {
            match marks::load(&mut self.connection.clone(), &key).await {
                Ok(loaded) => {
                    for entry in &loaded.entries {
                        partition.marked(entry.clone());
                    }
                    tracing::debug!(topic = %partition.topic, partition = partition.number, marks = loaded.marks.len(), "marks loaded");
                    return loaded;
                }
                Err(error) => {
                    tracing::warn!(%error, key, "what was settled can't be read; tried again");
                    reconnect.wait().await;
                }
            }
        }
    }
}

/// Fans out what a consumer hands over, in its order, until the consumer is gone.
pub async fn run(pipeline: Arc<Pipeline>, predecessors: Predecessors, mut batches: mpsc::Receiver<Batch>) {
    while let Some(batch) = batches.recv().await {
        for (incoming, receipt) in batch {
            match incoming {
                Incoming::Nothing => receipt.settle(),
                Incoming::Event { event, traceparent } => {
                    fan_out(&pipeline, &predecessors, event, traceparent, receipt).await;
                }
                Incoming::Due { delivery, last } => due(&pipeline, &predecessors, *delivery, last, receipt).await,
                Incoming::Far { delivery, last, due_at_ms } => {
                    far(&pipeline, &predecessors, *delivery, last, due_at_ms, receipt).await;
                }
                Incoming::Unreadable(record) => {
                    if predecessors.settled(&receipt, Uuid::nil()).await {
                        receipt.settle();
                        continue;
                    }
                    let permits = pipeline.place(false).await;
                    let Some(in_flight) = receipt.start() else { continue };
                    let pipeline = pipeline.clone();
                    let source = source_of(&receipt);
                    tracing::warn!(topic = %source.topic, partition = source.partition, offset = source.offset, reason = record.reason.as_str(), detail = record.detail, "dead-lettered");
                    tokio::spawn(async move {
                        pipeline.hand_off.unreadable(*record, &source).await;
                        pipeline
                            .settler
                            .settle(Settlement::silent(Uuid::nil(), receipt, in_flight, Some(permits)))
                            .await;
                    });
                }
            }
        }
    }
}

fn source_of(receipt: &Receipt) -> Source {
    Source { topic: receipt.partition.topic.clone(), partition: receipt.partition.number, offset: receipt.offset }
}

async fn fan_out(
    pipeline: &Arc<Pipeline>,
    predecessors: &Predecessors,
    event: Event,
    traceparent: Option<String>,
    receipt: Arc<Receipt>,
) {
    let snapshot: Arc<Snapshot> = pipeline.snapshots.current().await;
    for webhook in snapshot.matching(event.event_type).iter() {
        let id = DeliveryId::of(&event.id, webhook.id);
        if predecessors.settled(&receipt, id.0).await {
            continue;
        }
        let permits = pipeline.place(false).await;
        // Revoked meanwhile: the next owner fans out the rest.
        if receipt.partition.is_closed() {
            return;
        }
        let delivery = Delivery {
            id,
            webhook_id: webhook.id,
            event_type: event.event_type,
            event_id: event.id.clone(),
            task_id: event.task_id.clone(),
            body: event.body.clone(),
            attempts: 0,
            deferrals: 0,
            first_seen_at_ms: crate::delivery::now_ms(),
            source: source_of(&receipt),
            replays: 0,
            traceparent: traceparent.clone(),
        };
        receipt.add();
        let order_key = pipeline.order_key(&delivery, false);
        pipeline.submit(Open { delivery, last: LastError::default(), receipt: receipt.clone(), permits, order_key });
    }
    receipt.settle();
}

async fn due(
    pipeline: &Arc<Pipeline>,
    predecessors: &Predecessors,
    delivery: Delivery,
    last: LastError,
    receipt: Arc<Receipt>,
) {
    if predecessors.settled(&receipt, delivery.id.0).await {
        return receipt.settle();
    }
    let permits = pipeline.place(true).await;
    let order_key = pipeline.order_key(&delivery, true);
    pipeline.submit(Open { delivery, last, receipt, permits, order_key });
}

/// Written again into the tier that fits what is left of its wait.
async fn far(
    pipeline: &Arc<Pipeline>,
    predecessors: &Predecessors,
    delivery: Delivery,
    last: LastError,
    due_at_ms: i64,
    receipt: Arc<Receipt>,
) {
    if predecessors.settled(&receipt, delivery.id.0).await {
        return receipt.settle();
    }
    let permits = pipeline.place(true).await;
    let Some(in_flight) = receipt.start() else { return };
    let pipeline = pipeline.clone();
    tokio::spawn(async move {
        let left_ms = u64::try_from(due_at_ms - crate::delivery::now_ms()).unwrap_or(0);
        let tier = pipeline.policy.schedule.tier_for(std::time::Duration::from_millis(left_ms));
        pipeline.hand_off.retry(&delivery, tier, due_at_ms, last).await;
        pipeline.settler.settle(Settlement::silent(delivery.id.0, receipt, in_flight, Some(permits))).await;
    });
}
