//! Deferral: a delivery goes to a retry tier without an attempt, because its endpoint can't take it now.
//!
//! Deferrals gather for a moment and are written together. While a circuit is open, each event would otherwise cost a
//! task, a timer and several wake-ups of its own, which is more than the write itself.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use tokio::time::{Instant, sleep, timeout_at};

use super::dispatch::{Dispatcher, Open};
use super::hand_off::{HandedOff, Sending};
use super::handling::Handling;
use super::panics::{self, Panicked};
use super::settle::Settlement;
use crate::chance;
use crate::clock::now_ms_up;
use crate::delivery::{DeadReason, Deferral, Delivery, Fate};
use crate::metrics;
use crate::record::LastError;
use crate::store::marks::Settled;
use crate::webhook::WebhookId;

/// How long deferrals gather. It is short against the `linger.ms` of the producer, which is 10 ms.
const GATHER_FOR: Duration = Duration::from_millis(2);
/// How long the task of a batch waits for its writes. Slower ones continue in tasks of their own, which retry them.
const TOGETHER_MAX: Duration = Duration::from_millis(200);
/// How many writes are started before other tasks get their turn.
const STARTED_AT_ONCE: usize = 64;

/// The deferrals that gather. Their number is bounded by the permits that they hold.
#[derive(Debug, Default)]
pub(super) struct Gathering(Mutex<Vec<Gathered>>);

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, Vec<Gathered>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// Adds a deferral. Returns whether it is the first one, so that the caller has to start the next write.
    fn add(&self, gathered: Gathered) -> bool {
        let mut all = self.lock();
        all.push(gathered);
        all.len() == 1
    }

    /// Takes all deferrals. The next ones find room for as many.
    fn take(&self) -> Vec<Gathered> {
        let mut all = self.lock();
        let room = Vec::with_capacity(all.len());
        std::mem::replace(&mut *all, room)
    }
}

#[derive(Debug)]
struct Gathered {
    delivery: Arc<Delivery>,
    last: LastError,
    handling: Handling,
    panics: u8,
    deferral: Deferral,
}

/// A deferral that was given to the producer.
struct Write {
    sending: Sending,
    delivery: Arc<Delivery>,
    tier: u32,
    last: LastError,
    handling: Handling,
    panics: u8,
}

impl Write {
    /// What decides its partition; `None` once it was taken.
    fn partition(write: &Option<Self>) -> Option<(u32, WebhookId)> {
        write.as_ref().map(|write| (write.tier, write.delivery.webhook_id))
    }
}

impl Dispatcher {
    /// Defers a delivery, together with others that are deferred within [`GATHER_FOR`].
    pub(super) fn spawn_deferral(self: &Arc<Self>, open: Open, deferral: Deferral) {
        let Open { delivery, last, receipt, permits, panics, .. } = open;
        let Some(handling) = self.handle(receipt, permits) else { return };
        if self.gathering.add(Gathered { delivery, last, handling, panics, deferral }) {
            tokio::spawn(self.clone().write_gathered());
        }
    }

    async fn write_gathered(self: Arc<Self>) {
        sleep(GATHER_FOR).await;
        let gathered = self.gathering.take();
        let mut writes = Vec::with_capacity(gathered.len());
        for (at, deferral) in gathered.into_iter().enumerate() {
            if at % STARTED_AT_ONCE == STARTED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            writes.extend(self.start_deferral(deferral).map(Some));
        }
        // The deliveries of a webhook go to one partition of their tier, so they are acknowledged in their order.
        writes.sort_by_key(Write::partition);
        let partitions = writes.chunk_by_mut(|one, next| Write::partition(one) == Write::partition(next));
        let together_until = Instant::now() + TOGETHER_MAX;
        join_all(partitions.map(|writes| self.finish_in_order(writes, together_until))).await;
    }

    /// Settles the deferrals to one partition when they are durable. Takes each of `writes`.
    async fn finish_in_order(self: &Arc<Self>, writes: &mut [Option<Write>], together_until: Instant) {
        for mut write in writes.iter_mut().filter_map(Option::take) {
            match timeout_at(together_until, &mut write.sending).await {
                Ok(Ok(())) => {
                    write.sending.observe_duration();
                    self.settle_deferred(&write.delivery, write.handling).await;
                }
                Ok(Err(refused)) => self.finish_alone(write, Some(refused)),
                Err(_) => self.finish_alone(write, None),
            }
        }
    }

    async fn settle_deferred(&self, delivery: &Delivery, handling: Handling) {
        self.settler.settle(Settlement::silent(Settled::Delivery(delivery.id), handling)).await;
    }

    /// Gives a deferral to the producer. One that doesn't go to a tier continues in a task of its own.
    fn start_deferral(self: &Arc<Self>, gathered: Gathered) -> Option<Write> {
        let Gathered { mut delivery, last, handling, panics, deferral } = gathered;
        // The partition was revoked while the deferral gathered, so the next owner defers the delivery.
        if handling.receipt.partition.is_closed() {
            return None;
        }
        let Ok((fate, last)) = panics::twice(|| self.decide(&delivery, last, deferral)) else {
            tokio::spawn(self.clone().give_up(delivery, DeadReason::Malformed, panics::detail(), handling));
            return None;
        };
        metrics::DEFERRALS.increment(deferral.why.as_str());
        let deferred = Arc::make_mut(&mut delivery);
        deferred.deferrals = deferred.deferrals.saturating_add(1);
        let (dispatcher, receipt) = (self.clone(), handling.receipt.clone());
        let Fate::Retry { tier, due_at_ms } = fate else {
            self.spawn_guarded(delivery.clone(), receipt, last, panics, async move {
                dispatcher.hand_off_and_settle(&delivery, fate, last, handling).await;
            });
            return None;
        };
        match panics::once(|| self.hand_off.start_retry(&delivery, tier, due_at_ms, last)) {
            Ok(sending) => Some(Write { sending, delivery, tier, last, handling, panics }),
            Err(Panicked) => {
                tokio::spawn(dispatcher.after_panic(delivery, receipt, last, panics));
                None
            }
        }
    }

    /// Goes on with a deferral that was refused or isn't acknowledged yet, in a task of its own.
    fn finish_alone(self: &Arc<Self>, write: Write, refused: Option<(KafkaError, OwnedHeaders)>) {
        let Write { sending, delivery, tier, last, mut handling, panics } = write;
        let sending = match refused {
            Some((error, headers)) => sending.refused_with(error, headers),
            None => sending,
        };
        let (dispatcher, receipt) = (self.clone(), handling.receipt.clone());
        self.spawn_guarded(delivery.clone(), receipt, last, panics, async move {
            let handed_off = dispatcher.hand_off.finish_retry(&delivery, tier, last, sending, &mut handling).await;
            if handed_off == HandedOff::Written {
                dispatcher.settle_deferred(&delivery, handling).await;
            }
        });
    }

    /// Defers a delivery that is being handled already. Not cancel safe.
    pub(super) async fn defer_handled(
        &self,
        delivery: &Delivery,
        last: LastError,
        handling: Handling,
        deferral: Deferral,
    ) {
        let (fate, last) = self.decide(delivery, last, deferral);
        metrics::DEFERRALS.increment(deferral.why.as_str());
        let delivery = Delivery { deferrals: delivery.deferrals.saturating_add(1), ..delivery.clone() };
        self.hand_off_and_settle(&delivery, fate, last, handling).await;
    }

    fn decide(&self, delivery: &Delivery, last: LastError, deferral: Deferral) -> (Fate, LastError) {
        let fate = self.policy.after_deferral(delivery, deferral.backs_off_for, now_ms_up(), chance::share());
        (fate, LastError { code: Some(deferral.why), status: last.status })
    }

    async fn hand_off_and_settle(&self, delivery: &Delivery, fate: Fate, last: LastError, mut handling: Handling) {
        if self.hand_off_by_fate(delivery, fate, last, &mut handling).await == HandedOff::Written {
            self.settle_deferred(delivery, handling).await;
        }
    }
}
