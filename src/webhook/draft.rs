//! The fields of a new webhook, or the fields to change in an existing one, as a client sends them.

use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer};
use url::Url;

use super::custom_header::{self, HeaderDraft};
use super::filter::Filter;
use super::{BadWebhook, Webhook};
use crate::clock::rfc3339;
use crate::event::EventType;
use crate::payload::PayloadFormat;
use crate::secret::Secret;
use crate::signature::{Signing, SigningSecret};

/// A new webhook, or a change of one. Fields that are left out stay unchanged, and null removes a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Draft {
    /// The URL that requests go to; needed for a new webhook.
    pub url: Option<String>,
    /// The event types to subscribe to; needed for a new webhook.
    #[schema(value_type = Option<Vec<EventType>>)]
    pub events: Option<Vec<String>>,
    /// The secret that signs every request; null for unsigned requests. A text that begins with `whsec_` must be the
    /// base64 of 24 bytes or more, and one that begins with `whsk_` an ed25519 private key.
    #[serde(default, deserialize_with = "some_or_null")]
    #[schema(value_type = Option<String>)]
    pub secret: Option<Option<Secret>>,
    /// How requests are signed. `ed25519` without a secret generates a key pair, unless the webhook has one.
    pub signing: Option<Signing>,
    /// A note for people.
    #[serde(default, deserialize_with = "some_or_null")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// Whether the webhook gets events. If it is false, nothing is sent. Unless `hold` is true, deliveries are dropped,
    /// and can be sent later as what the webhook missed.
    pub active: Option<bool>,
    /// Together with `active: false`: whether deliveries wait until the webhook is active again, for at most
    /// `delivery.age_max`.
    pub hold: Option<bool>,
    /// The format of the body. If it is left out, it follows the URL: `slack`, `discord` or
    /// `teams` for the hosts of these, otherwise `optio`.
    pub format: Option<PayloadFormat>,
    /// The headers that each request has in addition, at most 20; they replace those that the webhook has. Null or an
    /// empty list removes all.
    #[serde(default, deserialize_with = "some_or_null")]
    #[schema(value_type = Option<Vec<HeaderDraft>>)]
    pub headers: Option<Option<Vec<HeaderDraft>>>,
    /// Which events of its types the webhook gets: a condition such as
    /// `{"field": "task.repoUrl", "glob": "https://github.com/acme/*"}`, or a group `{"all": […]}` or `{"any": […]}`. Null
    /// for all events.
    #[serde(default, deserialize_with = "some_or_null")]
    #[schema(value_type = Option<Object>)]
    pub filter: Option<Option<serde_json::Value>>,
    /// The highest number of requests per second; null for no limit.
    #[serde(default, deserialize_with = "some_or_null")]
    #[schema(value_type = Option<u32>)]
    pub rate_per_second: Option<Option<u32>>,
}

/// The secrets that a change replaces. They need not open for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replaces {
    /// The secrets that sign.
    pub secret: bool,
    /// The headers.
    pub headers: bool,
}

impl Draft {
    /// Creates a webhook from the draft.
    ///
    /// # Errors
    /// Returns [`BadWebhook`], which names the first field that is missing or invalid.
    pub fn create(&self, now_ms: i64) -> Result<Webhook, BadWebhook> {
        let Some(url) = &self.url else {
            return Err(bad("url", "is needed: the URL that requests go to, such as https://example.com/hooks"));
        };
        let Some(events) = &self.events else {
            return Err(bad("events", &format!("is needed: a list of one or more of {}", all_events())));
        };
        let mut webhook = Webhook::new(read_url(url)?, read_events(events)?, now_ms);
        webhook.format = PayloadFormat::preset(&webhook.url);
        if self.is_masked() {
            return Err(bad("secret", "is the mask that stands for a secret; enter a real one or leave it out"));
        }
        self.apply(&mut webhook, now_ms)?;
        Ok(webhook)
    }

    /// The draft with its optional fields filled in: with it, a webhook becomes what the draft says, whatever it was
    /// before. Only the secret stays if it is left out.
    #[must_use]
    pub fn complete(&self) -> Self {
        let preset = self.url.as_deref().and_then(|url| read_url(url).ok()).map(|url| PayloadFormat::preset(&url));
        Self {
            description: Some(self.description.clone().flatten()),
            active: Some(self.active.unwrap_or(true)),
            hold: Some(self.hold.unwrap_or(false)),
            format: self.format.or(preset),
            headers: Some(self.headers.clone().flatten()),
            filter: Some(self.filter.clone().flatten()),
            rate_per_second: Some(self.rate_per_second.flatten()),
            ..self.clone()
        }
    }

    /// Whether the draft changes nothing: it has no fields, or only the mask of a secret.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let rest = if self.is_masked() { Self { secret: None, ..self.clone() } } else { self.clone() };
        rest == Self::default()
    }

    /// Whether the draft replaces the secret of an existing webhook, so that the old one isn't needed.
    #[must_use]
    pub fn replaces_secret(&self) -> bool {
        self.secret.is_some() && !self.is_masked()
    }

    /// The secrets that the draft replaces.
    #[must_use]
    pub fn replaces(&self) -> Replaces {
        Replaces { secret: self.replaces_secret(), headers: self.headers.is_some() }
    }

    /// Whether the secret is the mask. A client that sends the mask back doesn't want to change the secret.
    fn is_masked(&self) -> bool {
        self.secret.as_ref().is_some_and(|secret| secret.as_ref().is_some_and(Secret::is_mask))
    }

    /// The URL that the draft sets, unless it can't be read or is the same as `current`.
    #[must_use]
    pub fn new_url(&self, current: Option<&Url>) -> Option<Url> {
        self.url.as_deref().and_then(|text| read_url(text).ok()).filter(|url| current != Some(url))
    }

    /// Applies the draft to a webhook. A draft that changes `active` also removes the reason why the webhook was
    /// disabled.
    ///
    /// # Errors
    /// Returns [`BadWebhook`], which names the first invalid field. `webhook` may be partly changed then, so discard
    /// it.
    pub fn apply(&self, webhook: &mut Webhook, now_ms: i64) -> Result<(), BadWebhook> {
        if let Some(url) = &self.url {
            let url = read_url(url)?;
            // The format follows the URL, unless a person chose a format other than the default for the previous URL.
            if url != webhook.url && webhook.format == PayloadFormat::preset(&webhook.url) {
                webhook.format = PayloadFormat::preset(&url);
            }
            webhook.url = url;
        }
        if let Some(events) = &self.events {
            webhook.events = read_events(events)?;
        }
        let current = webhook.secret.as_ref().map(SigningSecret::signing);
        if let Some(secret) = self.new_secret(current)? {
            webhook.secret = secret;
            webhook.end_overlap();
        }
        if let Some(description) = &self.description {
            webhook.description = description.clone().filter(|text| !text.trim().is_empty());
        }
        if let Some(active) = self.active {
            // A webhook that was disabled keeps its reason if it is sent back as it is.
            if active || webhook.active {
                webhook.disabled_reason = None;
            }
            webhook.active = active;
            webhook.hold = false;
        }
        match self.hold {
            Some(true) if webhook.active => {
                return Err(bad("hold", "is true, but the webhook is active; use it together with active = false"));
            }
            Some(hold) => webhook.hold = hold,
            None => {}
        }
        webhook.format = self.format.unwrap_or(webhook.format);
        if let Some(headers) = &self.headers {
            webhook.headers = custom_header::read(headers.as_deref().unwrap_or_default(), &webhook.headers)?;
        }
        if let Some(filter) = &self.filter {
            webhook.filter = filter.clone().map(Filter::read).transpose()?;
        }
        if let Some(rate) = self.rate_per_second {
            if rate == Some(0) {
                return Err(bad("ratePerSecond", "is 0; it must be 1 or more, or null for no limit"));
            }
            webhook.rate_per_second = rate.and_then(NonZeroU32::new);
        }
        webhook.forget_ended(now_ms);
        webhook.updated_at = rfc3339(now_ms);
        Ok(())
    }
}

impl Draft {
    /// Returns the secret to set, where `Some(None)` removes it, or `None` to leave it as it is. `current` is how the
    /// webhook signs now.
    fn new_secret(&self, current: Option<Signing>) -> Result<Option<Option<SigningSecret>>, BadWebhook> {
        let given = self.secret.as_ref().filter(|_| !self.is_masked());
        match (given, self.signing) {
            (None, None) => Ok(None),
            (None, signing) if signing == current => Ok(None),
            (None, Some(Signing::Ed25519)) => Ok(Some(Some(SigningSecret::generate(Signing::Ed25519)))),
            (None, Some(Signing::Hmac)) => Err(bad(
                "secret",
                "is needed for signing = hmac: 24 or more random bytes, best as whsec_ and their base64",
            )),
            (Some(None), None) => Ok(Some(None)),
            (Some(None), Some(_)) => Err(bad("signing", "needs a secret; leave it out for unsigned requests")),
            (Some(Some(secret)), signing) => {
                let secret = SigningSecret::parse(secret.clone()).map_err(|problem| bad("secret", &problem.0))?;
                match signing {
                    Some(Signing::Hmac) if secret.signing() != Signing::Hmac => {
                        Err(bad("signing", "is hmac, but the secret is a private key (whsk_)"))
                    }
                    Some(Signing::Ed25519) if secret.signing() != Signing::Ed25519 => Err(bad(
                        "signing",
                        "is ed25519, but the secret isn't a private key (whsk_); one is generated if you leave it out",
                    )),
                    _ => Ok(Some(Some(secret))),
                }
            }
        }
    }
}

fn bad(field: &'static str, problem: &str) -> BadWebhook {
    BadWebhook { field, problem: problem.to_owned() }
}

fn read_url(text: &str) -> Result<Url, BadWebhook> {
    let text = text.trim();
    text.parse().map_err(|error| {
        bad("url", &format!("{text:?} isn't a URL ({error}); use one such as https://example.com/hooks"))
    })
}

fn read_events(names: &[String]) -> Result<Vec<EventType>, BadWebhook> {
    let mut events = Vec::with_capacity(names.len());
    for name in names {
        let event = EventType::named(name)
            .ok_or_else(|| bad("events", &format!("{name:?} isn't an event type; use any of {}", all_events())))?;
        events.push(event);
    }
    events.sort_unstable();
    events.dedup();
    Ok(events)
}

fn all_events() -> String {
    EventType::ALL.map(EventType::as_str).join(", ")
}

/// Reads a field that is present. Null becomes `Some(None)`, while a field that is left out becomes `None`.
fn some_or_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(json: &str) -> Draft {
        serde_json::from_str(json).unwrap()
    }

    fn sample() -> Webhook {
        draft(r#"{"url":"https://example.com/","events":["task.failed"],"secret":"s","description":"d","ratePerSecond":5}"#)
            .create(0)
            .unwrap()
    }

    #[test]
    fn a_field_that_is_left_out_is_unchanged_and_null_removes_a_value() {
        let mut webhook = sample();
        draft(r#"{"description":null,"ratePerSecond":null}"#).apply(&mut webhook, 1).unwrap();
        assert_eq!((webhook.description, webhook.rate_per_second), (None, None));
        assert_eq!(webhook.secret.unwrap().text().expose(), "s");
    }

    #[test]
    fn a_mask_changes_nothing_and_is_refused_for_a_new_webhook() {
        let mut webhook = sample();
        draft(r#"{"secret":"••••••"}"#).apply(&mut webhook, 1).unwrap();
        assert_eq!(webhook.secret.unwrap().text().expose(), "s");
        let new = draft(r#"{"url":"https://example.com/","events":["task.failed"],"secret":"••••••"}"#);
        assert_eq!(new.create(0).unwrap_err().field, "secret");
    }

    #[test]
    fn a_key_pair_is_generated_once_and_a_secret_of_another_kind_is_refused() {
        let mut webhook = sample();
        draft(r#"{"signing":"hmac"}"#).apply(&mut webhook, 1).unwrap();
        assert_eq!(webhook.secret, sample().secret, "it signs that way already");
        draft(r#"{"signing":"ed25519"}"#).apply(&mut webhook, 1).unwrap();
        let pair = webhook.secret.clone().unwrap();
        draft(r#"{"signing":"ed25519","description":"d"}"#).apply(&mut webhook, 1).unwrap();
        assert_eq!((webhook.secret.as_ref().unwrap(), pair.signing()), (&pair, Signing::Ed25519));
        for (json, field) in [
            (r#"{"signing":"hmac"}"#, "secret"),
            (r#"{"signing":"ed25519","secret":"s"}"#, "signing"),
            (r#"{"signing":"hmac","secret":null}"#, "signing"),
            (r#"{"secret":"whsec_short"}"#, "secret"),
        ] {
            assert_eq!(draft(json).apply(&mut webhook.clone(), 1).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn an_error_names_the_field_and_what_is_allowed() {
        let error = |json| draft(json).create(0).unwrap_err().to_string();
        assert!(error("{}").starts_with("url: is needed"));
        assert!(error(r#"{"url":"https://example.com/"}"#).starts_with("events: is needed"));
        assert!(error(r#"{"url":"example","events":[]}"#).starts_with("url: \"example\" isn't a URL"));
        let unknown = error(r#"{"url":"https://example.com/","events":["task.done"]}"#);
        assert!(unknown.contains("task.done") && unknown.contains("review.completed"), "{unknown}");
    }

    #[test]
    fn the_format_follows_a_changed_url_unless_a_person_chose_another() {
        let slack = r#""url":"https://HOOKS.slack.com.:443/triggers/T/1/x""#;
        let mut webhook = sample();
        let mut change = |json: &str| {
            draft(json).apply(&mut webhook, 1).unwrap();
            webhook.format
        };
        assert_eq!(change(&format!("{{{slack}}}")), PayloadFormat::Slack);
        assert_eq!(change(r#"{"description":"d"}"#), PayloadFormat::Slack);
        assert_eq!(change(r#"{"url":"https://example.com/other"}"#), PayloadFormat::Optio);
        assert_eq!(change(r#"{"url":"https://chat.example.com/","format":"slack"}"#), PayloadFormat::Slack);
        assert_eq!(change(r#"{"url":"https://chat.example.com/moved"}"#), PayloadFormat::Slack, "a person chose it");
        assert_eq!(change(&format!(r#"{{{slack},"format":"optio"}}"#)), PayloadFormat::Optio);
        let format = change(r#"{"url":"https://hooks.slack.com/services/T/B/y"}"#);
        assert_eq!(format, PayloadFormat::Optio, "a person chose it");
    }

    #[test]
    fn a_draft_without_changes_is_empty_and_an_unknown_field_is_refused() {
        assert!(draft("{}").is_empty() && draft(r#"{"secret":"••••••"}"#).is_empty());
        for json in [r#"{"secret":null}"#, r#"{"active":true}"#, r#"{"secret":"••••••","description":null}"#]
        {
            assert!(!draft(json).is_empty(), "{json}");
        }
        let error = serde_json::from_str::<Draft>(r#"{"colour":"red"}"#).unwrap_err().to_string();
        assert!(error.contains("colour") && error.contains("ratePerSecond"), "{error}");
    }

    #[test]
    fn a_slack_url_gets_the_slack_format_by_default() {
        let json = r#"{"url":"https://hooks.slack.com/services/T/B/x","events":["task.failed"]}"#;
        assert_eq!(draft(json).create(0).unwrap().format, PayloadFormat::Slack);
        assert_eq!(sample().format, PayloadFormat::Optio);
    }
}
