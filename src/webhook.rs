//! A subscription: whom to tell of what, and how that is proven.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::config::MASK;
use crate::event::EventType;
use crate::http::address::AddressPolicy;

/// Identity of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

/// What the body looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// The seed page's payload.
    #[default]
    Optio,
    /// Slack's block message.
    Slack,
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

impl Webhook {
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
    pub fn shown(&self) -> Self {
        Self { secret: self.secret.as_ref().map(|_| MASK.to_owned()), ..self.clone() }
    }
}
