//! Events for unsupported webhooks, which this version can't read. Their deliveries wait, and others go on.
//!
//! If the format of the webhook can be read, the delivery is made and deferred. If it can't be read, the body of the
//! delivery can't be made. The event is then parked in memory, and its offset stays open, until the webhook can be read
//! or is gone.

use crate::metrics;
use crate::store::marks::Settled;
use std::sync::Arc;
use std::time::Duration;

use super::dispatch::{Dispatcher, Open};
use super::panics;
use super::parking::{Parked, Parking};
use super::permits::{Claim, Permits};
use super::predecessors::Predecessors;
use super::receipt::Receipt;
use super::settle::Settlement;
use crate::delivery::{DeadReason, Deferral, Delivery, DeliveryId, FirstRead};
use crate::event::Event;
use crate::payload::Bodies;
use crate::record::LastError;
use crate::store::missed::MissedEvent;
use crate::store::snapshot::Snapshot;
use crate::webhook::unsupported::{Shape, Unsupported};
use crate::webhook::{Webhook, WebhookId};

/// The approximate bytes that an event takes in addition to its payload.
const EVENT_BYTES: usize = 4_096;
/// The time between two checks whether the partition of a parked event is still ours.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The events for unsupported webhooks of one consumer group.
pub(super) struct UnsupportedEvents {
    dispatcher: Arc<Dispatcher>,
    predecessors: Arc<Predecessors>,
    /// Bounds the bytes of the parked events. A group that has too many reads no further.
    parking: Arc<Parking>,
}

/// One event for one unsupported webhook.
#[derive(Clone)]
struct Part {
    dispatcher: Arc<Dispatcher>,
    webhook: WebhookId,
    event: Arc<Event>,
    first: FirstRead,
    receipt: Arc<Receipt>,
}

impl UnsupportedEvents {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, predecessors: Arc<Predecessors>, parking: Arc<Parking>) -> Self {
        Self { dispatcher, predecessors, parking }
    }

    /// Takes an event for `unsupported`. One part of the receipt stays open until the delivery is settled.
    pub(super) async fn take(
        &self,
        snapshot: &Arc<Snapshot>,
        unsupported: &Unsupported,
        event: &Arc<Event>,
        first: &FirstRead,
        receipt: &Arc<Receipt>,
    ) {
        if self.predecessors.settled(receipt, Settled::Delivery(DeliveryId::of(&event.id, unsupported.id))).await {
            return;
        }
        metrics::UNSUPPORTED_EVENTS.increment();
        receipt.add();
        let part = Part {
            dispatcher: self.dispatcher.clone(),
            webhook: unsupported.id,
            event: event.clone(),
            first: first.clone(),
            receipt: receipt.clone(),
        };
        match unsupported.shape.clone() {
            Some(shape) => part.defer(shape, Deferral::UNSUPPORTED).await,
            None => {
                let parked = self.parking.park(EVENT_BYTES + event.body.len());
                tokio::spawn(part.wait_guarded(snapshot.clone(), parked));
            }
        }
    }
}

impl Part {
    /// Waits as [`Self::wait`] does. A panic makes a dead letter of the event, so that it doesn't hold up its offset.
    async fn wait_guarded(self, snapshot: Arc<Snapshot>, parked: Parked) {
        let copy = self.clone();
        if panics::caught(self.wait(snapshot, parked)).await.is_err() {
            let permits = copy.dispatcher.permits.write().await;
            copy.give_up(permits);
        }
    }

    /// Waits until the webhook can be read or is gone, or until the partition is no longer ours.
    async fn wait(self, mut snapshot: Arc<Snapshot>, _parked: Parked) {
        loop {
            snapshot = tokio::select! {
                next = self.dispatcher.snapshots.after(&snapshot) => next,
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    if self.receipt.partition.is_closed() {
                        return;
                    }
                    continue;
                }
            };
            if let Some(webhook) = snapshot.matching(&self.event).iter().find(|one| one.id == self.webhook) {
                return self.submit(webhook).await;
            }
            if let Some(missed) = snapshot.missing(&self.event).into_iter().find(|(id, _)| *id == self.webhook) {
                return self.miss(missed.0).await;
            }
            let unsupported = snapshot.unsupported(self.event.event_type).find(|one| one.id == self.webhook);
            match unsupported.map(|unsupported| unsupported.shape.clone()) {
                Some(Some(shape)) => return self.defer(shape, Deferral::UNSUPPORTED).await,
                Some(None) => {}
                // The webhook is gone, or doesn't want this event.
                None => return self.receipt.settle(),
            }
        }
    }

    /// Queues the delivery for a webhook that can be read now, or defers it if the webhook is paused.
    async fn submit(self, webhook: &Arc<Webhook>) {
        let shape = (webhook.format, webhook.url.clone());
        if !webhook.active {
            return self.defer(shape, Deferral::HELD).await;
        }
        let claim = if self.first.replays > 0 { Claim::Retry } else { Claim::First };
        let Some(permits) = self.dispatcher.claim(claim, self.event.body.len(), self.webhook).await else {
            return self.defer(shape, Deferral::UNSUPPORTED).await;
        };
        let dispatcher = self.dispatcher.clone();
        if let Some(open) = self.open(shape, permits) {
            dispatcher.submit(webhook, open);
        }
    }

    /// Settles the delivery that an inactive webhook misses, and records that it does.
    async fn miss(self, webhook: WebhookId) {
        let id = DeliveryId::of(&self.event.id, webhook);
        let is_there = *self.first.source.topic == *self.dispatcher.names.events();
        let missed = is_there.then(|| MissedEvent::single(webhook, &self.first.source));
        let permits = self.dispatcher.permits.write().await;
        let Some(handling) = self.dispatcher.handle(self.receipt, permits) else { return };
        let settlement = Settlement::silent(Settled::Delivery(id), handling).missed(missed);
        self.dispatcher.settler.settle(settlement).await;
    }

    async fn defer(self, shape: Shape, deferral: Deferral) {
        let permits = self.dispatcher.permits.write().await;
        let dispatcher = self.dispatcher.clone();
        if let Some(open) = self.open(shape, permits) {
            dispatcher.spawn_deferral(open, deferral);
        }
    }

    /// The open delivery. None if its body can't be made; then it becomes a dead letter.
    fn open(self, (format, url): Shape, permits: Permits) -> Option<Open> {
        let public_url = &self.dispatcher.config.webhooks.public_url;
        let Ok(body) = panics::twice(|| Bodies::new(public_url).of(&self.event, format, &url)) else {
            self.give_up(permits);
            return None;
        };
        let delivery = Delivery::first(&self.event, self.webhook, body, self.first.clone());
        let order_key = self.dispatcher.order_key(&delivery);
        let delivery = Arc::new(delivery);
        let (last, receipt) = (LastError::default(), self.receipt);
        Some(Open { delivery, last, receipt, permits, order_key, panics: 0, queued_at: None })
    }

    /// Dead-letters the event for this webhook, with the event's own body.
    fn give_up(self, permits: Permits) {
        let delivery = Delivery::first(&self.event, self.webhook, self.event.body.clone(), self.first.clone());
        let Some(handling) = self.dispatcher.handle(self.receipt, permits) else { return };
        let (reason, detail) = (DeadReason::Malformed, panics::detail());
        tokio::spawn(self.dispatcher.give_up(Arc::new(delivery), reason, detail, handling));
    }
}
