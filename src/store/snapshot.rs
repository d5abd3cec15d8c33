//! The webhooks as one immutable picture, swapped when Redis says that something changed, and not used unless it was
//! confirmed within `webhooks.staleness_max`, nor while Redis takes no writes: what is sent couldn't be recorded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::delivery::{Delivery, DeliveryId};
use crate::event::EventType;
use crate::webhook::unsupported::Unsupported;
use crate::webhook::{Webhook, WebhookId};

pub use keeper::{Setup, keep};

mod keeper;
mod listener;

/// All webhooks at one version.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_id: HashMap<WebhookId, Arc<Webhook>>,
    by_event: HashMap<EventType, Arc<[Arc<Webhook>]>>,
    /// Webhooks that this version can't read: what is for them waits.
    unsupported: HashMap<WebhookId, Arc<Unsupported>>,
    /// Deliveries that were sent again by hand, and when, Unix milliseconds.
    replaced: HashMap<DeliveryId, i64>,
}

impl Snapshot {
    /// Indexed by event type; webhooks that aren't active get nothing.
    #[must_use]
    pub fn of(webhooks: Vec<Webhook>, unsupported: Vec<Unsupported>, replaced: HashMap<DeliveryId, i64>) -> Self {
        let active: Vec<Arc<Webhook>> = webhooks.into_iter().filter(|webhook| webhook.active).map(Arc::new).collect();
        let by_event = EventType::ALL
            .into_iter()
            .map(|event| (event, active.iter().filter(|webhook| webhook.events.contains(&event)).cloned().collect()))
            .collect();
        let unsupported = unsupported
            .into_iter()
            .filter(|unsupported| unsupported.active)
            .map(|unsupported| (unsupported.id, Arc::new(unsupported)))
            .collect();
        Self {
            by_id: active.into_iter().map(|webhook| (webhook.id, webhook)).collect(),
            by_event,
            unsupported,
            replaced,
        }
    }

    /// Whether a delivery was sent again by hand since it was first seen: then that stands for this one.
    #[must_use]
    pub fn is_replaced(&self, delivery: &Delivery) -> bool {
        self.replaced.get(&delivery.id).is_some_and(|at_ms| delivery.first_seen_at_ms < *at_ms)
    }

    /// The active webhook with that id.
    #[must_use]
    pub fn get(&self, id: WebhookId) -> Option<&Arc<Webhook>> {
        self.by_id.get(&id)
    }

    /// Whether what is for that webhook waits, because this version can't read it.
    #[must_use]
    pub fn is_unsupported(&self, id: WebhookId) -> bool {
        self.unsupported.contains_key(&id)
    }

    /// Those that may want to be told of `event`, and can't be read.
    pub fn unsupported(&self, event: EventType) -> impl Iterator<Item = &Arc<Unsupported>> {
        self.unsupported.values().filter(move |unsupported| unsupported.may_want(event))
    }

    /// The active webhooks that want to be told of `event`.
    #[must_use]
    pub fn matching(&self, event: EventType) -> Arc<[Arc<Webhook>]> {
        self.by_event.get(&event).cloned().unwrap_or_default()
    }
}

/// Why nothing may be sent although Redis answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Trouble {
    /// What stands there may be what a loss left.
    unconfirmed: Option<String>,
    /// Writes are refused, as the keeper's own show.
    probe: Option<String>,
    /// What was sent can't be recorded.
    settling: Option<String>,
}

impl Trouble {
    fn first(&self) -> Option<&String> {
        self.unconfirmed.as_ref().or(self.probe.as_ref()).or(self.settling.as_ref())
    }
}

#[derive(Debug, Default)]
struct Confirmed {
    snapshot: Arc<Snapshot>,
    /// Taken before Redis was asked: the picture is at least as new as this.
    at: Option<Instant>,
    /// The store's version at that time, and how many webhooks it had, inactive ones among them.
    seen: Option<(u64, u64)>,
    trouble: Trouble,
}

/// The snapshot in use.
#[derive(Clone)]
pub struct Snapshots {
    confirmed: watch::Sender<Confirmed>,
    staleness_max: Duration,
}

impl Snapshots {
    fn new(staleness_max: Duration) -> Self {
        Self { confirmed: watch::channel(Confirmed::default()).0, staleness_max }
    }

    /// The snapshot, as soon as it is confirmed to be current and what is sent can be recorded. Cancel safe.
    pub async fn current(&self) -> Arc<Snapshot> {
        let now = self.usable(&self.confirmed.borrow());
        match now {
            Some(snapshot) => snapshot,
            None => self.wait_for(|_| true).await,
        }
    }

    /// The first snapshot in use that isn't `before`. Cancel safe.
    pub async fn after(&self, before: &Arc<Snapshot>) -> Arc<Snapshot> {
        self.wait_for(|snapshot| !Arc::ptr_eq(snapshot, before)).await
    }

    async fn wait_for(&self, fits: impl Fn(&Arc<Snapshot>) -> bool) -> Arc<Snapshot> {
        let mut changes = self.confirmed.subscribe();
        let is_wanted = |confirmed: &Confirmed| self.usable(confirmed).is_some_and(|snapshot| fits(&snapshot));
        let next = changes.wait_for(is_wanted).await.map(|confirmed| confirmed.snapshot.clone());
        next.expect("the sender lives as long as this")
    }

    /// Whether it is confirmed, and may be used.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.usable(&self.confirmed.borrow()).is_some()
    }

    /// Why nothing is sent; None where something may be.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let confirmed = self.confirmed.borrow();
        if let Some(reason) = confirmed.trouble.first() {
            return Some(reason.clone());
        }
        self.usable(&confirmed).is_none().then(|| "away".to_owned())
    }

    /// The store's version when it was last confirmed, and how many webhooks it had.
    #[must_use]
    pub fn seen(&self) -> Option<(u64, u64)> {
        self.confirmed.borrow().seen
    }

    /// What was sent can't be recorded, or can again: until then nothing more is sent.
    pub fn settling(&self, trouble: Option<String>) {
        self.note(|known| &mut known.settling, trouble);
    }

    fn note(&self, which: impl FnOnce(&mut Trouble) -> &mut Option<String>, trouble: Option<String>) {
        self.confirmed.send_if_modified(|confirmed| {
            let known = which(&mut confirmed.trouble);
            let is_news = *known != trouble;
            *known = trouble;
            is_news
        });
    }

    fn usable(&self, confirmed: &Confirmed) -> Option<Arc<Snapshot>> {
        let is_fresh = confirmed.at.is_some_and(|at| at.elapsed() < self.staleness_max);
        (is_fresh && confirmed.trouble.first().is_none()).then(|| confirmed.snapshot.clone())
    }
}
