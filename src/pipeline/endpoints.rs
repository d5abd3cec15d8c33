//! All endpoints of this process, behind one lock that is held for no longer than a decision takes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

use super::breaker::Change;
use super::endpoint::{Deferral, Endpoint, Next, Started};
use super::lane::Queued;
use crate::config;
use crate::delivery::{FailureCode, Outcome};
use crate::report::EndpointReport;
use crate::webhook::{Webhook, WebhookId};

/// The endpoints that have something to do or a past worth remembering.
#[derive(Debug)]
pub struct Endpoints<T> {
    known: Mutex<HashMap<WebhookId, Known<T>>>,
    settings: config::Delivery,
}

#[derive(Debug)]
struct Known<T> {
    endpoint: Endpoint<T>,
    /// Someone sleeps until it may go on.
    is_awaited: bool,
}

/// What is to be done at an endpoint.
#[derive(Debug)]
pub struct Steps<T> {
    /// To be sent.
    pub start: Vec<(T, Started)>,
    /// To be put off.
    pub put_off: Vec<(T, Deferral)>,
    /// When to look again.
    pub again_at: Option<Instant>,
}

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Self { start: Vec::new(), put_off: Vec::new(), again_at: None }
    }
}

impl<T: Queued> Endpoints<T> {
    /// None yet.
    #[must_use]
    pub fn new(settings: config::Delivery) -> Self {
        Self { known: Mutex::default(), settings }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<WebhookId, Known<T>>> {
        self.known.lock().expect("nothing panics while it holds the endpoints")
    }

    /// Queues a delivery.
    pub fn admit(&self, webhook: &Webhook, item: T) {
        let now = Instant::now();
        let mut known = self.known();
        let known = known
            .entry(webhook.id)
            .or_insert_with(|| Known { endpoint: Endpoint::new(&self.settings, now), is_awaited: false });
        known.endpoint.set_rate(webhook.rate_per_second, now);
        known.endpoint.admit(item, now);
    }

    /// Everything that may be done at an endpoint now.
    pub fn advance(&self, webhook: WebhookId) -> Steps<T> {
        let now = Instant::now();
        let mut steps = Steps::default();
        let mut endpoints = self.known();
        let Some(known) = endpoints.get_mut(&webhook) else { return steps };
        loop {
            match known.endpoint.next(now, &self.settings) {
                Next::Start(item, started) => steps.start.push((item, started)),
                Next::PutOff(items, deferral) => steps.put_off.extend(items.into_iter().map(|item| (item, deferral))),
                Next::Later(at) => {
                    if !std::mem::replace(&mut known.is_awaited, true) {
                        steps.again_at = Some(at);
                    }
                    break;
                }
                Next::Nothing => break,
            }
        }
        // A healthy one that is idle is most of them: forgotten at once, so that memory follows what is going on.
        if known.endpoint.is_idle() && !known.is_awaited && known.endpoint.is_forgettable(now, &self.settings) {
            endpoints.remove(&webhook);
        }
        steps
    }

    /// Nobody sleeps for it any more.
    pub fn woke(&self, webhook: WebhookId) {
        if let Some(known) = self.known().get_mut(&webhook) {
            known.is_awaited = false;
        }
    }

    /// A request is over.
    pub fn finished(&self, webhook: WebhookId, order_key: Option<u64>, started: Started, outcome: Option<Outcome>) {
        let change = self
            .known()
            .get_mut(&webhook)
            .and_then(|known| known.endpoint.finished(order_key, started, outcome, Instant::now(), &self.settings));
        match change {
            Some(Change::Opened(lasts)) => {
                metrics::counter!("optio_webhooks_breaker_opened_total").increment(1);
                tracing::warn!(%webhook, for_s = lasts.as_secs(), "endpoint is left alone: too many of its attempts failed");
            }
            Some(Change::Closed) => tracing::info!(%webhook, "endpoint is back"),
            None => {}
        }
    }

    /// Each as it is now.
    pub fn reports(&self) -> Vec<EndpointReport> {
        let now = Instant::now();
        self.known().iter().map(|(webhook, known)| known.endpoint.report(*webhook, now)).collect()
    }

    /// Looks after each: what waits too long leaves, what is forgettable or not `exists` any more is forgotten.
    pub fn sweep(&self, exists: impl Fn(WebhookId) -> bool) -> Vec<(WebhookId, Steps<T>)> {
        let now = Instant::now();
        let mut all = Vec::new();
        self.known().retain(|webhook, known| {
            let overdue = known.endpoint.overdue(now, &self.settings);
            if !overdue.is_empty() {
                let deferral = Deferral { why: FailureCode::Saturated, left_alone: None };
                let put_off = overdue.into_iter().map(|item| (item, deferral)).collect();
                all.push((*webhook, Steps { put_off, ..Steps::default() }));
            }
            let is_over = known.endpoint.is_idle() && !known.is_awaited;
            !(is_over && (!exists(*webhook) || known.endpoint.is_forgettable(now, &self.settings)))
        });
        all
    }
}
