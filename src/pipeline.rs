//! The stages joined: consume, fan out, lane, send, hand off, settle, commit.

pub mod breaker;
pub mod commit_note;
pub mod consume;
pub mod endpoint;
pub mod endpoints;
pub mod fan_out;
pub mod hand_off;
pub mod health;
pub mod lane;
pub mod latency;
pub mod offsets;
pub mod pace;
pub mod partition;
pub mod predecessors;
pub mod send;
pub mod settle;
pub mod share;
pub mod slow_places;
pub mod window;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::message::OwnedHeaders;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::conditions::{Conditions, Severity};
use crate::config::{Config, Ordering};
use crate::delivery::{DeadReason, Delivery, FailureCode, Fate, FatePolicy, GONE, Outcome, Source, now_ms_up};
use crate::event::Event;
use crate::record::{LastError, UnreadOrigin};
use crate::report::EndpointReport;
use crate::store;
use crate::store::left_alone::LeftAlone;
use crate::store::snapshot::{Snapshot, Snapshots};
use crate::webhook::{Webhook, WebhookId};
use endpoint::{Deferral, Started};
use endpoints::{Endpoints, News, Steps};
use hand_off::HandOff;
use health::Health;
use lane::Queued;
use partition::{InFlight, Receipt, Stage};
use settle::{Settlement, Settler};
use share::Share;

/// What a consumer found in a record.
#[derive(Debug)]
pub enum Incoming {
    /// Something to tell; where it stood when it was first read, and how often it was replayed.
    Event { event: Event, traceparent: Option<String>, source: Source, replays: u32 },
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
    /// Where it came from.
    pub origin: UnreadOrigin,
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
    _place: OwnedSemaphorePermit,
    _of_share: Option<OwnedSemaphorePermit>,
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
    health: Health,
    policy: FatePolicy,
    places: Share,
    retry_places: Share,
    wide_places: Share,
    /// For what is only written: it waits for Kafka, never for an endpoint.
    writing_places: Arc<Semaphore>,
    endpoints: Endpoints<Open>,
    left_alone: LeftAlone,
    informed: OnceCell<()>,
    conditions: Conditions,
}

/// What a pipeline is joined from.
#[allow(missing_docs, reason = "each is what its type says")]
pub struct Parts {
    pub config: Arc<Config>,
    pub snapshots: Snapshots,
    pub client: reqwest::Client,
    pub hand_off: HandOff,
    pub settler: Settler,
    pub health: Health,
    pub left_alone: LeftAlone,
    pub conditions: Conditions,
}

/// How a delivery takes its place among the open ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// A first attempt.
    First,
    /// A first attempt of an event for very many webhooks.
    Wide,
    /// A later attempt.
    Retry,
}

/// For each so many places for open deliveries, one for a delivery that is only written.
const PLACES_PER_WRITING: usize = 8;

impl Pipeline {
    /// Joined from its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, snapshots, client, hand_off, settler, health, left_alone, conditions } = parts;
        let in_flight_max = config.worker.in_flight_max;
        let percent = |percent: usize| (in_flight_max * percent / 100).max(1);
        let share = |size: usize| Share::new(size, config.delivery.endpoint_wait_max);
        Self {
            snapshots,
            client,
            hand_off,
            settler,
            health,
            policy: FatePolicy::new(&config.delivery),
            places: share(in_flight_max),
            retry_places: share(percent(config.worker.retry_share)),
            wide_places: share(percent(config.worker.wide_share)),
            writing_places: Arc::new(Semaphore::new((in_flight_max / PLACES_PER_WRITING).max(1))),
            endpoints: Endpoints::new(config.delivery.clone(), percent(config.worker.slow_share)),
            left_alone,
            informed: OnceCell::new(),
            conditions,
            config,
        }
    }

    /// A place among the open deliveries; retries and wide events leave some of them to others. None where deliveries hold
    /// them that don't come to an end: nobody else must wait for those. Cancel safe.
    async fn place(&self, claim: Claim) -> Option<Permits> {
        // While Redis is away nothing ends, and that says nothing about the endpoints.
        let may_judge = || self.snapshots.is_fresh();
        let from = async |share: &Share, name: &'static str| {
            let place = share.claim(may_judge).await;
            if place.is_none() {
                metrics::counter!("optio_webhooks_clogged_total", "share" => name).increment(1);
            }
            place
        };
        let of_share = match claim {
            Claim::First => None,
            Claim::Wide => Some(from(&self.wide_places, "wide").await?),
            Claim::Retry => Some(from(&self.retry_places, "retry").await?),
        };
        Some(Permits { _place: from(&self.places, "all").await?, _of_share: of_share })
    }

    /// A place for a delivery that is only written. Cancel safe.
    async fn writing_place(&self) -> Permits {
        let place = self.writing_places.clone().acquire_owned().await.expect("the semaphore is never closed");
        Permits { _place: place, _of_share: None }
    }

    /// Learns, once, which endpoints the workers before this one left alone; waits while Redis is away. Cancel safe.
    pub async fn inform(&self) {
        let load = async || {
            let mut outage = self.conditions.outage("redis: endpoints with an open circuit", Severity::NotReady);
            loop {
                match self.left_alone.all().await {
                    Ok(all) => return self.endpoints.inform(all),
                    // What can't be read at all costs a few probes, and must not cost the start.
                    Err(error) if !store::is_away(&error) => {
                        tracing::warn!(%error, "which endpoints have an open circuit can't be read; each is tried anew");
                        return;
                    }
                    Err(error) => outage.failed(error),
                }
                outage.wait().await;
            }
        };
        self.informed.get_or_init(load).await;
    }

    /// How many workers share the rates of webhooks.
    pub fn set_workers(&self, workers: u32) {
        self.endpoints.set_workers(workers);
    }

    /// How many more deliveries could be open.
    #[must_use]
    pub fn places_left(&self) -> usize {
        self.places.left()
    }

    /// The endpoints that something is going on with.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointReport> {
        self.endpoints.reports()
    }

    /// First attempts of one task keep their order, replayed ones too; retries needn't.
    fn order_key(&self, delivery: &Delivery) -> Option<u64> {
        let is_first = delivery.attempts == 0 && delivery.deferrals == 0;
        (self.config.delivery.ordering == Ordering::Task && is_first).then(|| task_key(&delivery.task_id))
    }

    /// Queues a delivery at its endpoint.
    fn submit(self: &Arc<Self>, webhook: &Arc<Webhook>, open: Open) {
        open.receipt.note(Stage::Waiting, webhook.id);
        self.endpoints.admit(webhook, open);
        self.advance(webhook.id);
    }

    /// Starts whatever may start at an endpoint, and puts off what may not wait.
    fn advance(self: &Arc<Self>, webhook: WebhookId) {
        let steps = self.endpoints.advance(webhook);
        self.take(webhook, steps);
    }

    fn take(self: &Arc<Self>, webhook: WebhookId, steps: Steps<Open>) {
        for (open, started) in steps.start {
            tokio::spawn(self.clone().deliver(open, started));
        }
        for (open, deferral) in steps.put_off {
            tokio::spawn(self.clone().put_off(open, deferral));
        }
        if let Some(at) = steps.again_at {
            let pipeline = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(at).await;
                pipeline.endpoints.woke(webhook);
                pipeline.advance(webhook);
            });
        }
    }

    /// Keeps endpoints from holding what they can't take, until `stop`.
    pub async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // While Redis is away nothing is sent, and waiting says nothing about an endpoint.
            if !self.snapshots.is_fresh() {
                continue;
            }
            let snapshot = self.snapshots.current().await;
            for (webhook, steps) in self.endpoints.sweep(SWEEP_INTERVAL, |id| snapshot.get(id).is_some()) {
                self.take(webhook, steps);
            }
            self.health.retain(|id| snapshot.get(id).is_some());
        }
    }

    /// One attempt, and what follows from it.
    async fn deliver(self: Arc<Self>, open: Open, started: Started) {
        // Dropped on every way out, a panic included: the endpoint's place comes back.
        let mut turn = Turn {
            pipeline: self.clone(),
            webhook_id: open.delivery.webhook_id,
            order_key: open.order_key,
            started,
            outcome: None,
        };
        // Deletion is looked up right before the request; while Redis is away, here is where sending waits.
        let snapshot = self.snapshots.current().await;
        let Some(in_flight) = open.receipt.start() else { return };
        let webhook = match recipient(&snapshot, &open.delivery) {
            Ok(webhook) => webhook,
            Err(why) => return self.drop_silently(open, in_flight, why).await,
        };
        drop(snapshot);
        open.receipt.note(Stage::Sending, webhook.id);
        let attempt = send::attempt(&self.client, &webhook, &open.delivery, &self.config.delivery).await;
        turn.outcome = Some(attempt.outcome());
        drop(turn);
        let outcome = attempt.failure.map_or("delivered", FailureCode::as_str);
        metrics::counter!("optio_webhooks_attempts_total", "outcome" => outcome).increment(1);
        // Disabled first: a webhook that was changed meanwhile isn't, and then the attempt failed like any other. A crash
        // between the two drops the delivery as it comes up again.
        let gone = attempt.status == Some(GONE) && self.health.gone(&webhook, attempt.ended_at_ms).await;
        let fate = match gone {
            true => Fate::Dropped,
            false => self.policy.after_attempt(&open.delivery, &attempt, rand::random()),
        };
        let last = LastError { code: attempt.failure, status: attempt.status };
        open.receipt.note(Stage::Settling, webhook.id);
        // Hand off first, settle second: a crash between the two repeats an attempt, the other order loses a delivery.
        if fate != Fate::Delivered {
            let next = Delivery { attempts: open.delivery.attempts + 1, ..open.delivery.clone() };
            self.hand_over(&next, fate, last).await;
        }
        self.health.observe(&webhook, &attempt).await;
        self.settler
            .settle(Settlement::attempted(&open.delivery, &attempt, fate, open.receipt, in_flight, open.permits))
            .await;
    }

    /// Nothing is sent, and nothing dead-lettered (contract section 4).
    async fn drop_silently(&self, open: Open, in_flight: InFlight, why: Dropped) {
        tracing::debug!(delivery = %open.delivery.id, webhook = %open.delivery.webhook_id, reason = why.as_str(), "dropped");
        metrics::counter!("optio_webhooks_dropped_total", "reason" => why.as_str()).increment(1);
        self.settler.settle(Settlement::silent(open.delivery.id.0, open.receipt, in_flight, Some(open.permits))).await;
    }

    /// Writes a delivery to where it waits or rests.
    async fn hand_over(&self, delivery: &Delivery, fate: Fate, last: LastError) {
        match fate {
            Fate::Delivered | Fate::Dropped => {}
            Fate::Retry { tier, due_at_ms } => self.hand_off.retry(delivery, tier, due_at_ms, last).await,
            Fate::Dead(reason) => {
                let code = last.code.map_or("none", FailureCode::as_str);
                let detail = match last.status {
                    Some(status) => format!("after {} attempts, the last: {code} {status}", delivery.attempts),
                    None => format!("after {} attempts, the last: {code}", delivery.attempts),
                };
                tracing::warn!(delivery = %delivery.id, webhook = %delivery.webhook_id, reason = reason.as_str(), attempts = delivery.attempts, error = code, "dead-lettered");
                metrics::counter!("optio_webhooks_dead_letters_total", "reason" => reason.as_str()).increment(1);
                self.hand_off.dead(delivery, reason, &detail, last).await;
            }
        }
    }

    /// Puts a delivery off without an attempt.
    async fn put_off(self: Arc<Self>, open: Open, deferral: Deferral) {
        let Some(in_flight) = open.receipt.start() else { return };
        metrics::counter!("optio_webhooks_deferrals_total", "reason" => deferral.why.as_str()).increment(1);
        let fate = self.policy.after_deferral(&open.delivery, deferral.left_alone, now_ms_up(), rand::random());
        let mut delivery = open.delivery;
        delivery.deferrals += 1;
        let last = LastError { code: Some(deferral.why), status: open.last.status };
        self.hand_over(&delivery, fate, last).await;
        self.settler.settle(Settlement::silent(delivery.id.0, open.receipt, in_flight, Some(open.permits))).await;
    }
}

/// Why a delivery is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dropped {
    /// Its webhook was deleted or is inactive.
    WebhookGone,
    /// It was sent again by hand.
    Replaced,
}

impl Dropped {
    /// As metrics have it.
    fn as_str(self) -> &'static str {
        match self {
            Self::WebhookGone => "webhook_gone",
            Self::Replaced => "replaced",
        }
    }
}

/// Whom to send a delivery to.
fn recipient(snapshot: &Snapshot, delivery: &Delivery) -> Result<Arc<Webhook>, Dropped> {
    if snapshot.is_replaced(delivery) {
        return Err(Dropped::Replaced);
    }
    snapshot.get(delivery.webhook_id).cloned().ok_or(Dropped::WebhookGone)
}

/// How often endpoints are looked at for what waits too long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// The same for transitions of one task.
fn task_key(task_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    task_id.hash(&mut hasher);
    hasher.finish()
}

/// A place at an endpoint, given back when dropped.
struct Turn {
    pipeline: Arc<Pipeline>,
    webhook_id: WebhookId,
    order_key: Option<u64>,
    started: Started,
    /// What it came to; None if it was given up.
    outcome: Option<Outcome>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let news = self.pipeline.endpoints.finished(self.webhook_id, self.order_key, self.started, self.outcome);
        if let Some(news) = news {
            let (left_alone, webhook) = (self.pipeline.left_alone.clone(), self.webhook_id);
            tokio::spawn(async move {
                let told = match news {
                    News::LeftAlone(wait) => left_alone.put(webhook, wait).await,
                    News::Back => left_alone.remove(webhook).await,
                };
                if let Err(error) = told {
                    tracing::debug!(%webhook, %error, "how an endpoint is can't be told for now");
                }
            });
        }
        self.pipeline.advance(self.webhook_id);
    }
}

/// A batch of records from a consumer, each with its receipt.
pub type Batch = Vec<(Incoming, Arc<Receipt>)>;
