//! When a webhook is given up on: it said so (410 Gone), or failed for `webhooks.disable_after` without one success.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::delivery::{Attempt, millis};
use crate::schedule::Reconnect;
use crate::store::failing::Failing;
use crate::store::webhooks::WebhookStore;
use crate::store::{StoreError, is_away};
use crate::webhook::{Webhook, WebhookId};

/// How often Redis is told that a webhook works, at the most: so much earlier than its last success it may be taken
/// to have failed.
const TELL_INTERVAL: Duration = Duration::from_secs(3_600);

/// Watches what attempts come to.
pub struct Health {
    store: WebhookStore,
    failing: Failing,
    disable_after: Duration,
    known: Mutex<HashMap<WebhookId, Known>>,
}

/// What this process knows of a webhook.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// Its present failures began then, Unix milliseconds, as Redis has it.
    FailingSince(i64),
    /// It succeeded, and Redis was told at that time.
    Working(Instant),
}

impl Health {
    /// With `webhooks.disable_after`.
    #[must_use]
    pub fn new(store: WebhookStore, failing: Failing, disable_after: Duration) -> Self {
        Self { store, failing, disable_after, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<WebhookId, Known>> {
        self.known.lock().expect("nothing panics while it holds what is known")
    }

    /// Draws the conclusions from an attempt. Redis is asked when an endpoint turns from working to failing or back,
    /// and seldom else; while it is away this costs nothing but a conclusion drawn later.
    pub async fn observe(&self, webhook: &Webhook, attempt: &Attempt) {
        let result = if attempt.failure.is_none() {
            self.succeeded(webhook.id).await
        } else {
            self.failed(webhook, attempt.ended_at_ms).await
        };
        if let Err(error) = result {
            tracing::debug!(webhook = %webhook.id, %error, "an endpoint's health can't be kept for now");
        }
    }

    /// It answered 410 Gone: it is disabled. False if it was changed since it was asked, or is gone or inactive already.
    pub async fn gone(&self, webhook: &Webhook, now_ms: i64) -> bool {
        self.disable(webhook, "the endpoint answered 410 Gone", now_ms).await
    }

    /// Forgets webhooks that don't `exist` any more, or aren't active: enabled again, they begin anew.
    pub fn retain(&self, exists: impl Fn(WebhookId) -> bool) {
        self.known().retain(|webhook, _| exists(*webhook));
    }

    /// Another worker may have seen failures: Redis is told of successes again and again, though not of each.
    async fn succeeded(&self, webhook: WebhookId) -> redis::RedisResult<()> {
        let now = Instant::now();
        let interval = (self.disable_after / 10).min(TELL_INTERVAL);
        if let Some(Known::Working(told)) = self.known().get(&webhook)
            && now.duration_since(*told) < interval
        {
            return Ok(());
        }
        self.failing.clear(webhook).await?;
        self.known().insert(webhook, Known::Working(now));
        Ok(())
    }

    async fn failed(&self, webhook: &Webhook, now_ms: i64) -> redis::RedisResult<()> {
        let limit_ms = millis(self.disable_after);
        if let Some(Known::FailingSince(since_ms)) = self.known().get(&webhook.id)
            && now_ms - since_ms < limit_ms
        {
            return Ok(());
        }
        // Another worker may have seen a success meanwhile: what Redis says counts.
        let since_ms = self.failing.since(webhook.id, now_ms).await?;
        self.known().insert(webhook.id, Known::FailingSince(since_ms));
        if now_ms - since_ms >= limit_ms {
            let reason = format!("failed for {} without one success", humantime::format_duration(self.disable_after));
            self.disable(webhook, &reason, now_ms).await;
        }
        Ok(())
    }

    /// Tried until Redis has it: an endpoint that asked to be left alone is.
    async fn disable(&self, webhook: &Webhook, reason: &str, now_ms: i64) -> bool {
        let mut reconnect = Reconnect::default();
        loop {
            match self.store.disable(webhook, reason, now_ms).await {
                Ok(true) => {
                    metrics::counter!("optio_webhooks_disabled_total").increment(1);
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
