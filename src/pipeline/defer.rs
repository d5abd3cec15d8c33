//! Deferral: a delivery goes to a retry tier without an attempt, because its endpoint can't take it now.

use crate::metrics;
use crate::store::marks::Settled;
use std::sync::Arc;

use super::dispatch::{Dispatcher, Open};
use super::hand_off::HandedOff;
use super::handling::Handling;
use super::settle::Settlement;
use crate::chance;
use crate::clock::now_ms_up;
use crate::delivery::{Deferral, Delivery};
use crate::record::LastError;

impl Dispatcher {
    /// Defers a delivery. Not cancel safe.
    pub(super) async fn defer(self: Arc<Self>, open: Open, deferral: Deferral) {
        let Some(handling) = self.handle(open.receipt, open.permits) else { return };
        self.defer_handled(&open.delivery, open.last, handling, deferral).await;
    }

    /// Defers a delivery that is being handled already. Not cancel safe.
    pub(super) async fn defer_handled(
        &self,
        delivery: &Delivery,
        last: LastError,
        mut handling: Handling,
        deferral: Deferral,
    ) {
        metrics::DEFERRALS.increment(deferral.why.as_str());
        let fate = self.policy.after_deferral(delivery, deferral.backs_off_for, now_ms_up(), chance::share());
        let delivery = Delivery { deferrals: delivery.deferrals.saturating_add(1), ..delivery.clone() };
        let last = LastError { code: Some(deferral.why), status: last.status };
        if self.hand_off_by_fate(&delivery, fate, last, &mut handling).await == HandedOff::Written {
            self.settler.settle(Settlement::silent(Settled::Delivery(delivery.id), handling)).await;
        }
    }
}
