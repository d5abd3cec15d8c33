//! The webhooks as one immutable picture, swapped when Redis says that something changed,
//! and not used unless it was confirmed within `webhooks.staleness_max`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Keys;
use super::webhooks::WebhookStore;
use crate::delivery::{Delivery, DeliveryId};
use crate::event::EventType;
use crate::schedule::Reconnect;
use crate::webhook::{Webhook, WebhookId};

/// All webhooks at one version.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_id: HashMap<WebhookId, Arc<Webhook>>,
    by_event: HashMap<EventType, Arc<[Arc<Webhook>]>>,
    /// Deliveries that were sent again by hand, and when, Unix milliseconds.
    replaced: HashMap<DeliveryId, i64>,
}

impl Snapshot {
    /// Indexed by event type; webhooks that aren't active get nothing.
    #[must_use]
    pub fn of(webhooks: Vec<Webhook>, replaced: HashMap<DeliveryId, i64>) -> Self {
        let active: Vec<Arc<Webhook>> = webhooks.into_iter().filter(|webhook| webhook.active).map(Arc::new).collect();
        let by_event = EventType::ALL
            .into_iter()
            .map(|event| (event, active.iter().filter(|webhook| webhook.events.contains(&event)).cloned().collect()))
            .collect();
        Self { by_id: active.into_iter().map(|webhook| (webhook.id, webhook)).collect(), by_event, replaced }
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

    /// The active webhooks that want to be told of `event`.
    #[must_use]
    pub fn matching(&self, event: EventType) -> Arc<[Arc<Webhook>]> {
        self.by_event.get(&event).cloned().unwrap_or_default()
    }
}

#[derive(Clone)]
struct Confirmed {
    snapshot: Arc<Snapshot>,
    /// Taken before Redis was asked: the picture is at least as new as this.
    at: Option<Instant>,
}

/// The snapshot in use.
#[derive(Clone)]
pub struct Snapshots {
    confirmed: watch::Receiver<Confirmed>,
    staleness_max: Duration,
}

impl Snapshots {
    /// The snapshot, as soon as it is confirmed to be current; waits while Redis is away. Cancel safe.
    pub async fn current(&self) -> Arc<Snapshot> {
        let now = self.fresh(&self.confirmed.borrow());
        if let Some(snapshot) = now {
            return snapshot;
        }
        let mut changes = self.confirmed.clone();
        let is_fresh = |confirmed: &Confirmed| self.fresh(confirmed).is_some();
        let next = changes.wait_for(is_fresh).await.map(|confirmed| confirmed.snapshot.clone());
        match next {
            Ok(snapshot) => snapshot,
            // The keeper is gone: the process ends, and nothing more may be sent.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether Redis confirmed the snapshot lately.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh(&self.confirmed.borrow()).is_some()
    }

    fn fresh(&self, confirmed: &Confirmed) -> Option<Arc<Snapshot>> {
        confirmed.at.filter(|at| at.elapsed() < self.staleness_max).map(|_| confirmed.snapshot.clone())
    }
}

/// Keeps the snapshot current until `stop`.
#[must_use]
pub fn keep(
    client: redis::Client,
    store: WebhookStore,
    keys: Keys,
    staleness_max: Duration,
    stop: CancellationToken,
) -> Snapshots {
    let (sender, confirmed) = watch::channel(Confirmed { snapshot: Arc::default(), at: None });
    let keeper = Keeper { store, sender, version: None, interval: staleness_max / 4 };
    tokio::spawn(stop.run_until_cancelled_owned(keeper.run(client, keys.webhooks_version())));
    Snapshots { confirmed, staleness_max }
}

struct Keeper {
    store: WebhookStore,
    sender: watch::Sender<Confirmed>,
    version: Option<u64>,
    interval: Duration,
}

impl Keeper {
    async fn run(mut self, client: redis::Client, channel: String) {
        let mut announced = spawn_listener(client, channel);
        let mut reconnect = Reconnect::default();
        let mut away = false;
        loop {
            match self.confirm().await {
                Ok(()) => {
                    if std::mem::take(&mut away) {
                        tracing::info!("redis is back");
                    }
                    reconnect = Reconnect::default();
                    tokio::select! {
                        () = tokio::time::sleep(self.interval) => {}
                        _ = announced.changed() => {}
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "redis is away: nothing is sent until it is back");
                    }
                    // It may come back without its data: the next picture is read whole.
                    self.version = None;
                    reconnect.wait().await;
                }
            }
        }
    }

    async fn confirm(&mut self) -> redis::RedisResult<()> {
        let asked_at = Instant::now();
        let version = self.store.version().await?;
        if self.version == Some(version) {
            self.sender.send_modify(|confirmed| confirmed.at = Some(asked_at));
            return Ok(());
        }
        let (version, webhooks) = self.store.all().await?;
        let replaced = self.store.replaced().await?;
        tracing::debug!(version, webhooks = webhooks.len(), "webhooks read");
        self.version = Some(version);
        self.sender
            .send_replace(Confirmed { snapshot: Arc::new(Snapshot::of(webhooks, replaced)), at: Some(asked_at) });
        Ok(())
    }
}

/// Announcements only make a change seen sooner: one that is missed is seen by the next confirmation.
fn spawn_listener(client: redis::Client, channel: String) -> watch::Receiver<()> {
    use futures_util::StreamExt as _;
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        let mut reconnect = Reconnect::default();
        while !sender.is_closed() {
            if let Ok(mut pubsub) = client.get_async_pubsub().await
                && pubsub.subscribe(&channel).await.is_ok()
            {
                reconnect = Reconnect::default();
                let mut messages = pubsub.on_message();
                loop {
                    tokio::select! {
                        message = messages.next() => if message.is_none() { break },
                        () = sender.closed() => return,
                    }
                    let _ = sender.send(());
                }
            }
            reconnect.wait().await;
        }
    });
    receiver
}
