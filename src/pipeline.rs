//! The stages joined: consume, fan out, lane, send, hand off, settle, commit.

pub mod commit_note;
pub mod consume;
pub mod fan_out;
pub mod hand_off;
pub mod lane;
pub mod offsets;
pub mod partition;
pub mod send;
pub mod settle;
pub mod window;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};

use rdkafka::message::OwnedHeaders;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Config, Ordering};
use crate::delivery::{DeadReason, Delivery, FailureCode, Fate, FatePolicy, now_ms};
use crate::event::Event;
use crate::record::LastError;
use crate::store::snapshot::Snapshots;
use crate::webhook::WebhookId;
use hand_off::HandOff;
use lane::{Lane, Queued};
use partition::Receipt;
use settle::{Settlement, Settler};

/// What a consumer found in a record.
#[derive(Debug)]
pub enum Incoming {
    /// Something to tell.
    Event { event: Event, traceparent: Option<String> },
    /// A delivery whose wait is over.
    Due { delivery: Box<Delivery>, last: LastError },
    /// A delivery whose wait is so far off that it waits elsewhere.
    Far { delivery: Box<Delivery>, last: LastError, due_at_ms: i64 },
    /// Not what it should be.
    Unreadable(Box<Unreadable>),
    /// Nothing to tell.
    Nothing,
}

/// A record that can't be read, untouched, and why.
#[derive(Debug)]
pub struct Unreadable {
    /// As it came.
    pub key: Option<Vec<u8>>,
    /// As it came.
    pub value: Option<Vec<u8>>,
    /// As they came.
    pub headers: OwnedHeaders,
    /// `malformed` or `too_large`.
    pub reason: DeadReason,
    /// For people.
    pub detail: String,
}

/// A delivery on its way through this process.
#[derive(Debug)]
pub struct Open {
    delivery: Delivery,
    last: LastError,
    receipt: Arc<Receipt>,
    permits: Permits,
    order_key: Option<u64>,
}

/// The places that an open delivery takes, given back when it is settled or dropped.
#[derive(Debug)]
pub struct Permits {
    _open: OwnedSemaphorePermit,
    _retry: Option<OwnedSemaphorePermit>,
}

impl Queued for Open {
    fn order_key(&self) -> Option<u64> {
        self.order_key
    }
}

/// Everything that a delivery needs on its way.
pub struct Pipeline {
    /// The settings.
    pub config: Arc<Config>,
    /// Who wants what.
    pub snapshots: Snapshots,
    client: reqwest::Client,
    hand_off: HandOff,
    settler: Settler,
    policy: FatePolicy,
    places: Arc<Semaphore>,
    retry_places: Arc<Semaphore>,
    lanes: Mutex<HashMap<WebhookId, Lane<Open>>>,
}

impl Pipeline {
    /// Joined from its parts.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        snapshots: Snapshots,
        client: reqwest::Client,
        hand_off: HandOff,
        settler: Settler,
    ) -> Self {
        let in_flight_max = config.worker.in_flight_max;
        let retries = (in_flight_max * config.worker.retry_share / 100).max(1);
        let policy = FatePolicy {
            schedule: crate::schedule::Schedule::new(&config.delivery),
            age_max: config.delivery.age_max,
            retry_after_max: config.delivery.retry_after_max,
        };
        Self {
            snapshots,
            client,
            hand_off,
            settler,
            policy,
            places: Arc::new(Semaphore::new(in_flight_max)),
            retry_places: Arc::new(Semaphore::new(retries)),
            lanes: Mutex::default(),
            config,
        }
    }

    /// A place among the open deliveries; retries leave some of them to first attempts. Cancel safe.
    async fn place(&self, is_retry: bool) -> Permits {
        let acquire = async |places: &Arc<Semaphore>| {
            places.clone().acquire_owned().await.expect("the semaphore is never closed")
        };
        let retry = if is_retry { Some(acquire(&self.retry_places).await) } else { None };
        Permits { _open: acquire(&self.places).await, _retry: retry }
    }

    /// First attempts of one task keep their order; retries needn't.
    fn order_key(&self, delivery: &Delivery, is_retry: bool) -> Option<u64> {
        (self.config.delivery.ordering == Ordering::Task && !is_retry).then(|| {
            let mut hasher = DefaultHasher::new();
            delivery.task_id.hash(&mut hasher);
            hasher.finish()
        })
    }

    /// Queues a delivery at its endpoint's lane.
    fn submit(self: &Arc<Self>, open: Open) {
        let webhook = open.delivery.webhook_id;
        let refused = {
            let mut lanes = self.lanes.lock().expect("nothing panics while it holds the lanes");
            lanes.entry(webhook).or_default().admit(open, self.config.delivery.endpoint_queue_max)
        };
        match refused {
            Ok(()) => self.advance(webhook),
            Err(open) => drop(tokio::spawn(self.clone().put_off(open, FailureCode::Saturated))),
        }
    }

    /// Starts whatever may start at an endpoint.
    fn advance(self: &Arc<Self>, webhook: WebhookId) {
        let mut lanes = self.lanes.lock().expect("nothing panics while it holds the lanes");
        let Some(lane) = lanes.get_mut(&webhook) else { return };
        while let Some(open) = lane.next(self.config.delivery.endpoint_in_flight_max) {
            tokio::spawn(self.clone().deliver(open));
        }
        if lane.is_idle() {
            lanes.remove(&webhook);
        }
    }

    /// One attempt, and what follows from it.
    async fn deliver(self: Arc<Self>, open: Open) {
        let order_key = open.order_key;
        let webhook_id = open.delivery.webhook_id;
        // Dropped on every way out, a panic included: the lane's place comes back.
        let turn = Turn { pipeline: self.clone(), webhook_id, order_key };
        // Deletion is looked up right before the request; while Redis is away, here is where sending waits.
        let webhook = self.snapshots.current().await.get(webhook_id).cloned();
        let Some(in_flight) = open.receipt.start() else { return };
        let Some(webhook) = webhook else {
            tracing::debug!(delivery = %open.delivery.id, webhook = %webhook_id, "dropped: the webhook is gone or disabled");
            return self
                .settler
                .settle(Settlement::silent(open.delivery.id.0, open.receipt, in_flight, Some(open.permits)))
                .await;
        };
        let attempt = send::attempt(&self.client, &webhook, &open.delivery, &self.config.delivery).await;
        drop(turn);
        let fate = self.policy.after_attempt(&open.delivery, &attempt, rand::random());
        let last = LastError { code: attempt.failure, status: attempt.status };
        let mut next = open.delivery.clone();
        next.attempts += 1;
        // Hand off first, settle second: a crash between the two repeats an attempt, the other order loses a delivery.
        self.hand_over(&next, fate, last).await;
        self.settler
            .settle(Settlement::attempted(&open.delivery, &attempt, fate, open.receipt, in_flight, open.permits))
            .await;
    }

    /// Writes a delivery to where it waits or rests.
    async fn hand_over(&self, delivery: &Delivery, fate: Fate, last: LastError) {
        match fate {
            Fate::Delivered => {}
            Fate::Retry { tier, due_at_ms } => self.hand_off.retry(delivery, tier, due_at_ms, last).await,
            Fate::Dead(reason) => {
                let code = last.code.map_or("none", FailureCode::as_str);
                let detail = match last.status {
                    Some(status) => format!("after {} attempts, the last: {code} {status}", delivery.attempts),
                    None => format!("after {} attempts, the last: {code}", delivery.attempts),
                };
                tracing::warn!(delivery = %delivery.id, webhook = %delivery.webhook_id, reason = reason.as_str(), attempts = delivery.attempts, error = code, "dead-lettered");
                self.hand_off.dead(delivery, reason, &detail, last).await;
            }
        }
    }

    /// Puts a delivery off without an attempt.
    async fn put_off(self: Arc<Self>, open: Open, why: FailureCode) {
        let Some(in_flight) = open.receipt.start() else { return };
        let mut delivery = open.delivery;
        delivery.deferrals += 1;
        let fate = self.policy.after_deferral(&delivery, self.config.delivery.retry.initial, now_ms());
        let last = LastError { code: Some(why), status: open.last.status };
        self.hand_over(&delivery, fate, last).await;
        self.settler.settle(Settlement::silent(delivery.id.0, open.receipt, in_flight, Some(open.permits))).await;
    }
}

/// A place in a lane, given back when dropped.
struct Turn {
    pipeline: Arc<Pipeline>,
    webhook_id: WebhookId,
    order_key: Option<u64>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut lanes = self.pipeline.lanes.lock().expect("nothing panics while it holds the lanes");
            if let Some(lane) = lanes.get_mut(&self.webhook_id) {
                lane.finished(self.order_key);
            }
        }
        self.pipeline.advance(self.webhook_id);
    }
}

/// A batch of records from a consumer, each with its receipt.
pub type Batch = Vec<(Incoming, Arc<Receipt>)>;
