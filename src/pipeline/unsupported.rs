//! Events for a webhook that this version can't read: their deliveries wait, and others go on.
//!
//! Where its format can be read, a delivery is made and put off into a retry tier, without an attempt, like any other
//! that comes up while its webhook can't be read. Where it can't, nobody knows what the body looks like: the event is
//! held in memory, and its offset with it, until the webhook can be read or is gone.

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

/// Bytes that an event takes beside its payload.
const EVENT_BYTES: usize = 4_096;
/// How often a held event looks whether its partition is still ours.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The events that one consumer group holds.
pub(super) struct UnsupportedEvents {
    dispatcher: Arc<Dispatcher>,
    predecessors: Arc<Predecessors>,
    /// What bounds the events that are held in memory: a group that has too many reads no further.
    parking: Arc<Parking>,
}

/// One event for one webhook, on its way.
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

    /// Takes an event that `held` may want: one part of its receipt stays open until that one's delivery is settled.
    pub(super) async fn take(
        &self,
        snapshot: &Arc<Snapshot>,
        held: &Unsupported,
        event: &Arc<Event>,
        first: &FirstRead,
        receipt: &Arc<Receipt>,
    ) {
        if self.predecessors.settled(receipt, Settled::Delivery(DeliveryId::of(&event.id, held.id))).await {
            return;
        }
        metrics::UNSUPPORTED_EVENTS.increment();
        receipt.add();
        let part = Part {
            dispatcher: self.dispatcher.clone(),
            webhook: held.id,
            event: event.clone(),
            first: first.clone(),
            receipt: receipt.clone(),
        };
        match held.shape.clone() {
            Some(shape) => part.defer(shape).await,
            None => {
                let parked = self.parking.park(EVENT_BYTES + event.body.len());
                tokio::spawn(part.wait(snapshot.clone(), parked));
            }
        }
    }
}

impl Part {
    /// Until the webhook can be read, is gone, or the partition is another's.
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
                return self.go_on(&webhook).await;
            }
            let held = snapshot.unsupported(self.event.event_type).find(|held| held.id == self.webhook);
            match held.map(|held| held.shape.clone()) {
                Some(Some(shape)) => return self.defer(shape).await,
                Some(None) => {}
                // It is gone, inactive, or doesn't want this event after all.
                None => return self.receipt.settle(),
            }
        }
    }

    async fn go_on(self, webhook: &Arc<Webhook>) {
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
        let body = Bodies::default().of(&self.event, format, &url);
        let delivery = Delivery::first(&self.event, self.webhook, body, self.first.clone());
        let order_key = self.dispatcher.order_key(&delivery);
        let delivery = Arc::new(delivery);
        Open { delivery, last: LastError::default(), receipt: self.receipt, permits, order_key, panics: 0 }
    }
}
