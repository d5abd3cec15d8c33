//! Disables webhooks that answer 410 Gone, or that fail for `webhooks.disable_after` without a success.
//!
//! A success on any worker resets the time that was counted, because the batch that records the success in the log also
//! resets it. Idle time doesn't count: a gap between two failed attempts counts for at most a fifth of
//! `webhooks.disable_after`. A webhook therefore fails at least six times, spread over that time, before it is
//! disabled.

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

/// A gap between two failed attempts counts for at most `webhooks.disable_after` divided by this number. With the
/// defaults that is a day, which is more than the longest wait between two attempts of a delivery.
const GAP_DIVISOR: u32 = 5;
/// The most failures of a webhook that a worker reports to Redis within the longest gap that counts.
const REPORTS_PER_GAP: u32 = 10;

/// Watches the outcomes of attempts, and disables webhooks.
pub struct Disabling {
    store: WebhookStore,
    failing: Failing,
    log: DeliveryLog,
    disable_after: Duration,
    /// The time at which a failure of each webhook was last reported to Redis. The next failure of a webhook without an
    /// entry is reported at once.
    reported: Mutex<HashMap<WebhookId, Instant>>,
}

impl Disabling {
    /// `disable_after` is `webhooks.disable_after`.
    #[must_use]
    pub fn new(store: WebhookStore, failing: Failing, log: DeliveryLog, disable_after: Duration) -> Self {
        Self { store, failing, log, disable_after, reported: Mutex::default() }
    }

    fn reported(&self) -> MutexGuard<'_, HashMap<WebhookId, Instant>> {
        self.reported.lock().expect("no code panics while it holds this lock")
    }

    /// Notes the outcome of an attempt, and disables the webhook if it has failed for too long. While Redis is away the
    /// failure isn't counted, so the webhook may be disabled later.
    pub async fn observe(&self, webhook: &Webhook, attempt: &Attempt) {
        if attempt.failure.is_none() {
            self.reported().remove(&webhook.id);
            return;
        }
        if let Err(error) = Box::pin(self.failed(webhook, attempt.ended_at_ms)).await {
            tracing::debug!(webhook = %webhook.id, %error, "the failure of a webhook can't be recorded for now");
        }
    }

    /// Reports the next failure of a webhook at once, because a success elsewhere has ended what was counted.
    pub fn succeeded_elsewhere(&self, webhook: WebhookId) {
        self.reported().remove(&webhook);
    }

    /// Disables a webhook that answered 410 Gone. Returns false if the webhook has changed since the request was sent,
    /// or is already deleted or inactive.
    pub async fn disable_gone(&self, webhook: &Webhook, now_ms: i64) -> bool {
        self.disable(webhook, "the endpoint answered 410 Gone", now_ms).await
    }

    /// Forgets webhooks that are deleted or inactive. A webhook that is enabled again begins anew.
    pub fn retain(&self, exists: impl Fn(WebhookId) -> bool) {
        self.reported().retain(|webhook, _| exists(*webhook));
    }

    async fn failed(&self, webhook: &Webhook, now_ms: i64) -> redis::RedisResult<()> {
        let gap_max = self.disable_after / GAP_DIVISOR;
        if self.reported().get(&webhook.id).is_some_and(|reported| reported.elapsed() < gap_max / REPORTS_PER_GAP) {
            return Ok(());
        }
        let failure = self.failing.failed(webhook.id, gap_max).await?;
        self.reported().insert(webhook.id, Instant::now());
        if failure.duration < self.disable_after {
            return Ok(());
        }
        if self.has_success_since(webhook.id, failure).await? {
            tracing::info!(webhook = %webhook.id, "webhook not disabled: its log has a later success");
            return self.failing.clear(webhook.id).await;
        }
        let reason = format!("failed for {} without one success", humantime::format_duration(self.disable_after));
        self.disable(webhook, &reason, now_ms).await;
        Ok(())
    }

    /// Whether the log has a success since the first failure that was counted. People who see one there would not
    /// understand why the webhook is disabled.
    async fn has_success_since(&self, webhook: WebhookId, failure: Failure) -> redis::RedisResult<bool> {
        let succeeded = Filter { success: Some(true), ..Filter::default() };
        let newest = self.log.page(webhook, succeeded, None, 1).await?.entries.into_iter().next();
        Ok(newest.is_some_and(|entry| entry.id.at_ms() >= failure.since_ms))
    }

    /// Disables a webhook, and waits while Redis is away. Returns whether this call disabled it.
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
                // Redis would refuse the change again. The attempt then counts as an ordinary failure.
                Err(error) => {
                    tracing::warn!(webhook = %webhook.id, %error, "a webhook can't be disabled");
                    return false;
                }
            }
        }
    }
}
