//! All endpoints of this process. One lock guards them, and it is held only while one decision is made.

use crate::metrics;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::breaker::Change;
use super::endpoint::{Endpoint, EndpointLimits, Next, Started};
use super::lane::Queued;
use super::slow_permits::SlowPermits;
use crate::config;
use crate::delivery::Deferral;
use crate::delivery::Outcome;
use crate::report::EndpointReport;
use crate::store::recoveries::Recovery;
use crate::webhook::{Webhook, WebhookId};

/// The endpoints that have deliveries or a history that matters.
#[derive(Debug)]
pub struct Endpoints<T> {
    state: Mutex<State<T>>,
    limits: Arc<EndpointLimits>,
    /// The number of workers that share a webhook's rate.
    workers: AtomicU32,
}

#[derive(Debug)]
struct State<T> {
    entries: HashMap<WebhookId, Entry<T>, Xxh3DefaultBuilder>,
    slow_permits: SlowPermits,
}

#[derive(Debug)]
struct Entry<T> {
    endpoint: Endpoint<T>,
    /// The webhook as it was when a delivery was last queued for it.
    webhook: Option<Arc<Webhook>>,
    /// Whether a task is asleep until the endpoint may take its next step.
    is_awaited: bool,
    /// The number of permits that the endpoint holds for a long time.
    holds_long: usize,
}

impl<T> Entry<T> {
    fn new(endpoint: Endpoint<T>) -> Self {
        Self { endpoint, webhook: None, is_awaited: false, holds_long: 0 }
    }
}

/// A change of an endpoint's back-off that other workers should know about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointChange {
    /// The endpoint backs off for this long from now on.
    BacksOff(Duration),
    /// The endpoint works again.
    Recovered,
}

/// The shortest extension of a back-off that is announced. Other workers notice a shorter one after a request or two.
const ANNOUNCED_MIN: Duration = Duration::from_secs(1);

/// The next steps at an endpoint.
#[derive(Debug)]
pub struct Steps<T> {
    /// Deliveries to send.
    pub start: Vec<(T, Started)>,
    /// Deliveries to defer.
    pub defer: Vec<(T, Deferral)>,
    /// The time at which to look again.
    pub again_at: Option<Instant>,
}

impl<T> Steps<T> {
    fn is_empty(&self) -> bool {
        self.start.is_empty() && self.defer.is_empty() && self.again_at.is_none()
    }
}

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Self { start: Vec::new(), defer: Vec::new(), again_at: None }
    }
}

impl<T: Queued> Endpoints<T> {
    /// Creates an empty set of endpoints. Together they may hold `slow_permits` permits for a long time.
    #[must_use]
    pub fn new(settings: &config::DeliverySettings, slow_permits: usize) -> Self {
        let state = State { entries: HashMap::default(), slow_permits: SlowPermits::new(slow_permits) };
        Self { state: Mutex::new(state), limits: Arc::new(EndpointLimits::new(settings)), workers: AtomicU32::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Sets the number of workers that share a webhook's rate.
    pub fn set_workers(&self, workers: u32) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }

    /// Adds endpoints that other workers found backing off. Endpoints that this process already knows don't change.
    pub fn back_off(&self, backs_off_for: impl IntoIterator<Item = (WebhookId, Duration)>) {
        let now = Instant::now();
        let mut state = self.state();
        for (webhook, wait) in backs_off_for {
            let endpoint = || Entry::new(Endpoint::backing_off(wait, &self.limits, now));
            state.entries.entry(webhook).or_insert_with(endpoint);
        }
    }

    /// Applies a recovery: a person's test or redelivery, or a successful probe of another worker.
    pub fn recover(&self, webhook: WebhookId, recovery: Recovery) {
        let now = Instant::now();
        let mut state = self.state();
        // If this process doesn't know the endpoint, it has no back-off here that could end.
        let Some(entry) = state.entries.get_mut(&webhook) else { return };
        match recovery {
            Recovery::TryNow => entry.endpoint.try_now(),
            Recovery::Succeeded => {
                if entry.endpoint.recovered(now) {
                    tracing::info!(%webhook, "back-off ended by a recovery");
                }
            }
        }
    }

    /// Queues a delivery, and returns all steps that are possible at its endpoint now. An endpoint whose URL has changed
    /// begins anew.
    pub fn admit(&self, webhook: &Arc<Webhook>, item: T) -> Steps<T> {
        let now = Instant::now();
        let mut state = self.state();
        let State { entries, slow_permits } = &mut *state;
        let entry = entries.entry(webhook.id).or_insert_with(|| Entry::new(Endpoint::new(&self.limits, now)));
        if !entry.webhook.as_ref().is_some_and(|before| Arc::ptr_eq(before, webhook)) {
            if entry.webhook.as_ref().is_some_and(|before| before.url != webhook.url) {
                entry.endpoint.moved(now);
            }
            entry.webhook = Some(webhook.clone());
        }
        entry.endpoint.set_rate(webhook.rate_per_second, self.workers.load(Ordering::Relaxed), now);
        entry.endpoint.admit(item, now);
        entry.steps(slow_permits, now)
    }

    /// Returns all steps that are possible at an endpoint now.
    pub fn advance(&self, webhook: WebhookId) -> Steps<T> {
        let now = Instant::now();
        let mut state = self.state();
        let State { entries, slow_permits } = &mut *state;
        let Some(entry) = entries.get_mut(&webhook) else { return Steps::default() };
        let steps = entry.steps(slow_permits, now);
        // Most endpoints are idle and healthy. They are forgotten at once, so that memory depends on the endpoints in
        // use.
        if entry.is_quiet() && entry.endpoint.is_forgettable(now) {
            entries.remove(&webhook);
        }
        steps
    }

    /// Whether an endpoint is known to be slow, and holds permits that it is not expected to give back soon.
    pub fn is_slow(&self, webhook: WebhookId) -> bool {
        self.state().entries.get(&webhook).is_some_and(|entry| entry.endpoint.is_slow())
    }

    /// Notes that the task that slept until [`Steps::again_at`] has woken.
    pub fn woke(&self, webhook: WebhookId) {
        if let Some(entry) = self.state().entries.get_mut(&webhook) {
            entry.is_awaited = false;
        }
    }

    /// Ends a request. Returns the change that other workers should know about, if there is one.
    pub fn finished(
        &self,
        webhook: WebhookId,
        order_key: Option<u64>,
        started: Started,
        outcome: Option<Outcome>,
    ) -> Option<EndpointChange> {
        let now = Instant::now();
        let (change, before, backs_off_for) = {
            let mut state = self.state();
            let endpoint = &mut state.entries.get_mut(&webhook)?.endpoint;
            let before = endpoint.backs_off_for(now).unwrap_or_default();
            let change = endpoint.finished(order_key, started, outcome, now);
            (change, before, endpoint.backs_off_for(now).unwrap_or_default())
        };
        match change {
            Some(Change::Opened(lasts)) => {
                metrics::CIRCUITS_OPENED.increment();
                tracing::warn!(%webhook, for_s = lasts.as_secs(), "circuit opened");
            }
            Some(Change::Closed) => {
                tracing::info!(%webhook, "circuit closed");
                return Some(EndpointChange::Recovered);
            }
            None => {}
        }
        (backs_off_for >= before + ANNOUNCED_MIN).then_some(EndpointChange::BacksOff(backs_off_for))
    }

    /// The present state of each endpoint.
    pub fn reports(&self) -> Vec<EndpointReport> {
        let now = Instant::now();
        self.state().entries.iter().map(|(webhook, entry)| entry.endpoint.report(*webhook, now)).collect()
    }

    /// Tells each endpoint that `by` more time has passed, and returns the steps that are possible. Deliveries that
    /// have waited too long are deferred. Endpoints that are forgettable, or whose webhook doesn't exist any more, are
    /// forgotten.
    pub fn sweep(&self, by: Duration, exists: impl Fn(WebhookId) -> bool) -> Vec<(WebhookId, Steps<T>)> {
        let now = Instant::now();
        let mut all = Vec::new();
        let State { entries, slow_permits } = &mut *self.state();
        entries.retain(|webhook, entry| {
            entry.endpoint.waited(by);
            let exists = exists(*webhook);
            // A webhook that is enabled again begins anew. Requests that are under way belong to its old history.
            if !exists && entry.webhook.take().is_some() {
                entry.endpoint.moved(now);
            }
            let overdue = entry.endpoint.take_overdue(now);
            let mut steps = entry.steps(slow_permits, now);
            steps.defer.extend(overdue.into_iter().map(|item| (item, Deferral::SATURATED)));
            if !steps.is_empty() {
                all.push((*webhook, steps));
            }
            !(entry.is_quiet() && (!exists || entry.endpoint.is_forgettable(now)))
        });
        all
    }
}

impl<T: Queued> Entry<T> {
    /// Returns all steps that are possible now.
    fn steps(&mut self, slow_permits: &mut SlowPermits, now: Instant) -> Steps<T> {
        let mut steps = Steps::default();
        let part = slow_permits.part(self.holds_long);
        loop {
            match self.endpoint.next(now, part) {
                Next::Start(item, started) => steps.start.push((item, started)),
                Next::Defer(items, deferral) => steps.defer.extend(items.into_iter().map(|item| (item, deferral))),
                Next::Later(at) => {
                    if !std::mem::replace(&mut self.is_awaited, true) {
                        steps.again_at = Some(at);
                    }
                    break;
                }
                Next::Nothing => break,
            }
        }
        let before = std::mem::replace(&mut self.holds_long, self.endpoint.holds_long());
        slow_permits.hold(before, self.holds_long);
        steps
    }

    /// Whether it has no deliveries, and no task is asleep until its next step.
    fn is_quiet(&self) -> bool {
        self.endpoint.is_idle() && !self.is_awaited
    }
}
