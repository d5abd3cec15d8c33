//! Fans one event out to its webhooks: a delivery for each of them, as permits come free.

use std::sync::Arc;

use bytes::Bytes;

use super::dispatch::{Dispatcher, Open};
use super::panics;
use super::permits::Claim;
use super::predecessors::Predecessors;
use super::receipt::Receipt;
use super::unreadable::{panicked, unreadable};
use crate::clock::now_ms;
use crate::delivery::{DeadReason, Deferral, Delivery, DeliveryId, FirstRead};
use crate::detail::Detail;
use crate::event::Event;
use crate::payload::Bodies;
use crate::position::RecordPosition;
use crate::record::LastError;
use crate::store::marks::Settled;
use crate::traceparent::TraceParent;
use crate::webhook::Webhook;

/// 2015-01-01. An earlier timestamp of a record comes from a clock that isn't set, or is in seconds.
const EARLIEST_MS: i64 = 1_420_070_400_000;

/// The data that all deliveries of an event share, for a record that was just read.
pub(super) fn first_read(
    source: RecordPosition,
    replays: u32,
    traceparent: Option<TraceParent>,
    receipt: &Receipt,
) -> FirstRead {
    FirstRead { source, first_seen_at_ms: first_seen_at_ms(receipt), replays, traceparent }
}

/// The time when the event was written, in Unix milliseconds. A timestamp that can't be right is replaced by the
/// present time.
fn first_seen_at_ms(receipt: &Receipt) -> i64 {
    let now = now_ms();
    if (EARLIEST_MS..=now).contains(&receipt.timestamp_ms) { receipt.timestamp_ms } else { now }
}

/// One event on its way to its webhooks.
pub(super) struct Spread {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) predecessors: Arc<Predecessors>,
    pub(super) webhooks: Arc<[Arc<Webhook>]>,
    pub(super) event: Arc<Event>,
    pub(super) first: FirstRead,
    pub(super) receipt: Arc<Receipt>,
    pub(super) claim: Claim,
}

// Rare branches are boxed. Otherwise the future of every event would be as large as the largest of them.
impl Spread {
    /// Fans out to each webhook. If that panics, the record is given up. Deliveries that were already made keep their
    /// fate.
    pub(super) async fn run(self) {
        if panics::caught(self.each()).await.is_err() {
            let record = panicked(&self.event, self.first.source.clone(), self.first.replays, &self.receipt);
            Box::pin(unreadable(&self.dispatcher, &self.predecessors, record, self.receipt.clone())).await;
        }
    }

    async fn each(&self) {
        let mut bodies = Bodies::new(&self.dispatcher.config.webhooks.public_url);
        for webhook in self.webhooks.iter() {
            let id = DeliveryId::of(&self.event.id, webhook.id);
            if self.predecessors.settled(&self.receipt, Settled::Delivery(id)).await {
                continue;
            }
            let Ok(delivery) =
                panics::twice(|| self.delivery(id, webhook, bodies.of(&self.event, webhook.format, &webhook.url)))
            else {
                // The body can't be made, so the dead letter has the event's own body.
                let delivery = self.delivery(id, webhook, self.event.body.clone());
                Box::pin(self.give_up(delivery, DeadReason::Malformed, panics::detail())).await;
                continue;
            };
            if let Some(detail) = self.dispatcher.policy.too_old(&delivery, now_ms()) {
                // After a loss of offsets, old events must not be sent again.
                Box::pin(self.give_up(delivery, DeadReason::Expired, detail)).await;
                continue;
            }
            let permit = self.dispatcher.claim(self.claim, delivery.body.len(), webhook.id).await;
            let has_permit = permit.is_some();
            let permits = match permit {
                Some(permits) => permits,
                None => self.dispatcher.permits.write().await,
            };
            // The partition was revoked meanwhile, so the next owner fans out the rest.
            if self.receipt.partition.is_closed() {
                return;
            }
            self.receipt.add();
            let order_key = self.dispatcher.order_key(&delivery);
            let (delivery, receipt) = (Arc::new(delivery), self.receipt.clone());
            let open =
                Open { delivery, last: LastError::default(), receipt, permits, order_key, panics: 0, queued_at: None };
            if !webhook.active {
                self.dispatcher.spawn_deferral(open, Deferral::HELD);
            } else if has_permit {
                self.dispatcher.submit(webhook, open);
            } else {
                self.dispatcher.spawn_deferral(open, Deferral::SATURATED);
            }
        }
        self.receipt.settle();
    }

    async fn give_up(&self, delivery: Delivery, reason: DeadReason, detail: Detail) {
        let permits = self.dispatcher.permits.write().await;
        self.receipt.add();
        let Some(handling) = self.dispatcher.handle(self.receipt.clone(), permits) else { return };
        tokio::spawn(self.dispatcher.clone().give_up(Arc::new(delivery), reason, detail, handling));
    }

    fn delivery(&self, id: DeliveryId, webhook: &Webhook, body: Bytes) -> Delivery {
        Delivery::identified(id, &self.event, webhook.id, body, self.first.clone())
    }
}
