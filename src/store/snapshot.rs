//! One immutable snapshot of the webhooks, replaced when Redis announces a change.
//!
//! The snapshot is used only if it was confirmed within `webhooks.staleness_max`. It is not used while Redis refuses
//! writes, because attempts could not be recorded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::since_boot;
use crate::delivery::{Delivery, DeliveryId};
use crate::event::{Event, EventType};
use crate::webhook::filter::Fields;
use crate::webhook::unsupported::Unsupported;
use crate::webhook::{Webhook, WebhookId};

pub use keeper::{Setup, keep};

mod keeper;
mod listener;

/// All webhooks at one version of the store.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_id: HashMap<WebhookId, Arc<Webhook>>,
    by_event: HashMap<EventType, Subscribers>,
    /// Paused webhooks whose deliveries wait.
    held: HashSet<WebhookId>,
    /// The other inactive webhooks, by the events that they miss.
    missing: HashMap<EventType, Subscribers>,
    inactive: HashSet<WebhookId>,
    /// Webhooks that this version cannot read, and whose deliveries wait.
    unsupported: HashMap<WebhookId, Arc<Unsupported>>,
    /// Inactive webhooks that this version cannot read. They miss their deliveries like other inactive webhooks.
    unsupported_missing: Vec<Arc<Unsupported>>,
    /// Redeliveries, each with the time of its request in Unix milliseconds.
    replaced: HashMap<DeliveryId, i64>,
}

impl Snapshot {
    /// Builds a snapshot from all webhooks.
    #[must_use]
    pub fn of(webhooks: Vec<Webhook>, unsupported: Vec<Unsupported>, replaced: HashMap<DeliveryId, i64>) -> Self {
        let (waited_for, inactive): (Vec<Arc<Webhook>>, Vec<Arc<Webhook>>) =
            webhooks.into_iter().map(Arc::new).partition(|webhook| webhook.active || webhook.hold);
        let by_event = EventType::ALL.into_iter().map(|event| (event, Subscribers::of(&waited_for, event))).collect();
        let missing = EventType::TASKS.into_iter().map(|event| (event, Subscribers::of(&inactive, event))).collect();
        let (active, held): (Vec<_>, Vec<_>) = waited_for.into_iter().partition(|webhook| webhook.active);
        let (unsupported, unsupported_missing): (Vec<_>, Vec<_>) =
            unsupported.into_iter().map(Arc::new).partition(|unsupported| unsupported.waits());
        let inactive = inactive.iter().map(|webhook| webhook.id);
        Self {
            by_id: active.into_iter().map(|webhook| (webhook.id, webhook)).collect(),
            by_event,
            held: held.into_iter().map(|webhook| webhook.id).collect(),
            missing,
            inactive: inactive.chain(unsupported_missing.iter().map(|unsupported| unsupported.id)).collect(),
            unsupported: unsupported.into_iter().map(|unsupported| (unsupported.id, unsupported)).collect(),
            unsupported_missing,
            replaced,
        }
    }

    /// Whether a redelivery replaces this delivery, because it was requested after the delivery was first seen.
    #[must_use]
    pub fn is_replaced(&self, delivery: &Delivery) -> bool {
        self.replaced.get(&delivery.id).is_some_and(|at_ms| delivery.first_seen_at_ms < *at_ms)
    }

    /// The active webhook with this id.
    #[must_use]
    pub fn get(&self, id: WebhookId) -> Option<&Arc<Webhook>> {
        self.by_id.get(&id)
    }

    /// Whether the deliveries of a paused webhook wait.
    #[must_use]
    pub fn is_held(&self, id: WebhookId) -> bool {
        self.held.contains(&id)
    }

    /// Whether a webhook exists but gets nothing, so that it misses its deliveries.
    #[must_use]
    pub fn is_inactive(&self, id: WebhookId) -> bool {
        self.inactive.contains(&id)
    }

    /// Whether this version cannot read the webhook with this id, so that its deliveries wait.
    #[must_use]
    pub fn is_unsupported(&self, id: WebhookId) -> bool {
        self.unsupported.contains_key(&id)
    }

    /// The unsupported webhooks that may subscribe to `event`, and whose deliveries wait.
    pub fn unsupported(&self, event: EventType) -> impl Iterator<Item = &Arc<Unsupported>> {
        self.unsupported.values().filter(move |unsupported| unsupported.may_want(event))
    }

    /// The webhooks that subscribe to the type of `event` and whose filters let it through. They are active, or their
    /// deliveries wait.
    #[must_use]
    pub fn matching(&self, event: &Event) -> Arc<[Arc<Webhook>]> {
        self.by_event.get(&event.event_type).map(|subscribers| subscribers.matching(event)).unwrap_or_default()
    }

    /// The inactive webhooks that would get `event`, each with the time of its last change. Nobody knows the filter of one
    /// that this version cannot read, so it counts in any case; its filter is applied when the events are sent later.
    #[must_use]
    pub fn missing(&self, event: &Event) -> Vec<(WebhookId, String)> {
        let readable = self.missing.get(&event.event_type).map(|subscribers| subscribers.matching(event));
        let readable = readable.iter().flat_map(|webhooks| webhooks.iter());
        let unsupported = self.unsupported_missing.iter();
        let unsupported = unsupported
            .filter(|unsupported| !event.event_type.is_operational() && unsupported.may_want(event.event_type));
        readable
            .map(|webhook| (webhook.id, webhook.updated_at.clone()))
            .chain(unsupported.map(|unsupported| (unsupported.id, unsupported.updated_at.clone())))
            .collect()
    }
}

/// The webhooks that subscribe to an event type.
#[derive(Debug, Default)]
struct Subscribers {
    webhooks: Arc<[Arc<Webhook>]>,
    /// Whether any of them has a filter. If none has, the fields of an event need not be read.
    have_filters: bool,
}

impl Subscribers {
    fn of(all: &[Arc<Webhook>], event: EventType) -> Self {
        let webhooks: Arc<[_]> = all.iter().filter(|webhook| webhook.events.contains(&event)).cloned().collect();
        Self { have_filters: webhooks.iter().any(|webhook| webhook.filter.is_some()), webhooks }
    }

    fn matching(&self, event: &Event) -> Arc<[Arc<Webhook>]> {
        if !self.have_filters {
            return self.webhooks.clone();
        }
        let fields = Fields::of(event);
        let gets = |webhook: &&Arc<Webhook>| webhook.filter.as_ref().is_none_or(|filter| filter.matches(&fields));
        self.webhooks.iter().filter(gets).cloned().collect()
    }
}

/// The reasons why nothing may be sent although Redis answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Trouble {
    /// Webhooks may have been lost.
    unconfirmed: Option<String>,
    /// Redis refused the test write of the keeper.
    test_write: Option<String>,
    /// Attempts cannot be recorded.
    settling: Option<String>,
}

impl Trouble {
    fn first(&self) -> Option<&String> {
        self.unconfirmed.as_ref().or(self.test_write.as_ref()).or(self.settling.as_ref())
    }
}

/// The time at which Redis was asked.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// The same time on the clock that goes on while the machine is suspended.
    since_boot: Duration,
}

impl Asked {
    fn now() -> Self {
        Self { at: Instant::now(), since_boot: since_boot() }
    }

    fn elapsed(self) -> Duration {
        self.at.elapsed().max(since_boot().saturating_sub(self.since_boot))
    }
}

#[derive(Debug, Default)]
struct Confirmed {
    snapshot: Arc<Snapshot>,
    /// The time before Redis was asked. The snapshot is at least as new as this.
    at: Option<Asked>,
    /// The version of the store at that time, and the number of webhooks, including inactive ones.
    seen: Option<(u64, u64)>,
    trouble: Trouble,
}

/// Access to the current snapshot. Clones share it.
#[derive(Clone)]
pub struct Snapshots {
    confirmed: watch::Sender<Confirmed>,
    staleness_max: Duration,
}

impl Snapshots {
    fn new(staleness_max: Duration) -> Self {
        Self { confirmed: watch::channel(Confirmed::default()).0, staleness_max }
    }

    /// A snapshot of these webhooks that stays confirmed, for simulations.
    #[cfg(test)]
    pub(crate) fn fixed(webhooks: Vec<Webhook>) -> Self {
        let snapshots = Self::new(Duration::MAX);
        let seen = Some((1, webhooks.len() as u64));
        let snapshot = Arc::new(Snapshot::of(webhooks, Vec::new(), HashMap::new()));
        snapshots.confirmed.send_replace(Confirmed {
            snapshot,
            at: Some(Asked::now()),
            seen,
            trouble: Trouble::default(),
        });
        snapshots
    }

    /// Waits until a snapshot may be used: it is confirmed, and attempts can be recorded. Cancel safe.
    pub async fn current(&self) -> Arc<Snapshot> {
        let now = self.usable(&self.confirmed.borrow());
        match now {
            Some(snapshot) => snapshot,
            None => Box::pin(self.wait_for(|_| true)).await,
        }
    }

    /// Waits for a usable snapshot other than `before`. Cancel safe.
    pub async fn after(&self, before: &Arc<Snapshot>) -> Arc<Snapshot> {
        self.wait_for(|snapshot| !Arc::ptr_eq(snapshot, before)).await
    }

    async fn wait_for(&self, is_wanted: impl Fn(&Arc<Snapshot>) -> bool) -> Arc<Snapshot> {
        let mut changes = self.confirmed.subscribe();
        let matches = |confirmed: &Confirmed| self.usable(confirmed).is_some_and(|snapshot| is_wanted(&snapshot));
        let next = changes.wait_for(matches).await.map(|confirmed| confirmed.snapshot.clone());
        next.expect("this owns the sender")
    }

    /// Whether the current snapshot may be used.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.usable(&self.confirmed.borrow()).is_some()
    }

    /// The reason why nothing is sent. None if deliveries may be sent.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let confirmed = self.confirmed.borrow();
        if let Some(reason) = confirmed.trouble.first() {
            return Some(reason.clone());
        }
        self.usable(&confirmed).is_none().then(|| "away".to_owned())
    }

    /// The version of the store when it was last confirmed, and the number of webhooks. None before that.
    #[must_use]
    pub fn seen(&self) -> Option<(u64, u64)> {
        self.confirmed.borrow().seen
    }

    /// Sets the reason why attempts cannot be recorded. While there is one, nothing is sent. None clears it.
    pub fn settling(&self, trouble: Option<String>) {
        self.note(|current| &mut current.settling, trouble);
    }

    fn note(&self, which: impl FnOnce(&mut Trouble) -> &mut Option<String>, trouble: Option<String>) {
        self.confirmed.send_if_modified(|confirmed| {
            let current = which(&mut confirmed.trouble);
            let is_changed = *current != trouble;
            *current = trouble;
            is_changed
        });
    }

    fn usable(&self, confirmed: &Confirmed) -> Option<Arc<Snapshot>> {
        let is_fresh = confirmed.at.is_some_and(|at| at.elapsed() < self.staleness_max);
        (is_fresh && confirmed.trouble.first().is_none()).then(|| confirmed.snapshot.clone())
    }
}
