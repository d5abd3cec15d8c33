//! Announces to the other workers when an endpoint begins to back off, and when it has recovered.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

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
    webhook: WebhookId,
    change: EndpointChange,
    /// When the endpoint changed.
    at: Instant,
}

impl Announcement {
    /// An announcement of a change that happens now.
    #[must_use]
    pub fn new(webhook: WebhookId, change: EndpointChange) -> Self {
        Self { webhook, change, at: Instant::now() }
    }

    /// What is left of a back-off that began with the change. An announcement may wait long while Redis is away, and the
    /// other workers must not wait that time a second time.
    fn left_of(&self, wait: Duration) -> Duration {
        wait.saturating_sub(self.at.elapsed())
    }
}

/// Writes announcements to Redis until the last sender is gone.
pub async fn run(mut waiting: mpsc::Receiver<Announcement>, backoffs: Backoffs, recoveries: Recoveries) {
    while let Some(announcement) = waiting.recv().await {
        let webhook = announcement.webhook;
        let written = match announcement.change {
            EndpointChange::BacksOff(wait) => backoffs.put(webhook, announcement.left_of(wait)).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_late_announcement_says_only_the_rest_of_the_back_off() {
        let minute = Duration::from_secs(60);
        let announcement = Announcement::new(WebhookId(uuid::Uuid::nil()), EndpointChange::BacksOff(minute));
        assert_eq!(announcement.left_of(minute), minute);
        tokio::time::advance(minute / 3).await;
        assert_eq!(announcement.left_of(minute), minute * 2 / 3);
        tokio::time::advance(minute).await;
        assert_eq!(announcement.left_of(minute), Duration::ZERO);
    }
}
