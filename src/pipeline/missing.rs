//! Events for inactive webhooks: nothing is sent, and their positions are recorded, so that they can be sent later.

use std::sync::Arc;

use super::dispatch::Dispatcher;
use super::predecessors::Predecessors;
use super::receipt::Receipt;
use super::settle::Settlement;
use crate::delivery::{Delivery, DeliveryId, FirstRead};
use crate::event::Event;
use crate::store::marks::Settled;
use crate::store::missed::MissedEvent;
use crate::webhook::Webhook;

/// Records that an inactive webhook misses an event. The mark of the delivery is recorded in the same step: if the record
/// is read again after a crash, the webhook doesn't get it as well, even if it is active by then.
pub(super) async fn miss(
    dispatcher: &Arc<Dispatcher>,
    predecessors: &Predecessors,
    webhook: &Webhook,
    event: &Event,
    first: &FirstRead,
    receipt: &Arc<Receipt>,
) {
    let id = Settled::Delivery(DeliveryId::of(&event.id, webhook.id));
    if *first.source.topic != *dispatcher.names.events() || predecessors.settled(receipt, id).await {
        return;
    }
    let missed = match *receipt.partition.topic == *first.source.topic {
        true => MissedEvent::while_inactive(webhook, first.source.partition, first.source.offset),
        // The replay of a record that could not be read. It comes out of order.
        false => MissedEvent::single(webhook.id, &first.source),
    };
    let permits = dispatcher.permits.write().await;
    receipt.add();
    let Some(handling) = dispatcher.handle(receipt.clone(), permits) else { return };
    dispatcher.settler.settle(Settlement::silent(id, handling).missed(Some(missed))).await;
}

impl Dispatcher {
    /// The event of a delivery that an inactive webhook misses. None if the event can't be found again.
    pub(super) fn missed(&self, delivery: &Delivery) -> Option<MissedEvent> {
        let is_there = *delivery.source.topic == *self.names.events() && !delivery.event_type.is_operational();
        is_there.then(|| MissedEvent::single(delivery.webhook_id, &delivery.source))
    }
}
