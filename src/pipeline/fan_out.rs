//! Fans records out to deliveries: one for each webhook that subscribes to the event, as permits come free.

use crate::metrics;
use crate::store::marks::Settled;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::dispatch::{Dispatcher, Open};
use super::hand_off::HandedOff;
use super::incoming::{Batch, Incoming};
use super::lane::task_key;
use super::missing;
use super::panics;
use super::parking::Parking;
use super::permits::Claim;
use super::predecessors::Predecessors;
use super::receipt::Receipt;
use super::recipient::{NoRecipient, recipient};
use super::settle::Settlement;
use super::spread::{Spread, first_read};
use super::unreadable::{panicked, unreadable};
use super::unsupported::UnsupportedEvents;
use crate::clock::now_ms;
use crate::config::Ordering;
use crate::delivery::{DeadReason, Deferral, Delivery, FirstRead};
use crate::event::Event;
use crate::record::LastError;

/// An event for more webhooks than this is wide. It is fanned out in a tokio task of its own, so that the next events
/// don't wait.
const WIDE: usize = 64;
/// How many wide events are fanned out at the same time. Further ones wait in their tokio tasks until one of these
/// ends.
const WIDE_AT_ONCE: usize = 64;
/// How many KiB the events in tokio tasks of their own may take together. Beyond that, the whole fan-out waits.
const SPAWNED_KIB_MAX: u32 = 32_768;
/// About how many KiB an event takes in addition to its payload: its receipt and its tokio task.
const EVENT_KIB: u32 = 4;

/// Fans out the batches of one consumer, in order, until the consumer is gone. `parking` has the parked deliveries of
/// its consumer group.
pub async fn run(
    dispatcher: Arc<Dispatcher>,
    predecessors: Predecessors,
    parking: Arc<Parking>,
    mut batches: mpsc::Receiver<Batch>,
) {
    let predecessors = Arc::new(predecessors);
    let mut fan_out = FanOut {
        unsupported: UnsupportedEvents::new(dispatcher.clone(), predecessors.clone(), parking.clone()),
        dispatcher,
        predecessors,
        fan_out_ends: HashMap::new(),
        spawned_kib: Arc::new(Semaphore::new(SPAWNED_KIB_MAX as usize)),
        wide_at_once: Arc::new(Semaphore::new(WIDE_AT_ONCE)),
    };
    fan_out.dispatcher.load_backoffs().await;
    while let Some(batch) = batches.recv().await {
        fan_out.fan_out_ends.retain(|_, ended| ended.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        for (incoming, receipt) in batch.records {
            parking.room().await;
            fan_out.handle_guarded(incoming, receipt).await;
        }
    }
}

struct FanOut {
    dispatcher: Arc<Dispatcher>,
    unsupported: UnsupportedEvents,
    predecessors: Arc<Predecessors>,
    /// For each Optio task whose last event is fanned out in a tokio task of its own: the signal that this fan-out has
    /// ended. The next event of the same Optio task waits for it, so that first attempts keep their order.
    fan_out_ends: HashMap<u64, oneshot::Receiver<()>>,
    spawned_kib: Arc<Semaphore>,
    wide_at_once: Arc<Semaphore>,
}

// Rare branches are boxed. Otherwise the future of every record would be as large as the largest of them.
impl FanOut {
    /// Handles one record. A panic affects only that record. Fan-outs in tokio tasks of their own catch their panics
    /// themselves.
    async fn handle_guarded(&mut self, incoming: Incoming, receipt: Arc<Receipt>) {
        let copy = incoming.clone();
        if panics::caught(self.handle(incoming, receipt.clone())).await.is_ok() {
            return;
        }
        tracing::error!(topic = %receipt.partition.topic, partition = receipt.partition.number, offset = receipt.offset, "handling a record panicked, trying once more");
        if panics::caught(self.handle(copy.clone(), receipt.clone())).await.is_ok() {
            return;
        }
        match copy {
            Incoming::Due { delivery, .. } | Incoming::DueLater { delivery, .. } => {
                let permits = self.dispatcher.permits.write().await;
                let Some(handling) = self.dispatcher.handle(receipt, permits) else { return };
                let detail = panics::detail();
                tokio::spawn(self.dispatcher.clone().give_up(delivery, DeadReason::Malformed, detail, handling));
            }
            Incoming::Event { event, source, replays, .. } => {
                let record = panicked(&event, source, replays, &receipt);
                Box::pin(unreadable(&self.dispatcher, &self.predecessors, record, receipt)).await;
            }
            Incoming::Unreadable(record) => {
                Box::pin(unreadable(&self.dispatcher, &self.predecessors, record, receipt)).await;
            }
            Incoming::Nothing(_) => receipt.settle(),
        }
    }

    async fn handle(&mut self, incoming: Incoming, receipt: Arc<Receipt>) {
        match incoming {
            Incoming::Nothing(why) => {
                metrics::EVENTS.increment(why.as_str());
                receipt.settle();
            }
            Incoming::Event { event, traceparent, source, replays } => {
                metrics::EVENTS.increment(event.event_type.as_str());
                for field in &event.not_understood {
                    metrics::FIELDS_NOT_UNDERSTOOD.increment(field);
                }
                self.event(event, first_read(source, replays, traceparent, &receipt), receipt).await;
            }
            Incoming::Due { delivery, last } => self.due(delivery, last, receipt).await,
            Incoming::DueLater { delivery, last, due_at_ms } => {
                Box::pin(self.hand_off_again(delivery, last, due_at_ms, receipt)).await;
            }
            Incoming::Unreadable(record) => {
                Box::pin(unreadable(&self.dispatcher, &self.predecessors, record, receipt)).await;
            }
        }
    }

    async fn event(&mut self, event: Arc<Event>, first: FirstRead, receipt: Arc<Receipt>) {
        let snapshot = self.dispatcher.snapshots.current().await;
        for webhook in snapshot.unsupported(event.event_type) {
            Box::pin(self.unsupported.take(&snapshot, webhook, &event, &first, &receipt)).await;
        }
        let webhooks = snapshot.matching(&event);
        let missing = snapshot.missing(&event);
        drop(snapshot);
        if !missing.is_empty() {
            Box::pin(missing::miss(&self.dispatcher, &self.predecessors, &missing, &event, &first, &receipt)).await;
        }
        let is_wide = webhooks.len() > WIDE;
        let ordered = self.dispatcher.config.delivery.ordering == Ordering::Task;
        let key = task_key(&event.task_id);
        let previous_end = if ordered { self.fan_out_ends.remove(&key) } else { None };
        let claim = match (first.replays, is_wide) {
            (1.., _) => Claim::Retry,
            (0, true) => Claim::Wide,
            (0, false) => Claim::First,
        };
        let spread = Spread {
            dispatcher: self.dispatcher.clone(),
            predecessors: self.predecessors.clone(),
            webhooks,
            event,
            first,
            receipt,
            claim,
        };
        if !is_wide && previous_end.is_none() {
            return spread.run().await;
        }
        let event_kib = EVENT_KIB + u32::try_from(spread.event.body.len() >> 10).unwrap_or(u32::MAX);
        let held_kib = acquire(&self.spawned_kib, event_kib.min(SPAWNED_KIB_MAX)).await;
        let wide_at_once = is_wide.then(|| self.wide_at_once.clone());
        let (end, ended) = oneshot::channel();
        self.fan_out_ends.insert(key, ended);
        tokio::spawn(async move {
            if let Some(previous_end) = previous_end {
                let _ = previous_end.await;
            }
            let wide_slot = match &wide_at_once {
                Some(at_once) => Some(acquire(at_once, 1).await),
                None => None,
            };
            spread.run().await;
            drop((end, wide_slot, held_kib));
        });
    }

    async fn due(&self, delivery: Arc<Delivery>, last: LastError, receipt: Arc<Receipt>) {
        if self.predecessors.settled(&receipt, Settled::Delivery(delivery.id)).await {
            return receipt.settle();
        }
        let order_key = self.dispatcher.order_key(&delivery);
        if let Some(detail) = self.dispatcher.policy.too_old(&delivery, now_ms()) {
            let permits = self.dispatcher.permits.write().await;
            let Some(handling) = self.dispatcher.handle(receipt, permits) else { return };
            tokio::spawn(self.dispatcher.clone().give_up(delivery, DeadReason::Expired, detail, handling));
            return;
        }
        let Some(permits) = self.dispatcher.claim(Claim::Retry, delivery.body.len(), delivery.webhook_id).await else {
            let permits = self.dispatcher.permits.write().await;
            let open = Open { order_key, delivery, last, receipt, permits, panics: 0, queued_at: None };
            self.dispatcher.spawn_deferral(open, Deferral::SATURATED);
            return;
        };
        let open = Open { order_key, delivery, last, receipt, permits, panics: 0, queued_at: None };
        let found = recipient(&*self.dispatcher.snapshots.current().await, &open.delivery);
        match found {
            Ok(webhook) => self.dispatcher.submit(&webhook, open),
            Err(NoRecipient::Unsupported) => self.dispatcher.spawn_deferral(open, Deferral::UNSUPPORTED),
            Err(NoRecipient::Held) => self.dispatcher.spawn_deferral(open, Deferral::HELD),
            Err(NoRecipient::Dropped(why)) => {
                let Some(handling) = self.dispatcher.handle(open.receipt, open.permits) else { return };
                Box::pin(self.dispatcher.drop_silently(&open.delivery, handling, why)).await;
            }
        }
    }

    /// Hands a delivery off again, into the tier that fits the rest of its wait.
    async fn hand_off_again(&self, delivery: Arc<Delivery>, last: LastError, due_at_ms: i64, receipt: Arc<Receipt>) {
        if self.predecessors.settled(&receipt, Settled::Delivery(delivery.id)).await {
            return receipt.settle();
        }
        let permits = self.dispatcher.permits.write().await;
        let Some(mut handling) = self.dispatcher.handle(receipt, permits) else { return };
        let dispatcher = self.dispatcher.clone();
        tokio::spawn(async move {
            let left_ms = u64::try_from(due_at_ms.saturating_sub(now_ms())).unwrap_or(0);
            let tier = dispatcher.policy.schedule.tier_for(Duration::from_millis(left_ms));
            if dispatcher.hand_off.retry(&delivery, tier, due_at_ms, last, &mut handling).await == HandedOff::Written {
                dispatcher.settler.settle(Settlement::silent(Settled::Delivery(delivery.id), handling)).await;
            }
        });
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
}
