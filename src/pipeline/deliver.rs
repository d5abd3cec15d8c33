//! One attempt and what follows from it: send, hand off, settle.

use crate::metrics;
use crate::store::marks::Settled;
use std::sync::Arc;

use super::announce::Announcement;
use super::dispatch::{Dispatcher, Open};
use super::endpoint::Started;
use super::hand_off::HandedOff;
use super::handling::Handling;
use super::recipient::{NoRecipient, recipient};
use super::send;
use super::settle::Settlement;
use crate::chance;
use crate::delivery::Deferral;
use crate::delivery::{DeadReason, Delivery, Dropped, FailureCode, Fate, GONE, Outcome};
use crate::detail::Detail;
use crate::record::LastError;
use crate::report::Stage;
use crate::traceparent::TraceParent;
use crate::traces::AttemptTrace;
use crate::webhook::WebhookId;

impl Dispatcher {
    /// Makes one attempt of a delivery whose turn it is. Branches that most deliveries don't take are boxed, because each
    /// task would otherwise be allocated and moved with the state of all of them.
    pub(super) async fn deliver(self: Arc<Self>, open: Open, started: Started) {
        let Open { delivery, last, receipt, permits, order_key, queued_at, .. } = open;
        // The turn is dropped on every way out, a panic included, which gives back the endpoint's slot.
        let mut turn =
            Turn { dispatcher: self.clone(), webhook_id: delivery.webhook_id, order_key, started, outcome: None };
        // The webhook is looked up right before the request. While Redis is unavailable, sending waits here.
        let snapshot = self.snapshots.current().await;
        let Some(mut handling) = self.handle(receipt, permits) else { return };
        let webhook = match recipient(&snapshot, &delivery) {
            Ok(webhook) => webhook,
            Err(NoRecipient::Dropped(why)) => return self.drop_silently(&delivery, handling, why).await,
            Err(NoRecipient::Unsupported) => {
                return Box::pin(self.defer_handled(&delivery, last, handling, Deferral::UNSUPPORTED)).await;
            }
            Err(NoRecipient::Held) => {
                return Box::pin(self.defer_handled(&delivery, last, handling, Deferral::HELD)).await;
            }
        };
        drop(snapshot);
        handling.receipt.note(Stage::Sending, webhook.id);
        let mut trace = AttemptTrace::begin(&delivery, handling.receipt.traced(), queued_at);
        let context = trace.as_ref().map(|trace| trace.traceparent());
        let context = context.as_ref().or(delivery.traceparent.as_ref());
        let attempt = send::attempt(&self.client, &webhook, &delivery, context, &self.config.delivery).await;
        turn.outcome = Some(attempt.outcome());
        drop(turn);
        metrics::attempts::count(&delivery, &attempt);
        // Disable the webhook first, and drop the delivery only if that succeeds. A webhook that was changed meanwhile
        // stays active, and the attempt counts as an ordinary failure. After a crash between the two steps, the
        // delivery is dropped when it comes up again.
        let is_disabled =
            attempt.status == Some(GONE) && Box::pin(self.disabling.disable_gone(&webhook, attempt.ended_at_ms)).await;
        let fate =
            if is_disabled { Fate::Dropped } else { self.policy.after_attempt(&delivery, &attempt, chance::share()) };
        let last = LastError { code: attempt.failure, status: attempt.status };
        tracing::debug!(
            delivery = %delivery.id,
            webhook = %webhook.id,
            attempt = delivery.attempts.saturating_add(1),
            status = attempt.status,
            failure = attempt.failure.map(FailureCode::as_str),
            trace_id = context.map(TraceParent::trace_id_text),
            "attempted"
        );
        if let Some(trace) = &mut trace {
            trace.attempted(&webhook.url, &attempt, fate);
        }
        handling.receipt.note(Stage::Settling, webhook.id);
        // Hand off first, settle second. A crash between the two repeats an attempt; in the other order it would lose a
        // delivery.
        if fate != Fate::Delivered {
            // The next owner of a lost partition makes this attempt again, and hands the delivery off itself.
            if handling.receipt.partition.is_closed() {
                return;
            }
            let next = Delivery { attempts: delivery.attempts.saturating_add(1), ..(*delivery).clone() };
            let handed_off = Box::pin(self.hand_off_by_fate(&next, fate, last, &mut handling)).await;
            if handed_off == HandedOff::LeftToNextOwner {
                return;
            }
        }
        if attempt.failure.is_none_or(FailureCode::is_of_endpoint) {
            self.disabling.observe(&webhook, &attempt).await;
        }
        let missed = self.missed(&delivery).filter(|_| is_disabled);
        let settlement = Settlement::attempted(&delivery, &attempt, fate, handling).traced(trace);
        self.settler.settle(settlement.missed(missed)).await;
    }

    /// Writes a delivery to the topic that its fate names. A fate without a topic counts as written. Not cancel safe.
    pub(super) async fn hand_off_by_fate(
        &self,
        delivery: &Delivery,
        fate: Fate,
        last: LastError,
        handling: &mut Handling,
    ) -> HandedOff {
        match fate {
            Fate::Delivered | Fate::Dropped => HandedOff::Written,
            Fate::Retry { tier, due_at_ms } => self.hand_off.retry(delivery, tier, due_at_ms, last, handling).await,
            Fate::Dead(reason) => {
                let code = last.code.map_or("none", FailureCode::as_str);
                let detail = Detail::new("after ").number(delivery.attempts).text(" attempts, the last: ").text(code);
                let detail = match last.status {
                    Some(status) => detail.text(" ").number(status),
                    None => detail,
                };
                self.hand_off.dead(delivery, reason, &detail, last, handling).await
            }
        }
    }

    /// Settles a delivery that nobody wants any more: nothing is sent, and nothing is dead-lettered.
    pub(super) async fn drop_silently(&self, delivery: &Delivery, handling: Handling, why: Dropped) {
        tracing::debug!(delivery = %delivery.id, webhook = %delivery.webhook_id, reason = why.as_str(), "dropped");
        metrics::DROPPED.increment(why.as_str());
        let missed = self.missed(delivery).filter(|_| why == Dropped::WebhookInactive);
        self.settler.settle(Settlement::silent(Settled::Delivery(delivery.id), handling).missed(missed)).await;
    }

    /// Dead-letters a delivery without an attempt. Not cancel safe.
    pub(super) async fn give_up(
        self: Arc<Self>,
        delivery: Arc<Delivery>,
        reason: DeadReason,
        detail: Detail,
        mut handling: Handling,
    ) {
        let last = LastError::default();
        if self.hand_off.dead(&delivery, reason, &detail, last, &mut handling).await == HandedOff::Written {
            self.settler.settle(Settlement::silent(Settled::Delivery(delivery.id), handling)).await;
        }
    }
}

/// A slot at an endpoint. Dropping it gives the slot back, with the outcome of the attempt.
struct Turn {
    dispatcher: Arc<Dispatcher>,
    webhook_id: WebhookId,
    order_key: Option<u64>,
    started: Started,
    /// The outcome of the attempt, or None if no attempt was made.
    outcome: Option<Outcome>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let change = self.dispatcher.endpoints.finished(self.webhook_id, self.order_key, self.started, self.outcome);
        if let Some(change) = change {
            // If the queue is full, the announcement is lost, and other workers find the change with an attempt or two.
            let _ = self.dispatcher.announcements.try_send(Announcement::new(self.webhook_id, change));
        }
        self.dispatcher.advance(self.webhook_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what an async function returns, in bytes.
    fn size_of_future<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_delivery_is_small() {
        let size = size_of_future(Dispatcher::deliver);
        assert!(size <= 8 << 10, "{size} bytes: which branch is not boxed?");
    }
}
