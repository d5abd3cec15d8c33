//! A pool of permits that is smaller than the pool of all, and how many of its permits each endpoint holds.
//!
//! `worker.slow_share` bounds the permits of all that slow endpoints hold together, but a smaller pool could still be full of
//! them. An endpoint that holds permits for long therefore gets no more of a smaller pool than it leaves free: one endpoint
//! gets a half at most, and the next ones find something (dynamic thresholds of shared-memory switches, Choudhury and Hahne,
//! 1998).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::OwnedSemaphorePermit;

use super::pool::PermitPool;
use crate::webhook::WebhookId;

/// A smaller pool.
pub struct SharedPool {
    pub(super) permits: PermitPool,
    held: Arc<Held>,
}

/// The number of permits that each endpoint holds.
#[derive(Debug, Default)]
struct Held(Mutex<HashMap<WebhookId, usize>>);

impl Held {
    fn counts(&self) -> MutexGuard<'_, HashMap<WebhookId, usize>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

/// A permit of a smaller pool. Dropping it gives it back.
#[derive(Debug)]
pub struct Shared {
    _permit: OwnedSemaphorePermit,
    webhook: WebhookId,
    held: Arc<Held>,
}

impl SharedPool {
    /// Counts the permits of `permits`.
    pub fn new(permits: PermitPool) -> Self {
        Self { permits, held: Arc::default() }
    }

    /// Whether an endpoint holds as many permits as are free, or more.
    pub fn is_share_taken(&self, webhook: WebhookId) -> bool {
        let own = self.held.counts().get(&webhook).copied().unwrap_or(0);
        own > 0 && own >= self.permits.available()
    }

    /// Counts a permit that an endpoint got.
    pub fn hold(&self, webhook: WebhookId, permit: OwnedSemaphorePermit) -> Shared {
        *self.held.counts().entry(webhook).or_default() += 1;
        Shared { _permit: permit, webhook, held: self.held.clone() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut counts = self.held.counts();
        if let Some(count) = counts.get_mut(&self.webhook) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.webhook);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_endpoint_that_holds_permits_for_long_leaves_as_many_for_others() {
        let pool = SharedPool::new(PermitPool::new(64, Duration::from_secs(1)));
        let mut held = Vec::new();
        let mut shares = Vec::new();
        for endpoint in 0..10 {
            let webhook = WebhookId(uuid::Uuid::from_u128(endpoint));
            let before = held.len();
            while !pool.is_share_taken(webhook) && pool.permits.available() > 0 {
                let permit = pool.permits.claim(|| true).await.unwrap();
                held.push(pool.hold(webhook, permit));
            }
            shares.push(held.len() - before);
        }
        assert_eq!(shares, [32, 16, 8, 4, 2, 1, 1, 0, 0, 0]);
        held.clear();
        assert!(pool.held.counts().is_empty() && pool.permits.available() == 64);
    }
}
