//! A webhook is a subscription: its URL, its event types, and the secret that signs its requests.

pub mod custom_header;
pub mod declared;
pub mod draft;
pub mod filter;
pub mod optio_row;
mod rotation;
pub mod stored;
pub(crate) mod unsupported;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::address::AddressPolicy;
use crate::clock::now_ms;
use crate::clock::rfc3339;
use crate::event::{Event, EventType};
use crate::payload::PayloadFormat;
use crate::printable::is_control;
use crate::secret::{MASK, Secret};
use crate::signature::{Signing, SigningSecret};
use custom_header::{CustomHeader, HeaderView};
use filter::{Fields, Filter};
pub use rotation::{OVERLAP_MAX, PreviousSecret};

/// The identity of a webhook.
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

/// A webhook. `S` is the type of its signing secrets, and `V` that of the values of its headers: opened ones are used in
/// requests, and stored ones (`stored.rs`) are what Redis holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook<S = SigningSecret, V = Secret> {
    /// The webhook's identity.
    pub id: WebhookId,
    /// The URL that requests go to.
    pub url: Url,
    /// The event types that the webhook subscribes to, at least one.
    pub events: Vec<EventType>,
    /// The secret that signs every request.
    pub secret: Option<S>,
    /// The secret before the last rotation. Until its overlap ends, it signs `webhook-signature` as well.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub previous_secret: Option<PreviousSecret<S>>,
    /// The secrets before that one whose overlap has not ended either, newest first. They sign as well.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub older_secrets: Vec<PreviousSecret<S>>,
    /// A note for people.
    pub description: Option<String>,
    /// Whether the webhook gets events. If it is inactive, its waiting deliveries are dropped.
    pub active: bool,
    /// Whether deliveries wait while the webhook is inactive. Otherwise they are dropped, and can be sent later as what
    /// it missed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Why the webhook was disabled automatically.
    pub disabled_reason: Option<String>,
    /// The format of the body.
    pub format: PayloadFormat,
    /// Headers of its owner that each request has in addition.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<CustomHeader<V>>,
    /// Which events of its types the webhook gets, or `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// The highest number of requests per second, or `None` for no such limit.
    #[serde(default)]
    pub rate_per_second: Option<NonZeroU32>,
    /// When the webhook was created, in RFC 3339.
    pub created_at: String,
    /// When the webhook was last changed, in RFC 3339.
    pub updated_at: String,
}

/// `Default::default` would need a default of the type of secrets.
fn none<T>() -> Option<T> {
    None
}

/// A webhook as the API and the command line show it (`docs/reference.md`, section "HTTP API").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub struct WebhookView {
    /// The webhook's identity.
    pub id: WebhookId,
    /// The URL that requests go to.
    pub url: String,
    /// The event types that the webhook subscribes to.
    pub events: Vec<EventType>,
    /// The mask of the secret, or null if requests aren't signed. The secret itself is never shown.
    pub secret: Option<&'static str>,
    /// How requests are signed, or null if they aren't.
    pub signing: Option<Signing>,
    /// The public key that verifies `v1a` signatures, as `whpk_…`; null unless `signing` is `ed25519`.
    pub public_key: Option<String>,
    /// When the last overlap after a rotation ends, in RFC 3339. Until then at least one earlier secret signs
    /// `webhook-signature` as well.
    pub secret_overlap_until: Option<String>,
    /// A note for people.
    pub description: Option<String>,
    /// Whether the webhook gets events.
    pub active: bool,
    /// True while the webhook is inactive and its deliveries wait instead of being dropped. Left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Why the webhook was disabled automatically.
    pub disabled_reason: Option<String>,
    /// The format of the body.
    pub format: PayloadFormat,
    /// The headers of its owner that each request has in addition, with their values masked.
    pub headers: Vec<HeaderView>,
    /// Which events of its types the webhook gets; null for all.
    #[schema(value_type = Option<Object>)]
    pub filter: Option<serde_json::Value>,
    /// The highest number of requests per second; null for no such limit.
    #[schema(value_type = Option<u32>)]
    pub rate_per_second: Option<NonZeroU32>,
    /// When the webhook was created, in RFC 3339.
    pub created_at: String,
    /// When the webhook was last changed, in RFC 3339.
    pub updated_at: String,
}

/// Why a webhook can't be saved: the field, what is wrong with it, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadWebhook {
    /// The field's name in the API.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// The longest URL, in bytes.
const URL_MAX: usize = 2_048;
/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 500;

impl Webhook {
    /// Creates an active webhook without a secret and without a limit on its rate.
    #[must_use]
    pub fn new(url: Url, events: Vec<EventType>, now_ms: i64) -> Self {
        let now = rfc3339(now_ms);
        Self {
            id: WebhookId(Uuid::now_v7()),
            url,
            events,
            secret: None,
            previous_secret: None,
            older_secrets: Vec::new(),
            description: None,
            active: true,
            hold: false,
            disabled_reason: None,
            format: PayloadFormat::Optio,
            headers: Vec::new(),
            filter: None,
            rate_per_second: None,
            created_at: now.clone(),
            updated_at: now,
        }
    }

    /// Whether the webhook subscribes to the type of the event, and its filter lets the event through.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        self.events.contains(&event.event_type)
            && self.filter.as_ref().is_none_or(|filter| filter.matches(&Fields::of(event)))
    }

    /// Why the current secret is weaker than it should be, as a sentence, or `None` if it isn't.
    #[must_use]
    pub fn secret_warning(&self) -> Option<String> {
        self.secret.as_ref().and_then(SigningSecret::weakness)
    }

    /// Checks the fields of a new webhook, and whether requests may go to its URL.
    ///
    /// # Errors
    /// Returns [`BadWebhook`], which names the first field that isn't allowed.
    pub fn check(&self, policy: &AddressPolicy) -> Result<(), BadWebhook> {
        if let Err(problem) = policy.check_url(&self.url) {
            return Err(BadWebhook { field: "url", problem: problem.to_string() });
        }
        self.check_fields()
    }

    /// Checks the fields of a webhook that was changed, and its URL if that isn't `url_before`. So a webhook whose URL
    /// is no longer allowed can still be paused.
    ///
    /// # Errors
    /// Returns [`BadWebhook`], which names the first field that isn't allowed.
    pub fn check_change(&self, url_before: &Url, policy: &AddressPolicy) -> Result<(), BadWebhook> {
        if self.url == *url_before { self.check_fields() } else { self.check(policy) }
    }

    fn check_fields(&self) -> Result<(), BadWebhook> {
        let bad = |field, problem: String| Err(BadWebhook { field, problem });
        if self.url.as_str().len() > URL_MAX {
            return bad("url", format!("is longer than {URL_MAX} characters"));
        }
        if self.events.is_empty() {
            let all = EventType::ALL.map(EventType::as_str).join(", ");
            return bad("events", format!("at least one of {all} is needed"));
        }
        if self.description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_MAX) {
            return bad("description", format!("is longer than {DESCRIPTION_MAX} characters"));
        }
        if self.description.as_ref().is_some_and(|text| text.contains(is_control)) {
            let allowed =
                "has a control character, such as a line break; only characters that can be shown are allowed";
            return bad("description", allowed.to_owned());
        }
        Ok(())
    }

    /// Returns the webhook as the API shows it, with its secret masked.
    #[must_use]
    pub fn shown(&self) -> WebhookView {
        WebhookView {
            id: self.id,
            url: self.url.to_string(),
            events: self.events.clone(),
            secret: self.secret.as_ref().map(|_| MASK),
            signing: self.secret.as_ref().map(SigningSecret::signing),
            public_key: self.secret.as_ref().and_then(SigningSecret::public_key),
            secret_overlap_until: self.overlap_until_ms(now_ms()).map(rfc3339),
            description: self.description.clone(),
            active: self.active,
            hold: self.hold,
            disabled_reason: self.disabled_reason.clone(),
            format: self.format,
            headers: self.headers.iter().map(CustomHeader::shown).collect(),
            filter: self.filter.as_ref().map(|filter| filter.json().clone()),
            rate_per_second: self.rate_per_second,
            created_at: self.created_at.clone(),
            updated_at: self.updated_at.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing_secret(text: &str) -> SigningSecret {
        SigningSecret::parse(text.into()).unwrap()
    }

    fn webhook(secret: Option<&str>) -> Webhook {
        let mut webhook = Webhook::new("https://example.com/".parse().unwrap(), vec![EventType::TaskFailed], 0);
        webhook.secret = secret.map(signing_secret);
        webhook
    }

    #[test]
    fn a_description_with_control_characters_is_refused() {
        let policy = crate::http::client::policy(&crate::config::Config::built_in().delivery);
        let mut webhook = webhook(None);
        for (description, is_allowed) in
            [("Büro – 漢字", true), ("a\nb", false), ("\u{1b}[2J", false), ("\u{202e}", false)]
        {
            webhook.description = Some(description.to_owned());
            assert_eq!(webhook.check(&policy).is_ok(), is_allowed, "{description:?}");
        }
    }

    #[test]
    fn a_webhook_view_contains_no_secret() {
        let mut webhook = webhook(Some("hunter2"));
        for secret in ["hunter3", "hunter4"] {
            webhook.rotate(signing_secret(secret), std::time::Duration::from_secs(60), 1_000).unwrap();
        }
        assert!(!serde_json::to_string(&webhook.shown()).unwrap().contains("hunter"));
    }
}
