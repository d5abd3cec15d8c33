//! Announces to the other workers when an endpoint begins to back off, and when it has recovered.

use tokio::sync::mpsc;

use super::endpoints::EndpointChange;
use crate::store;
use crate::store::backoffs::Backoffs;
use crate::store::recoveries::{Recoveries, Recovery};
use crate::webhook::WebhookId;

/// The most announcements that wait to be written. An announcement that finds no room is dropped. The other workers
/// then find the change with an attempt or two.
pub const WAITING_MAX: usize = 1_024;

/// A change of one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Announcement {
    /// The endpoint's webhook.
    pub webhook: WebhookId,
    /// The change.
    pub change: EndpointChange,
}

/// Writes announcements to Redis until the last sender is gone.
pub async fn run(mut waiting: mpsc::Receiver<Announcement>, backoffs: Backoffs, recoveries: Recoveries) {
    while let Some(Announcement { webhook, change }) = waiting.recv().await {
        let written = match change {
            EndpointChange::BacksOff(wait) => backoffs.put(webhook, wait).await,
            EndpointChange::Recovered => recoveries.put(webhook, Recovery::Succeeded).await,
        };
        match written {
            Ok(()) => {}
            Err(error) if store::is_away(&error) => {
                tracing::debug!(%webhook, %error, "the state of an endpoint can't be announced for now");
            }
            Err(error) => {
                tracing::warn!(%webhook, %error, "the state of an endpoint can't be announced to other workers")
            }
        }
    }
}
