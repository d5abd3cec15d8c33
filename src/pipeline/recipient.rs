//! Whether a delivery still has a webhook to go to.

use std::sync::Arc;

use crate::delivery::{Delivery, Dropped};
use crate::store::snapshot::Snapshot;
use crate::webhook::Webhook;

/// Why a delivery can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRecipient {
    /// It will never be sent.
    Dropped(Dropped),
    /// It can't be sent for now: this version can't read its webhook.
    Unsupported,
    /// It can't be sent for now: its webhook is paused, and its deliveries wait.
    Held,
}

/// The webhook that a delivery goes to.
///
/// # Errors
/// [`NoRecipient`] says what happens to the delivery instead.
pub fn recipient(snapshot: &Snapshot, delivery: &Delivery) -> Result<Arc<Webhook>, NoRecipient> {
    if snapshot.is_replaced(delivery) {
        return Err(NoRecipient::Dropped(Dropped::Replaced));
    }
    match snapshot.get(delivery.webhook_id) {
        Some(webhook) => Ok(webhook.clone()),
        None if snapshot.is_held(delivery.webhook_id) => Err(NoRecipient::Held),
        None if snapshot.is_inactive(delivery.webhook_id) => Err(NoRecipient::Dropped(Dropped::WebhookInactive)),
        None if snapshot.is_unsupported(delivery.webhook_id) => Err(NoRecipient::Unsupported),
        None => Err(NoRecipient::Dropped(Dropped::WebhookGone)),
    }
}
