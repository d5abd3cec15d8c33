//! When a webhook is given up on: it said so (410 Gone), or failed for `webhooks.disable_after` without one success.
//!
//! Any success ends what was counted, whichever worker saw it: the batch that records it in the log says so. Idle time
//! doesn't count: a gap between two failed attempts counts for a fifth of `webhooks.disable_after` at the most, so a
//! webhook fails at least six times, spread over that time, before it is disabled.

use crate::metrics;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::delivery::Attempt;
use crate::schedule::Reconnect;
use crate::store::failing::{Failing, Failure};
use crate::store::log::{DeliveryLog, Filter};
use crate::store::webhooks::WebhookStore;
use crate::store::{StoreError, is_away};
use crate::webhook::{Webhook, WebhookId};

/// Into so many parts `webhooks.disable_after` is divided; a gap between two failed attempts counts for one of them at
/// the most. With the defaults that is a day, more than the longest wait between two attempts of a delivery.
const PARTS: u32 = 5;
/// How often a worker tells Redis of a webhook's failures: so many times in a part.
const REPORTS_PER_PART: u32 = 10;

/// Watches the outcomes of attempts.
pub struct Health {
    store: WebhookStore,
    failing: Failing,
    log: DeliveryLog,
    disable_after: Duration,
    /// When Redis was last reported of a webhook's failure; without an entry the next one is reported at once.
    reported: Mutex<HashMap<WebhookId, Instant>>,
}

impl Health {
    /// With `webhooks.disable_after`.
    #[must_use]
    pub fn new(store: WebhookStore, failing: Failing, log: DeliveryLog, disable_after: Duration) -> Self {
        Self { store, failing, log, disable_after, reported: Mutex::default() }
    }

    fn reported(&self) -> MutexGuard<'_, HashMap<WebhookId, Instant>> {
        self.reported.lock().expect("nothing panics while it holds what was reported")
    }

    /// Draws the conclusions from an attempt. While Redis is away this costs nothing but a conclusion drawn later.
    pub async fn observe(&self, webhook: &Webhook, attempt: &Attempt) {
        if attempt.failure.is_none() {
            self.reported().remove(&webhook.id);
            return;
        }
        if let Err(error) = self.failed(webhook, attempt.ended_at_ms).await {
            tracing::debug!(webhook = %webhook.id, %error, "the failure of a webhook can't be kept for now");
        }
    }

    /// It answered 410 Gone: it is disabled. False if it was changed since it was asked, or is gone or inactive already.
    pub async fn disable_gone(&self, webhook: &Webhook, now_ms: i64) -> bool {
        self.disable(webhook, "the endpoint answered 410 Gone", now_ms).await
    }

    /// Forgets webhooks that don't `exist` any more, or aren't active: enabled again, they begin anew.
    pub fn retain(&self, exists: impl Fn(WebhookId) -> bool) {
        self.reported().retain(|webhook, _| exists(*webhook));
    }

    async fn failed(&self, webhook: &Webhook, now_ms: i64) -> redis::RedisResult<()> {
        let gap_max = self.disable_after / PARTS;
        if self.reported().get(&webhook.id).is_some_and(|reported| reported.elapsed() < gap_max / REPORTS_PER_PART) {
            return Ok(());
        }
        let failure = self.failing.failed(webhook.id, gap_max).await?;
        self.reported().insert(webhook.id, Instant::now());
        if failure.duration < self.disable_after {
            return Ok(());
        }
        if self.has_success_since(webhook.id, failure).await? {
            tracing::info!(webhook = %webhook.id, "not disabled: its log has a success since its first failure");
            return self.failing.clear(webhook.id).await;
        }
        let reason = format!("failed for {} without one success", humantime::format_duration(self.disable_after));
        self.disable(webhook, &reason, now_ms).await;
        Ok(())
    }

    /// Whether people who look at the log would see a success since the first failure that was counted.
    async fn has_success_since(&self, webhook: WebhookId, failure: Failure) -> redis::RedisResult<bool> {
        let succeeded = Filter { success: Some(true), event: None };
        let newest = self.log.page(webhook, succeeded, None, 1).await?.entries.into_iter().next();
        Ok(newest.is_some_and(|entry| entry.id.at_ms() >= failure.since_ms))
    }

    /// Tried until Redis has it: an endpoint that asked to be left alone is.
    async fn disable(&self, webhook: &Webhook, reason: &str, now_ms: i64) -> bool {
        let mut reconnect = Reconnect::default();
        loop {
            match self.store.disable(webhook, reason, now_ms).await {
                Ok(true) => {
                    metrics::DISABLED.increment();
                    tracing::warn!(webhook = %webhook.id, reason, "webhook disabled");
                    return true;
                }
                Ok(false) => return false,
                Err(StoreError::Redis(error)) if is_away(&error) => {
                    tracing::debug!(webhook = %webhook.id, %error, "a webhook can't be disabled for now");
                    reconnect.wait().await;
                }
                // It would be refused again: then the attempt failed like any other.
                Err(error) => {
                    tracing::warn!(webhook = %webhook.id, %error, "a webhook can't be disabled");
                    return false;
                }
            }
        }
    }
}
