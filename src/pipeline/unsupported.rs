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
use super::parking::{Parked, Parking};
use super::permits::{Claim, Permits};
use super::predecessors::Predecessors;
use super::receipt::Receipt;
use crate::delivery::{Deferral, Delivery, DeliveryId, FirstRead};
use crate::event::Event;
use crate::payload::Bodies;
use crate::record::LastError;
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
            Some(shape) => part.defer(shape).await,
            None => {
                let parked = self.parking.park(EVENT_BYTES + event.body.len());
                tokio::spawn(part.wait(snapshot.clone(), parked));
            }
        }
    }
}

impl Part {
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
            if let Some(webhook) = snapshot.get(self.webhook).cloned() {
                return self.submit(&webhook).await;
            }
            let unsupported = snapshot.unsupported(self.event.event_type).find(|one| one.id == self.webhook);
            match unsupported.map(|unsupported| unsupported.shape.clone()) {
                Some(Some(shape)) => return self.defer(shape).await,
                Some(None) => {}
                // The webhook is gone or inactive, or doesn't subscribe to this event.
                None => return self.receipt.settle(),
            }
        }
    }

    async fn submit(self, webhook: &Arc<Webhook>) {
        if !webhook.events.contains(&self.event.event_type) {
            return self.receipt.settle();
        }
        let claim = if self.first.replays > 0 { Claim::Retry } else { Claim::First };
        let Some(permits) = self.dispatcher.permits.claim(claim, self.event.body.len()).await else {
            return self.defer((webhook.format, webhook.url.clone())).await;
        };
        let dispatcher = self.dispatcher.clone();
        dispatcher.submit(webhook, self.open((webhook.format, webhook.url.clone()), permits));
    }

    async fn defer(self, shape: Shape) {
        let permits = self.dispatcher.permits.write().await;
        let dispatcher = self.dispatcher.clone();
        dispatcher.spawn_deferral(self.open(shape, permits), Deferral::UNSUPPORTED);
    }

    fn open(self, (format, url): Shape, permits: Permits) -> Open {
        let body = Bodies::new(&self.dispatcher.config.webhooks.public_url).of(&self.event, format, &url);
        let delivery = Delivery::first(&self.event, self.webhook, body, self.first.clone());
        let order_key = self.dispatcher.order_key(&delivery);
        let delivery = Arc::new(delivery);
        Open {
            delivery,
            last: LastError::default(),
            receipt: self.receipt,
            permits,
            order_key,
            panics: 0,
            queued_at: None,
        }
    }
}
