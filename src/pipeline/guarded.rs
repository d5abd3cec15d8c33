//! Tasks that handle deliveries. A panic in one affects only its delivery.

use std::sync::Arc;

use super::dispatch::{Dispatcher, Open};
use super::panics;
use super::receipt::Receipt;
use crate::delivery::{DeadReason, Delivery};
use crate::record::LastError;

impl Dispatcher {
    /// Handles a delivery on a task of its own. If that panics, the delivery is handled once more, and then given up.
    pub(super) fn spawn<F: Future<Output = ()> + Send>(
        self: &Arc<Self>,
        open: Open,
        run: impl FnOnce(Arc<Self>, Open) -> F + Send + 'static,
    ) {
        let dispatcher = self.clone();
        let (delivery, receipt, last, panics) = (open.delivery.clone(), open.receipt.clone(), open.last, open.panics);
        tokio::spawn(async move {
            if panics::caught(run(dispatcher.clone(), open)).await.is_ok() {
                return;
            }
            Box::pin(dispatcher.after_panic(delivery, receipt, last, panics)).await;
        });
    }

    /// Runs a part of the handling of a delivery on a task of its own, like [`Dispatcher::spawn`].
    pub(super) fn spawn_guarded(
        self: &Arc<Self>,
        delivery: Arc<Delivery>,
        receipt: Arc<Receipt>,
        last: LastError,
        panics: u8,
        part: impl Future<Output = ()> + Send + 'static,
    ) {
        let dispatcher = self.clone();
        tokio::spawn(async move {
            if panics::caught(part).await.is_err() {
                Box::pin(dispatcher.after_panic(delivery, receipt, last, panics)).await;
            }
        });
    }

    /// Handles a delivery whose handling has panicked once more, or gives it up if that was the second time.
    pub(super) async fn after_panic(
        self: Arc<Self>,
        delivery: Arc<Delivery>,
        receipt: Arc<Receipt>,
        last: LastError,
        panics: u8,
    ) {
        tracing::error!(delivery = %delivery.id, webhook = %delivery.webhook_id, "handling a delivery panicked");
        let permits = self.permits.write().await;
        let snapshot = self.snapshots.current().await;
        match snapshot.get(delivery.webhook_id) {
            Some(webhook) if panics == 0 => {
                let open =
                    Open { delivery, last, receipt, permits, order_key: None, panics: panics + 1, queued_at: None };
                self.submit(webhook, open);
            }
            _ => {
                let Some(handling) = self.handle(receipt, permits) else { return };
                self.give_up(delivery, DeadReason::Malformed, panics::detail(), handling).await;
            }
        }
    }
}
