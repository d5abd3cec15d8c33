//! All endpoints of this process, behind one lock that is held for no longer than a decision takes.

use crate::metrics;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

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

/// The endpoints that have something to do or a past worth remembering.
#[derive(Debug)]
pub struct Endpoints<T> {
    state: Mutex<State<T>>,
    limits: Arc<EndpointLimits>,
    /// Workers that share a webhook's rate.
    workers: AtomicU32,
}

#[derive(Debug)]
struct State<T> {
    known: HashMap<WebhookId, Known<T>>,
    slow_permits: SlowPermits,
}

#[derive(Debug)]
struct Known<T> {
    endpoint: Endpoint<T>,
    /// As it was when something was last queued for it.
    webhook: Option<Arc<Webhook>>,
    /// Someone sleeps until it may go on.
    is_awaited: bool,
    /// Of the places that endpoints may hold for long.
    holds_long: usize,
}

impl<T> Known<T> {
    fn new(endpoint: Endpoint<T>) -> Self {
        Self { endpoint, webhook: None, is_awaited: false, holds_long: 0 }
    }
}

/// How long an endpoint is left alone, for other workers to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointChange {
    /// For so long from now on.
    BacksOff(Duration),
    /// No more.
    Recovered,
}

/// A shorter time isn't worth telling: who doesn't know of it learns it by a request or two.
const ANNOUNCED_MIN: Duration = Duration::from_secs(1);

/// What is to be done at an endpoint.
#[derive(Debug)]
pub struct Steps<T> {
    /// To be sent.
    pub start: Vec<(T, Started)>,
    /// To be put off.
    pub defer: Vec<(T, Deferral)>,
    /// When to look again.
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
    /// None yet. Together they may hold `slow_permits` for long.
    #[must_use]
    pub fn new(settings: &config::Delivery, slow_permits: usize) -> Self {
        let state = State { known: HashMap::new(), slow_permits: SlowPermits::new(slow_permits) };
        Self { state: Mutex::new(state), limits: Arc::new(EndpointLimits::new(settings)), workers: AtomicU32::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("nothing panics while it holds the endpoints")
    }

    /// How many workers share a webhook's rate from now on.
    pub fn set_workers(&self, workers: u32) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }

    /// What other workers know of endpoints that are to be left alone. What is known here already counts more.
    pub fn back_off(&self, backs_off_for: impl IntoIterator<Item = (WebhookId, Duration)>) {
        let now = Instant::now();
        let mut state = self.state();
        for (webhook, wait) in backs_off_for {
            let endpoint = || Known::new(Endpoint::backing_off(wait, &self.limits, now));
            state.known.entry(webhook).or_insert_with(endpoint);
        }
    }

    /// What is known of an endpoint from elsewhere: from a person's test or redelivery, or from another worker.
    pub fn recover(&self, webhook: WebhookId, recovery: Recovery) {
        let now = Instant::now();
        let mut state = self.state();
        // One that nothing is known of here isn't left alone either.
        let Some(known) = state.known.get_mut(&webhook) else { return };
        match recovery {
            Recovery::TryNow => known.endpoint.try_now(),
            Recovery::Succeeded => {
                if known.endpoint.recovered(now) {
                    tracing::info!(%webhook, "circuit closed: the endpoint is known to work");
                }
            }
        }
    }

    /// Queues a delivery.
    pub fn admit(&self, webhook: &Arc<Webhook>, item: T) {
        let now = Instant::now();
        let mut state = self.state();
        let known = state.known.entry(webhook.id).or_insert_with(|| Known::new(Endpoint::new(&self.limits, now)));
        if !known.webhook.as_ref().is_some_and(|before| Arc::ptr_eq(before, webhook)) {
            if known.webhook.as_ref().is_some_and(|before| before.url != webhook.url) {
                known.endpoint.moved(now);
            }
            known.webhook = Some(webhook.clone());
        }
        known.endpoint.set_rate(webhook.rate_per_second, self.workers.load(Ordering::Relaxed), now);
        known.endpoint.admit(item, now);
    }

    /// Everything that may be done at an endpoint now.
    pub fn advance(&self, webhook: WebhookId) -> Steps<T> {
        let now = Instant::now();
        let mut state = self.state();
        let State { known, slow_permits } = &mut *state;
        let Some(one) = known.get_mut(&webhook) else { return Steps::default() };
        let steps = one.steps(slow_permits, now);
        // A healthy one that is idle is most of them: forgotten at once, so that memory follows what is going on.
        if one.is_over() && one.endpoint.is_forgettable(now) {
            known.remove(&webhook);
        }
        steps
    }

    /// Nobody sleeps for it any more.
    pub fn woke(&self, webhook: WebhookId) {
        if let Some(known) = self.state().known.get_mut(&webhook) {
            known.is_awaited = false;
        }
    }

    /// A request is over. What other workers should know.
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
            let endpoint = &mut state.known.get_mut(&webhook)?.endpoint;
            let before = endpoint.backs_off_for(now).unwrap_or_default();
            let change = endpoint.finished(order_key, started, outcome, now);
            (change, before, endpoint.backs_off_for(now).unwrap_or_default())
        };
        match change {
            Some(Change::Opened(lasts)) => {
                metrics::CIRCUITS_OPENED.increment();
                tracing::warn!(%webhook, for_s = lasts.as_secs(), "endpoint is left alone: too many of its attempts failed");
            }
            Some(Change::Closed) => {
                tracing::info!(%webhook, "endpoint is back");
                return Some(EndpointChange::Recovered);
            }
            None => {}
        }
        (backs_off_for >= before + ANNOUNCED_MIN).then_some(EndpointChange::BacksOff(backs_off_for))
    }

    /// Each as it is now.
    pub fn reports(&self) -> Vec<EndpointReport> {
        let now = Instant::now();
        self.state().known.iter().map(|(webhook, known)| known.endpoint.report(*webhook, now)).collect()
    }

    /// Looks after each, another `by` later: what waits too long leaves, what is forgettable or doesn't `exist` any more is
    /// forgotten.
    pub fn sweep(&self, by: Duration, exists: impl Fn(WebhookId) -> bool) -> Vec<(WebhookId, Steps<T>)> {
        let now = Instant::now();
        let mut all = Vec::new();
        let State { known, slow_permits } = &mut *self.state();
        known.retain(|webhook, known| {
            known.endpoint.waited(by);
            let exists = exists(*webhook);
            // Enabled again, it begins anew; what is under way still belongs to before.
            if !exists && known.webhook.take().is_some() {
                known.endpoint.moved(now);
            }
            let overdue = known.endpoint.take_overdue(now);
            let mut steps = known.steps(slow_permits, now);
            steps.defer.extend(overdue.into_iter().map(|item| (item, Deferral::SATURATED)));
            if !steps.is_empty() {
                all.push((*webhook, steps));
            }
            !(known.is_over() && (!exists || known.endpoint.is_forgettable(now)))
        });
        all
    }
}

impl<T: Queued> Known<T> {
    /// Everything that may be done now.
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

    /// Nothing is going on with it.
    fn is_over(&self) -> bool {
        self.endpoint.is_idle() && !self.is_awaited
    }
}
