//! The stages joined: consume, fan out, lane, send, hand off, settle, commit.

pub mod breaker;
pub mod commit_note;
pub mod consume;
pub mod endpoint;
pub mod endpoints;
pub mod fan_out;
pub mod hand_off;
pub mod handling;
pub mod health;
mod held;
pub mod lane;
pub mod latency;
pub mod offsets;
pub mod pace;
pub mod panics;
pub mod parking;
pub mod partition;
pub mod predecessors;
pub mod repairs;
pub mod send;
pub mod settle;
pub mod share;
pub mod slow_places;
pub mod standstill;
pub mod window;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::message::OwnedHeaders;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::conditions::{Conditions, Severity};
use crate::config::{Config, Ordering};
use crate::delivery::{DeadReason, Delivery, FailureCode, Fate, FatePolicy, GONE, Outcome, Source, now_ms_up};
use crate::event::{Event, Nothing};
use crate::http::client::Client;
use crate::kafka::headers;
use crate::record::{LastError, UnreadOrigin};
use crate::report::EndpointReport;
use crate::store;
use crate::store::left_alone::LeftAlone;
use crate::store::repaired::{Repair, Repaired};
use crate::store::snapshot::{Snapshot, Snapshots};
use crate::topics::Names;
use crate::webhook::{Webhook, WebhookId};
use endpoint::{Deferral, Started};
use endpoints::{Endpoints, News, Steps};
use hand_off::{HandOff, HandedOff};
use handling::Handling;
use health::Health;
use lane::Queued;
use parking::Parking;
use partition::{Receipt, Stage};
use settle::{Settlement, Settler};
use share::Share;

/// What a consumer found in a record.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// Something that webhooks may want; where it stood when it was first read, and how often it was replayed.
    Event { event: Arc<Event>, traceparent: Option<String>, source: Source, replays: u32 },
    /// A delivery whose wait is over.
    Due { delivery: Arc<Delivery>, last: LastError },
    /// A delivery whose wait is so far off that it waits elsewhere.
    Far { delivery: Arc<Delivery>, last: LastError, due_at_ms: i64 },
    /// Not what it should be.
    Unreadable(Arc<Unreadable>),
    /// Nothing that a webhook can want.
    Nothing(Nothing),
}

impl Incoming {
    /// About how many bytes it takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Event { event, .. } => event.body.len(),
            Self::Due { delivery, .. } | Self::Far { delivery, .. } => delivery.body.len(),
            Self::Unreadable(record) => record.bytes(),
            Self::Nothing(_) => 0,
        }
    }
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

impl Unreadable {
    fn bytes(&self) -> usize {
        let own: usize = [&self.key, &self.value].into_iter().flatten().map(Vec::len).sum();
        own + headers::bytes(Some(self.headers.as_borrowed()))
    }
}

/// A delivery on its way through this process.
#[derive(Debug)]
pub struct Open {
    delivery: Arc<Delivery>,
    last: LastError,
    receipt: Arc<Receipt>,
    permits: Permits,
    order_key: Option<u64>,
    /// How often handling it panicked.
    panics: u8,
}

/// The places that an open delivery takes, given back when it is settled or dropped.
#[derive(Debug)]
pub struct Permits {
    _place: OwnedSemaphorePermit,
    _of_share: Option<OwnedSemaphorePermit>,
    _large: Option<OwnedSemaphorePermit>,
}

impl Queued for Open {
    fn order_key(&self) -> Option<u64> {
        self.order_key
    }

    fn is_by_hand(&self) -> bool {
        self.delivery.by_hand
    }
}

/// Everything that a delivery needs on its way.
pub struct Pipeline {
    /// The settings.
    pub config: Arc<Config>,
    /// Who wants what.
    pub snapshots: Snapshots,
    client: Client,
    hand_off: HandOff,
    settler: Settler,
    health: Health,
    policy: FatePolicy,
    places: Share,
    retry_places: Share,
    wide_places: Share,
    /// For deliveries with a large payload.
    large_places: Share,
    /// For what is only written: it waits for Kafka, never for an endpoint.
    writing_places: Arc<Semaphore>,
    endpoints: Endpoints<Open>,
    left_alone: LeftAlone,
    repaired: Repaired,
    informed: OnceCell<()>,
    names: Names,
    parked: ParkedByGroup,
    conditions: Conditions,
}

/// Deliveries that wait for something that may take very long, per consumer group: a full one doesn't stop the other.
struct ParkedByGroup {
    events: Arc<Parking>,
    retries: Arc<Parking>,
}

/// What a pipeline is joined from.
#[allow(missing_docs, reason = "each is what its type says")]
pub struct Parts {
    pub config: Arc<Config>,
    pub snapshots: Snapshots,
    pub client: Client,
    pub hand_off: HandOff,
    pub settler: Settler,
    pub health: Health,
    pub left_alone: LeftAlone,
    pub repaired: Repaired,
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
/// A payload of more bytes counts among the large ones.
const LARGE: usize = 16 << 10;

impl Pipeline {
    /// Joined from its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, snapshots, client, hand_off, settler, health, left_alone, repaired, conditions } = parts;
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
            large_places: share((config.worker.large_bytes_max / config.delivery.payload_max).max(2)),
            names: Names::new(&config),
            parked: ParkedByGroup {
                events: Parking::new(config.worker.parked_bytes_max),
                retries: Parking::new(config.worker.parked_bytes_max),
            },
            writing_places: Arc::new(Semaphore::new((in_flight_max / PLACES_PER_WRITING).max(1))),
            endpoints: Endpoints::new(config.delivery.clone(), percent(config.worker.slow_share)),
            left_alone,
            repaired,
            informed: OnceCell::new(),
            conditions,
            config,
        }
    }

    /// A place among the open deliveries; retries and wide events leave some of them to others. None where deliveries hold
    /// them that don't come to an end: nobody else must wait for those. Cancel safe.
    async fn place(&self, claim: Claim, bytes: usize) -> Option<Permits> {
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
        let large = if bytes > LARGE { Some(from(&self.large_places, "large").await?) } else { None };
        Some(Permits { _place: from(&self.places, "all").await?, _of_share: of_share, _large: large })
    }

    /// A place for a delivery that is only written. Cancel safe.
    async fn writing_place(&self) -> Permits {
        let place = self.writing_places.clone().acquire_owned().await.expect("the semaphore is never closed");
        Permits { _place: place, _of_share: None, _large: None }
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

    /// Where deliveries of the events' group, or else of the retry group, are parked.
    #[must_use]
    pub fn parking(&self, of_events: bool) -> Arc<Parking> {
        if of_events { self.parked.events.clone() } else { self.parked.retries.clone() }
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

    /// First attempts of one task keep their order, replayed ones too; retries needn't, nor what a person asked for.
    fn order_key(&self, delivery: &Delivery) -> Option<u64> {
        let is_first = delivery.attempts == 0 && delivery.deferrals == 0 && !delivery.by_hand;
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
            self.spawn(open, move |pipeline, open| pipeline.deliver(open, started));
        }
        for (open, deferral) in steps.put_off {
            self.spawn(open, move |pipeline, open| pipeline.put_off(open, deferral));
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
        let Open { delivery, last, receipt, permits, order_key, .. } = open;
        // Dropped on every way out, a panic included: the endpoint's place comes back.
        let mut turn =
            Turn { pipeline: self.clone(), webhook_id: delivery.webhook_id, order_key, started, outcome: None };
        // Deletion is looked up right before the request; while Redis is away, here is where sending waits.
        let snapshot = self.snapshots.current().await;
        let Some(mut handling) = self.handle(receipt, permits) else { return };
        let webhook = match recipient(&snapshot, &delivery) {
            Ok(webhook) => webhook,
            Err(Unreachable::Dropped(why)) => return self.drop_silently(&delivery, handling, why).await,
            Err(Unreachable::Held) => return self.put_off_handled(&delivery, last, handling, Deferral::HELD).await,
        };
        drop(snapshot);
        handling.receipt.note(Stage::Sending, webhook.id);
        let attempt = send::attempt(&self.client, &webhook, &delivery, &self.config.delivery).await;
        turn.outcome = Some(attempt.outcome());
        drop(turn);
        let outcome = attempt.failure.map_or("delivered", FailureCode::as_str);
        metrics::counter!("optio_webhooks_attempts_total", "outcome" => outcome).increment(1);
        // Disabled first: a webhook that was changed meanwhile isn't, and then the attempt failed like any other. A crash
        // between the two drops the delivery as it comes up again.
        let gone = attempt.status == Some(GONE) && self.health.gone(&webhook, attempt.ended_at_ms).await;
        let fate = match gone {
            true => Fate::Dropped,
            false => self.policy.after_attempt(&delivery, &attempt, rand::random()),
        };
        let last = LastError { code: attempt.failure, status: attempt.status };
        handling.receipt.note(Stage::Settling, webhook.id);
        // Hand off first, settle second: a crash between the two repeats an attempt, the other order loses a delivery.
        if fate != Fate::Delivered {
            // The next owner of a partition that was lost makes this attempt again, and hands it off itself.
            if handling.receipt.partition.is_closed() {
                return;
            }
            let next = Delivery { attempts: delivery.attempts.saturating_add(1), ..(*delivery).clone() };
            if self.hand_over(&next, fate, last, &mut handling).await == HandedOff::LeftToNextOwner {
                return;
            }
        }
        self.health.observe(&webhook, &attempt).await;
        self.settler.settle(Settlement::attempted(&delivery, &attempt, fate, handling)).await;
    }

    /// Begins to handle one part of a record; None while its partition drains or isn't ours any more.
    fn handle(&self, receipt: Arc<Receipt>, permits: Permits) -> Option<Handling> {
        let parking =
            if self.names.is_waiting(&receipt.partition.topic) { &self.parked.retries } else { &self.parked.events };
        Handling::start(receipt, permits, parking.clone())
    }

    /// Nothing is sent, and nothing dead-lettered.
    async fn drop_silently(&self, delivery: &Delivery, handling: Handling, why: Dropped) {
        tracing::debug!(delivery = %delivery.id, webhook = %delivery.webhook_id, reason = why.as_str(), "dropped");
        metrics::counter!("optio_webhooks_dropped_total", "reason" => why.as_str()).increment(1);
        self.settler.settle(Settlement::silent(delivery.id.0, handling)).await;
    }

    /// Writes a delivery to where it waits or rests.
    async fn hand_over(&self, delivery: &Delivery, fate: Fate, last: LastError, handling: &mut Handling) -> HandedOff {
        match fate {
            Fate::Delivered | Fate::Dropped => HandedOff::Written,
            Fate::Retry { tier, due_at_ms } => self.hand_off.retry(delivery, tier, due_at_ms, last, handling).await,
            Fate::Dead(reason) => {
                let code = last.code.map_or("none", FailureCode::as_str);
                let detail = match last.status {
                    Some(status) => format!("after {} attempts, the last: {code} {status}", delivery.attempts),
                    None => format!("after {} attempts, the last: {code}", delivery.attempts),
                };
                self.hand_off.dead(delivery, reason, &detail, last, handling).await
            }
        }
    }

    /// Puts a delivery off without an attempt.
    async fn put_off(self: Arc<Self>, open: Open, deferral: Deferral) {
        let Some(handling) = self.handle(open.receipt, open.permits) else { return };
        self.put_off_handled(&open.delivery, open.last, handling, deferral).await;
    }

    async fn put_off_handled(&self, delivery: &Delivery, last: LastError, mut handling: Handling, deferral: Deferral) {
        metrics::counter!("optio_webhooks_deferrals_total", "reason" => deferral.why.as_str()).increment(1);
        let fate = self.policy.after_deferral(delivery, deferral.left_alone, now_ms_up(), rand::random());
        let delivery = Delivery { deferrals: delivery.deferrals.saturating_add(1), ..delivery.clone() };
        let last = LastError { code: Some(deferral.why), status: last.status };
        if self.hand_over(&delivery, fate, last, &mut handling).await == HandedOff::Written {
            self.settler.settle(Settlement::silent(delivery.id.0, handling)).await;
        }
    }

    /// Gives a delivery up without an attempt.
    async fn give_up(
        self: Arc<Self>,
        delivery: Arc<Delivery>,
        reason: DeadReason,
        detail: String,
        mut handling: Handling,
    ) {
        let last = LastError::default();
        if self.hand_off.dead(&delivery, reason, &detail, last, &mut handling).await == HandedOff::Written {
            self.settler.settle(Settlement::silent(delivery.id.0, handling)).await;
        }
    }

    /// Runs what is done with a delivery on a task of its own. If that panics, the delivery is tried once more, then given up.
    fn spawn<F: Future<Output = ()> + Send>(
        self: &Arc<Self>,
        open: Open,
        run: impl FnOnce(Arc<Self>, Open) -> F + Send + 'static,
    ) {
        let pipeline = self.clone();
        let (delivery, receipt, last) = (open.delivery.clone(), open.receipt.clone(), open.last);
        let panics = open.panics;
        tokio::spawn(async move {
            if panics::caught(run(pipeline.clone(), open)).await.is_ok() {
                return;
            }
            tracing::error!(delivery = %delivery.id, webhook = %delivery.webhook_id, "handling a delivery panicked");
            let permits = pipeline.writing_place().await;
            let snapshot = pipeline.snapshots.current().await;
            match snapshot.get(delivery.webhook_id) {
                Some(webhook) if panics == 0 => {
                    let open = Open { delivery, last, receipt, permits, order_key: None, panics: panics + 1 };
                    pipeline.submit(webhook, open);
                }
                _ => {
                    let Some(handling) = pipeline.handle(receipt, permits) else { return };
                    pipeline.give_up(delivery, DeadReason::Malformed, panics::DETAIL.to_owned(), handling).await;
                }
            }
        });
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

/// Why a delivery can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreachable {
    /// Nor ever: nothing more becomes of it.
    Dropped(Dropped),
    /// For now: its webhook can't be read by this version.
    Held,
}

/// Whom to send a delivery to.
fn recipient(snapshot: &Snapshot, delivery: &Delivery) -> Result<Arc<Webhook>, Unreachable> {
    if snapshot.is_replaced(delivery) {
        return Err(Unreachable::Dropped(Dropped::Replaced));
    }
    match snapshot.get(delivery.webhook_id) {
        Some(webhook) => Ok(webhook.clone()),
        None if snapshot.is_held(delivery.webhook_id) => Err(Unreachable::Held),
        None => Err(Unreachable::Dropped(Dropped::WebhookGone)),
    }
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
            let (pipeline, webhook) = (self.pipeline.clone(), self.webhook_id);
            tokio::spawn(async move {
                let told = match news {
                    News::LeftAlone(wait) => pipeline.left_alone.put(webhook, wait).await,
                    // What one worker's probe has found out, the others needn't wait for.
                    News::Back => pipeline.repaired.put(webhook, Repair::Works).await,
                };
                match told {
                    Err(error) if store::is_away(&error) => {
                        tracing::debug!(%webhook, %error, "how an endpoint is can't be told for now");
                    }
                    Err(error) => tracing::warn!(%webhook, %error, "how an endpoint is can't be told to other workers"),
                    Ok(()) => {}
                }
            });
        }
        self.pipeline.advance(self.webhook_id);
    }
}

/// Records that are handed over at once: a wake-up for each would cost more than the record.
const BATCH_MAX: usize = 64;
/// Bytes of them.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A batch of records from a consumer, each with its receipt.
#[derive(Debug, Default)]
pub struct Batch {
    records: Vec<(Incoming, Arc<Receipt>)>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, incoming: Incoming, receipt: Arc<Receipt>) {
        self.bytes += incoming.bytes();
        self.records.push((incoming, receipt));
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}
