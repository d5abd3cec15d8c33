//! Events for inactive webhooks: nothing is sent, and their positions are recorded, so that they can be sent later.

use std::sync::Arc;

use super::dispatch::Dispatcher;
use super::predecessors::Predecessors;
use super::receipt::Receipt;
use super::settle::Settlement;
use crate::delivery::{Delivery, DeliveryId, FirstRead};
use crate::event::Event;
use crate::position::RecordPosition;
use crate::store::marks::Settled;
use crate::store::missed::MissedEvent;
use crate::webhook::WebhookId;

/// Records that inactive webhooks miss an event. Each comes with the time of its last change. The marks of the deliveries are recorded in the same step: if the record is
/// read again after a crash, the webhooks don't get it as well, even if they are active by then.
pub(super) async fn miss(
    dispatcher: &Arc<Dispatcher>,
    predecessors: &Predecessors,
    webhooks: &[(WebhookId, String)],
    event: &Event,
    first: &FirstRead,
    receipt: &Arc<Receipt>,
) {
    if *first.source.topic != *dispatcher.names.events() {
        return;
    }
    let is_in_order = *receipt.partition.topic == *first.source.topic;
    let mut missed = Vec::with_capacity(webhooks.len());
    for (webhook, updated_at) in webhooks {
        let id = DeliveryId::of(&event.id, *webhook);
        if predecessors.settled(receipt, Settled::Delivery(id)).await {
            continue;
        }
        let one = match is_in_order {
            true => {
                let RecordPosition { partition, offset, .. } = first.source;
                MissedEvent::while_inactive(*webhook, updated_at, partition, offset)
            }
            // The replay of a record that could not be read. It comes out of order.
            false => MissedEvent::single(*webhook, &first.source),
        };
        missed.push((id, one));
    }
    if missed.is_empty() {
        return;
    }
    let permits = dispatcher.permits.write().await;
    receipt.add();
    let Some(handling) = dispatcher.handle(receipt.clone(), permits) else { return };
    dispatcher.settler.settle(Settlement::missed_by_all(missed, handling)).await;
}

impl Dispatcher {
    /// The event of a delivery that an inactive webhook misses. None if the event can't be found again.
    pub(super) fn missed(&self, delivery: &Delivery) -> Option<MissedEvent> {
        let is_there = *delivery.source.topic == *self.names.events() && !delivery.event_type.is_operational();
        is_there.then(|| MissedEvent::single(delivery.webhook_id, &delivery.source))
    }
}
