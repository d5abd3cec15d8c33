//! Carries out the next steps of endpoints: it queues deliveries, starts them, defers them, and looks again later.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{OnceCell, mpsc};

use super::announce::Announcement;
use super::defer::Gathering;
use super::disabling::Disabling;
use super::endpoints::{Endpoints, Steps};
use super::hand_off::HandOff;
use super::handling::Handling;
use super::lane::{Queued, task_key};
use super::parking::Parking;
use super::permits::{Claim, PermitPools, Permits, percent};
use super::receipt::Receipt;
use super::settle::Settler;
use crate::conditions::{Conditions, Severity};
use crate::config::{Config, Ordering};
use crate::delivery::{Delivery, FatePolicy};
use crate::http::client::Client;
use crate::record::LastError;
use crate::report::EndpointReport;
use crate::report::Stage;
use crate::store;
use crate::store::backoffs::Backoffs;
use crate::store::snapshot::Snapshots;
use crate::topics::Names;
use crate::traces;
use crate::webhook::{Webhook, WebhookId};

/// How often the endpoints are swept for deliveries that have waited too long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// An open delivery: it holds its permits and its record's offset.
#[derive(Debug)]
pub struct Open {
    /// The delivery.
    pub delivery: Arc<Delivery>,
    /// Why its last attempt failed.
    pub last: LastError,
    /// The record that it comes from.
    pub receipt: Arc<Receipt>,
    /// The permits that it holds.
    pub permits: Permits,
    /// Deliveries with the same key go to their endpoint one after another.
    pub order_key: Option<u64>,
    /// The number of times that handling it has panicked.
    pub panics: u8,
    /// When it began to wait for its endpoint, if attempts are traced.
    pub queued_at: Option<SystemTime>,
}

impl Queued for Open {
    fn order_key(&self) -> Option<u64> {
        self.order_key
    }

    fn is_redelivery(&self) -> bool {
        self.delivery.by_hand
    }
}

/// The parts that a dispatcher needs.
#[allow(missing_docs, reason = "each field is what its type says")]
pub struct Parts {
    pub config: Arc<Config>,
    pub snapshots: Snapshots,
    pub client: Client,
    pub hand_off: HandOff,
    pub settler: Settler,
    pub disabling: Disabling,
    pub backoffs: Backoffs,
    pub announcements: mpsc::Sender<Announcement>,
    pub conditions: Conditions,
}

/// Takes open deliveries through their endpoints. One for the whole process, shared by both consumer groups.
pub struct Dispatcher {
    pub(super) config: Arc<Config>,
    pub(super) snapshots: Snapshots,
    pub(super) client: Client,
    pub(super) hand_off: HandOff,
    pub(super) settler: Settler,
    pub(super) disabling: Disabling,
    pub(super) policy: FatePolicy,
    pub(super) permits: PermitPools,
    pub(super) endpoints: Endpoints<Open>,
    pub(super) announcements: mpsc::Sender<Announcement>,
    pub(super) conditions: Conditions,
    backoffs: Backoffs,
    backoffs_loaded: OnceCell<()>,
    pub(super) names: Names,
    parked: ParkedByGroup,
    pub(super) gathering: Gathering,
}

/// The parked deliveries of each consumer group. A group whose parking is full doesn't stop the other group.
struct ParkedByGroup {
    events: Arc<Parking>,
    retries: Arc<Parking>,
}

impl Dispatcher {
    /// A dispatcher with no deliveries.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, snapshots, client, hand_off, settler, disabling, backoffs, announcements, conditions } =
            parts;
        let slow_permits = percent(config.worker.in_flight_max, config.worker.slow_share);
        Self {
            policy: FatePolicy::new(&config.delivery),
            permits: PermitPools::new(&config, snapshots.clone()),
            endpoints: Endpoints::new(&config.delivery, slow_permits),
            names: Names::new(&config),
            parked: ParkedByGroup {
                events: Parking::new(config.worker.parked_bytes_max),
                retries: Parking::new(config.worker.parked_bytes_max),
            },
            backoffs_loaded: OnceCell::new(),
            gathering: Gathering::default(),
            config,
            snapshots,
            client,
            hand_off,
            settler,
            disabling,
            backoffs,
            announcements,
            conditions,
        }
    }

    /// Loads, once, which endpoints were backing off under the workers before this one. Waits while Redis is away.
    /// Cancel safe.
    pub async fn load_backoffs(&self) {
        let load = async || {
            let mut outage = self.conditions.outage("redis: endpoints with an open circuit", Severity::NotReady);
            loop {
                match self.backoffs.all().await {
                    Ok(all) => return self.endpoints.back_off(all),
                    // A key that can't be read at all costs a few probes. It must not cost the start.
                    Err(error) if !store::is_away(&error) => {
                        tracing::warn!(%error, "the endpoints with an open circuit can't be read, so each endpoint is tried");
                        return;
                    }
                    Err(error) => outage.failed(error),
                }
                outage.wait().await;
            }
        };
        self.backoffs_loaded.get_or_init(load).await;
    }

    /// The parked deliveries of a consumer group: of the one that reads events if `of_events`, else of the other.
    #[must_use]
    pub fn parking(&self, of_events: bool) -> Arc<Parking> {
        if of_events { self.parked.events.clone() } else { self.parked.retries.clone() }
    }

    /// Sets how many workers share the rates of webhooks.
    pub fn set_workers(&self, workers: u32) {
        self.endpoints.set_workers(workers);
    }

    /// The number of further deliveries that could be open now.
    #[must_use]
    pub fn permits_left(&self) -> usize {
        self.permits.available()
    }

    /// The version and the number of the webhooks that this worker confirmed last.
    #[must_use]
    pub fn webhooks_seen(&self) -> Option<(u64, u64)> {
        self.snapshots.seen()
    }

    /// `worker.in_flight_max`
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        self.config.worker.in_flight_max
    }

    /// The endpoints that have deliveries, or a history that matters.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointReport> {
        self.endpoints.reports()
    }

    /// Takes the permits for a delivery with a payload of `bytes` to `webhook`. None if it may not wait for them. Cancel safe.
    pub(super) async fn claim(&self, claim: Claim, bytes: usize, webhook: WebhookId) -> Option<Permits> {
        self.permits.claim(claim, bytes, webhook, || self.endpoints.is_slow(webhook)).await
    }

    /// First attempts of one task keep their order, replayed ones too. Retries and redeliveries have no order.
    pub(super) fn order_key(&self, delivery: &Delivery) -> Option<u64> {
        let is_first = delivery.attempts == 0 && delivery.deferrals == 0 && !delivery.by_hand;
        (self.config.delivery.ordering == Ordering::Task && is_first).then(|| task_key(&delivery.task_id))
    }

    /// Begins to handle one part of a record. Returns None if its partition drains or is no longer ours: then nothing
    /// may be started.
    pub(super) fn handle(&self, receipt: Arc<Receipt>, permits: Permits) -> Option<Handling> {
        let parking = self.parking(!self.names.is_waiting(&receipt.partition.topic));
        Handling::start(receipt, permits, parking)
    }

    /// Queues a delivery at its endpoint.
    pub(super) fn submit(self: &Arc<Self>, webhook: &Arc<Webhook>, mut open: Open) {
        open.queued_at = traces::now();
        open.receipt.note(Stage::Waiting, webhook.id);
        let steps = self.endpoints.admit(webhook, open);
        self.take(webhook.id, steps);
    }

    /// Takes the next steps at an endpoint: starts the deliveries that may start, and defers those that may not wait.
    pub(super) fn advance(self: &Arc<Self>, webhook: WebhookId) {
        let steps = self.endpoints.advance(webhook);
        self.take(webhook, steps);
    }

    fn take(self: &Arc<Self>, webhook: WebhookId, steps: Steps<Open>) {
        for (open, started) in steps.start {
            self.spawn(open, move |dispatcher, open| dispatcher.deliver(open, started));
        }
        for (open, deferral) in steps.defer {
            self.spawn_deferral(open, deferral);
        }
        if let Some(at) = steps.again_at {
            let dispatcher = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(at).await;
                dispatcher.endpoints.woke(webhook);
                dispatcher.advance(webhook);
            });
        }
    }

    /// Looks at all endpoints ten times a second, so that none keeps deliveries that it can't take. Never returns.
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
            self.disabling.retain(|id| snapshot.get(id).is_some());
        }
    }
}
