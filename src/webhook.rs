//! A subscription: whom to tell of what, and how that is proven.

pub mod draft;
pub mod unsupported;

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::address::AddressPolicy;
use crate::clock::rfc3339;
use crate::clock::{millis, now_ms};
use crate::config::MASK;
use crate::event::EventType;
use crate::payload::PayloadFormat;

/// Identity of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct WebhookId(pub Uuid);

impl std::fmt::Display for WebhookId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for WebhookId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A subscription as Redis holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its identity.
    pub id: WebhookId,
    /// Where requests go.
    pub url: Url,
    /// What it wants to be told of; never empty.
    pub events: Vec<EventType>,
    /// Signs every request; as entered.
    pub secret: Option<String>,
    /// The secret before the last rotation; its `webhook-signature` stands beside the new one's for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret: Option<PreviousSecret>,
    /// For people.
    pub description: Option<String>,
    /// Paused and disabled webhooks get nothing, and what waits for them is dropped.
    pub active: bool,
    /// Why it was disabled without its owner's doing.
    pub disabled_reason: Option<String>,
    /// What the body looks like.
    pub format: PayloadFormat,
    /// Requests a second at the most; None for no limit but the endpoint's own.
    #[serde(default)]
    pub rate_per_second: Option<NonZeroU32>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

/// A secret that was rotated out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousSecret {
    /// As entered.
    pub secret: String,
    /// It signs until then, Unix milliseconds.
    pub until_ms: i64,
}

/// A webhook as the API and the command line show it (contract section 7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub struct Shown {
    /// Its identity.
    pub id: WebhookId,
    /// Where requests go.
    pub url: String,
    /// What it is told of.
    pub events: Vec<EventType>,
    /// Masked, or null where requests aren't signed; never the real one.
    pub secret: Option<&'static str>,
    /// Until then the secret before signs `webhook-signature` as well.
    pub secret_overlap_until: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Whether it gets anything.
    pub active: bool,
    /// Why it was disabled without its owner's doing.
    pub disabled_reason: Option<String>,
    /// What the body looks like.
    pub format: PayloadFormat,
    /// Requests a second at the most.
    #[schema(value_type = Option<u32>)]
    pub rate_per_second: Option<NonZeroU32>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

/// A webhook that can't be saved: the field, what was wrong, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadWebhook {
    /// The field's name in the API.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// Characters of a URL, a secret and a description.
const URL_MAX: usize = 2_048;
const SECRET_MAX: usize = 512;
const DESCRIPTION_MAX: usize = 500;

/// Longest that a secret that was rotated out goes on signing.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

impl Webhook {
    /// Active, unsigned, without a limit of its own.
    #[must_use]
    pub fn new(url: Url, events: Vec<EventType>, now_ms: i64) -> Self {
        let now = rfc3339(now_ms);
        Self {
            id: WebhookId(Uuid::now_v7()),
            url,
            events,
            secret: None,
            previous_secret: None,
            description: None,
            active: true,
            disabled_reason: None,
            format: PayloadFormat::Optio,
            rate_per_second: None,
            created_at: now.clone(),
            updated_at: now,
        }
    }

    /// Another secret from now on; the present one signs `webhook-signature` as well for `overlap`.
    pub fn rotate(&mut self, secret: String, overlap: Duration, now_ms: i64) {
        let old = self.secret.replace(secret).filter(|_| !overlap.is_zero());
        self.previous_secret = old.map(|secret| PreviousSecret { secret, until_ms: now_ms + millis(overlap) });
    }

    /// Until when the secret before signs as well, Unix milliseconds; None where none does at `now_ms`.
    #[must_use]
    pub fn overlap_until_ms(&self, now_ms: i64) -> Option<i64> {
        self.previous_secret.as_ref().map(|previous| previous.until_ms).filter(|until| *until > now_ms)
    }

    /// What signs `webhook-signature` at `now_ms`, the present secret first.
    pub fn secrets(&self, now_ms: i64) -> impl Iterator<Item = &str> {
        let previous = self.previous_secret.as_ref().filter(|previous| previous.until_ms > now_ms);
        self.secret.as_deref().into_iter().chain(previous.map(|previous| previous.secret.as_str()))
    }

    /// Whether requests may be sent to it at all.
    ///
    /// # Errors
    /// [`BadWebhook`] names the first field that can't be kept as it is.
    pub fn check(&self, policy: &AddressPolicy) -> Result<(), BadWebhook> {
        let bad = |field, problem: String| Err(BadWebhook { field, problem });
        if self.url.as_str().len() > URL_MAX {
            return bad("url", format!("is longer than {URL_MAX} characters"));
        }
        if let Err(problem) = policy.check_url(&self.url) {
            return bad("url", problem.to_string());
        }
        if self.events.is_empty() {
            let all = EventType::ALL.map(EventType::as_str).join(", ");
            return bad("events", format!("at least one is needed, of {all}"));
        }
        if self.secret.as_ref().is_some_and(|secret| secret.is_empty() || secret.len() > SECRET_MAX) {
            return bad("secret", format!("1 to {SECRET_MAX} bytes are allowed; leave it out for unsigned requests"));
        }
        if self.description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_MAX) {
            return bad("description", format!("is longer than {DESCRIPTION_MAX} characters"));
        }
        Ok(())
    }

    /// The API's shape: the secret masked.
    #[must_use]
    pub fn shown(&self) -> Shown {
        Shown {
            id: self.id,
            url: self.url.to_string(),
            events: self.events.clone(),
            secret: self.secret.as_ref().map(|_| MASK),
            secret_overlap_until: self.overlap_until_ms(now_ms()).map(rfc3339),
            description: self.description.clone(),
            active: self.active,
            disabled_reason: self.disabled_reason.clone(),
            format: self.format,
            rate_per_second: self.rate_per_second,
            created_at: self.created_at.clone(),
            updated_at: self.updated_at.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(secret: Option<&str>) -> Webhook {
        let mut webhook = Webhook::new("https://example.com/".parse().unwrap(), vec![EventType::TaskFailed], 0);
        webhook.secret = secret.map(str::to_owned);
        webhook
    }

    #[test]
    fn a_rotated_secret_signs_beside_the_new_one_until_the_overlap_ends() {
        let mut webhook = webhook(Some("old"));
        webhook.rotate("new".to_owned(), Duration::from_secs(60), 1_000);
        assert_eq!(webhook.secrets(60_999).collect::<Vec<_>>(), ["new", "old"]);
        assert_eq!(webhook.secrets(61_000).collect::<Vec<_>>(), ["new"]);
        webhook.rotate("newer".to_owned(), Duration::ZERO, 2_000);
        assert_eq!(webhook.secrets(2_000).collect::<Vec<_>>(), ["newer"]);
    }

    #[test]
    fn a_webhook_that_is_shown_has_no_secret_in_it() {
        let mut webhook = webhook(Some("hunter2"));
        webhook.rotate("hunter3".to_owned(), Duration::from_secs(60), 1_000);
        assert!(!serde_json::to_string(&webhook.shown()).unwrap().contains("hunter"));
    }
}
