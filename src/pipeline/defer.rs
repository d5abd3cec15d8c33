//! Deferral: a delivery goes to a retry tier without an attempt, because its endpoint can't take it now.
//!
//! Deferrals gather for a moment and are written together. While a circuit is open, each event would otherwise cost a
//! task, a timer and several wake-ups of its own, which is more than the write itself.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::dispatch::{Dispatcher, Open};
use super::hand_off::{HandedOff, Sending};
use super::handling::Handling;
use super::panics;
use super::settle::Settlement;
use crate::chance;
use crate::clock::now_ms_up;
use crate::delivery::{DeadReason, Deferral, Delivery, Fate};
use crate::metrics;
use crate::record::LastError;
use crate::store::marks::Settled;

/// How long deferrals gather. The producer waits longer for a batch anyway.
const GATHER_FOR: Duration = Duration::from_millis(2);
/// How long the writes that were started together wait for each other. One that takes longer goes on by itself, so that
/// a tier that can't be written holds up no other.
const TOGETHER_MAX: Duration = Duration::from_millis(200);

/// The deferrals that gather. The permits that they hold bound their number.
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
struct Started {
    delivery: Arc<Delivery>,
    tier: u32,
    last: LastError,
    handling: Handling,
    panics: u8,
    sending: Sending,
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
        let gathered = std::mem::take(&mut *self.gathering.lock());
        let started: Vec<Started> = gathered.into_iter().filter_map(|one| self.start_deferral(one)).collect();
        let together_until = Instant::now() + TOGETHER_MAX;
        for deferral in started {
            let (delivery, receipt) = (deferral.delivery.clone(), deferral.handling.receipt.clone());
            let (last, panics) = (deferral.last, deferral.panics);
            if panics::caught(self.finish_deferral(deferral, together_until)).await.is_err() {
                Box::pin(self.clone().after_panic(delivery, receipt, last, panics)).await;
            }
        }
    }

    /// Gives a deferral to the producer. One that is not written to a tier goes on in a task of its own.
    fn start_deferral(self: &Arc<Self>, gathered: Gathered) -> Option<Started> {
        let Gathered { mut delivery, last, handling, panics, deferral } = gathered;
        let Ok((fate, last)) = panics::twice(|| self.decide(&delivery, last, deferral)) else {
            tokio::spawn(self.clone().give_up(delivery, DeadReason::Malformed, panics::detail(), handling));
            return None;
        };
        let deferred = Arc::make_mut(&mut delivery);
        deferred.deferrals = deferred.deferrals.saturating_add(1);
        if let Fate::Retry { tier, due_at_ms } = fate {
            let sending = self.hand_off.start_retry(&delivery, tier, due_at_ms, last);
            return Some(Started { delivery, tier, last, handling, panics, sending });
        }
        let (dispatcher, guarded, receipt) = (self.clone(), delivery.clone(), handling.receipt.clone());
        self.spawn_guarded(guarded, receipt, last, panics, async move {
            dispatcher.hand_off_and_settle(&delivery, fate, last, handling).await;
        });
        None
    }

    /// Settles a deferral when it is durable. One that isn't by `together_until` goes on in a task of its own.
    async fn finish_deferral(self: &Arc<Self>, mut started: Started, together_until: Instant) {
        match timeout_at(together_until, &mut started.sending).await {
            Ok(Ok(())) => {
                started.sending.written();
                let settled = Settled::Delivery(started.delivery.id);
                return self.settler.settle(Settlement::silent(settled, started.handling)).await;
            }
            Ok(Err((error, headers))) => started.sending = Sending::refused(error, Some(headers)),
            Err(_) => {}
        }
        let Started { delivery, tier, last, mut handling, panics, sending } = started;
        let (dispatcher, guarded, receipt) = (self.clone(), delivery.clone(), handling.receipt.clone());
        self.spawn_guarded(guarded, receipt, last, panics, async move {
            let handed_off = dispatcher.hand_off.finish_retry(&delivery, tier, last, sending, &mut handling).await;
            if handed_off == HandedOff::Written {
                dispatcher.settler.settle(Settlement::silent(Settled::Delivery(delivery.id), handling)).await;
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
        let delivery = Delivery { deferrals: delivery.deferrals.saturating_add(1), ..delivery.clone() };
        self.hand_off_and_settle(&delivery, fate, last, handling).await;
    }

    fn decide(&self, delivery: &Delivery, last: LastError, deferral: Deferral) -> (Fate, LastError) {
        metrics::DEFERRALS.increment(deferral.why.as_str());
        let fate = self.policy.after_deferral(delivery, deferral.backs_off_for, now_ms_up(), chance::share());
        (fate, LastError { code: Some(deferral.why), status: last.status })
    }

    async fn hand_off_and_settle(&self, delivery: &Delivery, fate: Fate, last: LastError, mut handling: Handling) {
        if self.hand_off_by_fate(delivery, fate, last, &mut handling).await == HandedOff::Written {
            self.settler.settle(Settlement::silent(Settled::Delivery(delivery.id), handling)).await;
        }
    }
}
