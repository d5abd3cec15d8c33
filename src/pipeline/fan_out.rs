//! From a record to its deliveries: one per webhook that wants the event, as places come free.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use uuid::Uuid;

use super::endpoint::Deferral;
use super::partition::Receipt;
use super::predecessors::Predecessors;
use super::settle::Settlement;
use super::{Batch, Claim, Incoming, Open, Pipeline, Unreadable, recipient, task_key};
use crate::config::Ordering;
use crate::delivery::{Delivery, DeliveryId, Source, now_ms};
use crate::event::Event;
use crate::event::body::Bodies;
use crate::record::LastError;
use crate::webhook::Webhook;

/// An event for more webhooks than this is fanned out beside the others: they don't wait for its end.
const WIDE: usize = 64;
/// Wide events that are fanned out at once; the next ones wait for one of them to end, beside the others too.
const WIDE_AT_ONCE: usize = 64;
/// KiB of events that are fanned out beside the others or wait for that; beyond, everything waits.
const BESIDE_KIB_MAX: u32 = 32_768;
/// KiB that an event takes beside its payload: itself, its receipt, its task.
const EVENT_KIB: u32 = 4;

/// Fans out what a consumer hands over, in its order, until the consumer is gone.
pub async fn run(pipeline: Arc<Pipeline>, predecessors: Predecessors, mut batches: mpsc::Receiver<Batch>) {
    let mut fan_out = FanOut {
        pipeline,
        predecessors: Arc::new(predecessors),
        beside: HashMap::new(),
        beside_kib: Arc::new(Semaphore::new(BESIDE_KIB_MAX as usize)),
        wide_at_once: Arc::new(Semaphore::new(WIDE_AT_ONCE)),
    };
    fan_out.pipeline.inform().await;
    while let Some(batch) = batches.recv().await {
        fan_out.beside.retain(|_, done| done.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        for (incoming, receipt) in batch {
            fan_out.take(incoming, receipt).await;
        }
    }
}

struct FanOut {
    pipeline: Arc<Pipeline>,
    predecessors: Arc<Predecessors>,
    /// Tasks with an event that is fanned out beside the others; told when it is done. The next event of such a
    /// task waits for it, so that first attempts keep their order.
    beside: HashMap<u64, oneshot::Receiver<()>>,
    beside_kib: Arc<Semaphore>,
    wide_at_once: Arc<Semaphore>,
}

impl FanOut {
    async fn take(&mut self, incoming: Incoming, receipt: Arc<Receipt>) {
        match incoming {
            Incoming::Nothing => receipt.settle(),
            Incoming::Event { event, traceparent, source, replays } => {
                self.event(event, First { traceparent, source, replays }, receipt).await;
            }
            Incoming::Due { delivery, last } => self.due(*delivery, last, receipt).await,
            Incoming::Far { delivery, last, due_at_ms } => self.far(*delivery, last, due_at_ms, receipt).await,
            Incoming::Unreadable(record) => self.unreadable(*record, receipt).await,
        }
    }

    async fn event(&mut self, event: Event, first: First, receipt: Arc<Receipt>) {
        let webhooks = self.pipeline.snapshots.current().await.matching(event.event_type);
        let is_wide = webhooks.len() > WIDE;
        let ordered = self.pipeline.config.delivery.ordering == Ordering::Task;
        let key = task_key(&event.task_id);
        let before = if ordered { self.beside.remove(&key) } else { None };
        let claim = match (first.replays, is_wide) {
            (1.., _) => Claim::Retry,
            (0, true) => Claim::Wide,
            (0, false) => Claim::First,
        };
        let spread = Spread {
            pipeline: self.pipeline.clone(),
            predecessors: self.predecessors.clone(),
            webhooks,
            event,
            first,
            receipt,
            claim,
        };
        if !is_wide && before.is_none() {
            return spread.run().await;
        }
        let size = EVENT_KIB + u32::try_from(spread.event.body.len() >> 10).unwrap_or(u32::MAX);
        let kib = acquire(&self.beside_kib, size.min(BESIDE_KIB_MAX)).await;
        let wide_at_once = is_wide.then(|| self.wide_at_once.clone());
        let (done, told) = oneshot::channel();
        self.beside.insert(key, told);
        tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let one = match &wide_at_once {
                Some(at_once) => Some(acquire(at_once, 1).await),
                None => None,
            };
            spread.run().await;
            drop((done, one, kib));
        });
    }

    async fn due(&self, delivery: Delivery, last: LastError, receipt: Arc<Receipt>) {
        if self.predecessors.settled(&receipt, delivery.id.0).await {
            return receipt.settle();
        }
        let order_key = self.pipeline.order_key(&delivery);
        let Some(permits) = self.pipeline.place(Claim::Retry).await else {
            let permits = self.pipeline.writing_place().await;
            let open = Open { order_key, delivery, last, receipt, permits };
            tokio::spawn(self.pipeline.clone().put_off(open, Deferral::SATURATED));
            return;
        };
        let open = Open { order_key, delivery, last, receipt, permits };
        let found = recipient(&*self.pipeline.snapshots.current().await, &open.delivery);
        match found {
            Ok(webhook) => self.pipeline.submit(&webhook, open),
            Err(why) => {
                let Some(in_flight) = open.receipt.start() else { return };
                self.pipeline.drop_silently(open, in_flight, why).await;
            }
        }
    }

    /// Written again into the tier that fits what is left of its wait.
    async fn far(&self, delivery: Delivery, last: LastError, due_at_ms: i64, receipt: Arc<Receipt>) {
        if self.predecessors.settled(&receipt, delivery.id.0).await {
            return receipt.settle();
        }
        let permits = self.pipeline.writing_place().await;
        let Some(in_flight) = receipt.start() else { return };
        let pipeline = self.pipeline.clone();
        tokio::spawn(async move {
            let left_ms = u64::try_from(due_at_ms - now_ms()).unwrap_or(0);
            let tier = pipeline.policy.schedule.tier_for(Duration::from_millis(left_ms));
            pipeline.hand_off.retry(&delivery, tier, due_at_ms, last).await;
            pipeline.settler.settle(Settlement::silent(delivery.id.0, receipt, in_flight, Some(permits))).await;
        });
    }

    async fn unreadable(&self, record: Unreadable, receipt: Arc<Receipt>) {
        if self.predecessors.settled(&receipt, Uuid::nil()).await {
            return receipt.settle();
        }
        let permits = self.pipeline.writing_place().await;
        let Some(in_flight) = receipt.start() else { return };
        let pipeline = self.pipeline.clone();
        let (source, reason) = (&record.origin.source, record.reason.as_str());
        tracing::warn!(topic = %source.topic, partition = source.partition, offset = source.offset, reason, detail = record.detail, "dead-lettered");
        metrics::counter!("optio_webhooks_dead_letters_total", "reason" => reason).increment(1);
        tokio::spawn(async move {
            pipeline.hand_off.unreadable(record).await;
            pipeline.settler.settle(Settlement::silent(Uuid::nil(), receipt, in_flight, Some(permits))).await;
        });
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
}

/// What all first deliveries of an event share beside it.
struct First {
    traceparent: Option<String>,
    source: Source,
    replays: u32,
}

/// One event on its way to its webhooks.
struct Spread {
    pipeline: Arc<Pipeline>,
    predecessors: Arc<Predecessors>,
    webhooks: Arc<[Arc<Webhook>]>,
    event: Event,
    first: First,
    receipt: Arc<Receipt>,
    claim: Claim,
}

impl Spread {
    async fn run(self) {
        let mut bodies = Bodies::default();
        for webhook in self.webhooks.iter() {
            let id = DeliveryId::of(&self.event.id, webhook.id);
            if self.predecessors.settled(&self.receipt, id.0).await {
                continue;
            }
            let place = self.pipeline.place(self.claim).await;
            let has_place = place.is_some();
            let permits = match place {
                Some(permits) => permits,
                None => self.pipeline.writing_place().await,
            };
            // Revoked meanwhile: the next owner fans out the rest.
            if self.receipt.partition.is_closed() {
                return;
            }
            let delivery = self.delivery(id, webhook, &mut bodies);
            self.receipt.add();
            let order_key = self.pipeline.order_key(&delivery);
            let open = Open { delivery, last: LastError::default(), receipt: self.receipt.clone(), permits, order_key };
            if has_place {
                self.pipeline.submit(webhook, open);
            } else {
                tokio::spawn(self.pipeline.clone().put_off(open, Deferral::SATURATED));
            }
        }
        self.receipt.settle();
    }

    fn delivery(&self, id: DeliveryId, webhook: &Webhook, bodies: &mut Bodies) -> Delivery {
        Delivery {
            id,
            webhook_id: webhook.id,
            event_type: self.event.event_type,
            event_id: self.event.id.clone(),
            task_id: self.event.task_id.clone(),
            body: bodies.of(&self.event, webhook.format),
            attempts: 0,
            deferrals: 0,
            first_seen_at_ms: now_ms(),
            source: self.first.source.clone(),
            replays: self.first.replays,
            traceparent: self.first.traceparent.clone(),
        }
    }
}
