//! Dead-letters records that can't be decoded, or whose handling panics.

use crate::metrics;
use crate::store::marks::Settled;
use std::sync::Arc;

use rdkafka::message::OwnedHeaders;

use super::dispatch::Dispatcher;
use super::hand_off::HandedOff;
use super::incoming::Unreadable;
use super::panics;
use super::predecessors::Predecessors;
use super::receipt::Receipt;
use super::settle::Settlement;
use crate::delivery::DeadReason;
use crate::event::Event;
use crate::position::RecordPosition;
use crate::record::UnreadOrigin;

/// Dead-letters a record that can't be read.
pub(super) async fn unreadable(
    dispatcher: &Arc<Dispatcher>,
    predecessors: &Predecessors,
    record: Arc<Unreadable>,
    receipt: Arc<Receipt>,
) {
    metrics::EVENTS.increment(record.reason.as_str());
    if predecessors.settled(&receipt, Settled::Record).await {
        return receipt.settle();
    }
    let permits = dispatcher.permits.write().await;
    let Some(mut handling) = dispatcher.handle(receipt, permits) else { return };
    let dispatcher = dispatcher.clone();
    tokio::spawn(async move {
        if dispatcher.hand_off.unreadable(&record, &mut handling).await == HandedOff::Written {
            dispatcher.settler.settle(Settlement::silent(Settled::Record, handling)).await;
        }
    });
}

/// The dead letter of an event whose handling panicked. The record itself is no longer in memory, so the dead letter
/// has the payload that was made of it, and the position of the record.
pub(super) fn panicked(event: &Event, source: RecordPosition, replays: u32, receipt: &Receipt) -> Arc<Unreadable> {
    Arc::new(Unreadable {
        key: Some(event.task_id.as_bytes().to_vec()),
        value: Some(event.body.to_vec()),
        headers: OwnedHeaders::new(),
        origin: UnreadOrigin { source, timestamp_ms: receipt.timestamp_ms, replays },
        reason: DeadReason::Malformed,
        detail: panics::detail(),
    })
}
