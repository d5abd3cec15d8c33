//! What people say of a webhook: all of a new one, or what changes of an old one.

use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer};
use url::Url;

use super::{BadWebhook, Webhook};
use crate::clock::rfc3339;
use crate::config::MASK;
use crate::event::EventType;
use crate::payload::PayloadFormat;

/// What isn't said stays as it is; null takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Draft {
    /// Where requests go; needed for a new one.
    pub url: Option<String>,
    /// What to be told of; needed for a new one.
    #[schema(value_type = Option<Vec<EventType>>)]
    pub events: Option<Vec<String>>,
    /// Signs every request; null for unsigned ones.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    pub secret: Option<Option<String>>,
    /// For people.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// false: nothing is sent, and what waits is dropped.
    pub active: Option<bool>,
    /// What the body looks like; what isn't said follows the URL: `slack` where that is Slack's, else `optio`.
    pub format: Option<PayloadFormat>,
    /// Requests a second at the most; null for no limit.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<u32>)]
    pub rate_per_second: Option<Option<u32>>,
}

impl Draft {
    /// A new webhook.
    ///
    /// # Errors
    /// [`BadWebhook`] names the first field that is missing or can't be read.
    pub fn create(&self, now_ms: i64) -> Result<Webhook, BadWebhook> {
        let Some(url) = &self.url else {
            return Err(bad("url", "is needed: where requests go, like https://example.com/hooks"));
        };
        let Some(events) = &self.events else {
            return Err(bad("events", &format!("is needed: a list of one or more of {}", all_events())));
        };
        let mut webhook = Webhook::new(read_url(url)?, read_events(events)?, now_ms);
        webhook.format = PayloadFormat::preset(&webhook.url);
        if self.secret.as_ref().is_some_and(|secret| secret.as_deref() == Some(MASK)) {
            return Err(bad("secret", "is the mask that stands for a secret; enter a real one or leave it out"));
        }
        self.apply(&mut webhook, now_ms)?;
        Ok(webhook)
    }

    /// Whether it says nothing at all, or nothing but the mask of a secret.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let masked = self.secret.as_ref().is_some_and(|secret| secret.as_deref() == Some(MASK));
        let rest = if masked { Self { secret: None, ..self.clone() } } else { self.clone() };
        rest == Self::default()
    }

    /// Changes what is said. Enabling one that was disabled takes its reason away.
    ///
    /// # Errors
    /// [`BadWebhook`] names the first field that can't be read; `webhook` may be half changed then.
    pub fn apply(&self, webhook: &mut Webhook, now_ms: i64) -> Result<(), BadWebhook> {
        if let Some(url) = &self.url {
            let url = read_url(url)?;
            // Chosen again, unless it was chosen against what fits the URL before.
            if url != webhook.url && webhook.format == PayloadFormat::preset(&webhook.url) {
                webhook.format = PayloadFormat::preset(&url);
            }
            webhook.url = url;
        }
        if let Some(events) = &self.events {
            webhook.events = read_events(events)?;
        }
        // A client that sends back what it was shown means no change.
        if let Some(secret) = self.secret.as_ref().filter(|secret| secret.as_deref() != Some(MASK)) {
            webhook.secret.clone_from(secret);
            webhook.previous_secret = None;
        }
        if let Some(description) = &self.description {
            webhook.description = description.clone().filter(|text| !text.trim().is_empty());
        }
        if let Some(active) = self.active {
            webhook.active = active;
            webhook.disabled_reason = None;
        }
        webhook.format = self.format.unwrap_or(webhook.format);
        if let Some(rate) = self.rate_per_second {
            if rate == Some(0) {
                return Err(bad("ratePerSecond", "is 0; allowed is 1 or more, or null for no limit"));
            }
            webhook.rate_per_second = rate.and_then(NonZeroU32::new);
        }
        if webhook.overlap_until_ms(now_ms).is_none() {
            webhook.previous_secret = None;
        }
        webhook.updated_at = rfc3339(now_ms);
        Ok(())
    }
}

fn bad(field: &'static str, problem: &str) -> BadWebhook {
    BadWebhook { field, problem: problem.to_owned() }
}

fn read_url(text: &str) -> Result<Url, BadWebhook> {
    let text = text.trim();
    text.parse().map_err(|error| {
        bad("url", &format!("{text:?} isn't a URL ({error}); allowed is one like https://example.com/hooks"))
    })
}

fn read_events(names: &[String]) -> Result<Vec<EventType>, BadWebhook> {
    let mut events = Vec::with_capacity(names.len());
    for name in names {
        let event = EventType::named(name)
            .ok_or_else(|| bad("events", &format!("{name:?} isn't an event type; allowed are {}", all_events())))?;
        events.push(event);
    }
    events.sort_unstable();
    events.dedup();
    Ok(events)
}

fn all_events() -> String {
    EventType::ALL.map(EventType::as_str).join(", ")
}

/// A field that is there, be it null.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
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
    fn what_is_not_said_stays_and_null_takes_away() {
        let mut webhook = sample();
        draft(r#"{"description":null,"ratePerSecond":null}"#).apply(&mut webhook, 1).unwrap();
        assert_eq!((webhook.description, webhook.rate_per_second), (None, None));
        assert_eq!(webhook.secret.as_deref(), Some("s"));
    }

    #[test]
    fn a_mask_that_comes_back_changes_nothing_and_is_no_secret_of_a_new_one() {
        let mut webhook = sample();
        draft(r#"{"secret":"••••••"}"#).apply(&mut webhook, 1).unwrap();
        assert_eq!(webhook.secret.as_deref(), Some("s"));
        let new = draft(r#"{"url":"https://example.com/","events":["task.failed"],"secret":"••••••"}"#);
        assert_eq!(new.create(0).unwrap_err().field, "secret");
    }

    #[test]
    fn a_field_that_is_missing_or_wrong_is_named_with_what_is_allowed() {
        let error = |json| draft(json).create(0).unwrap_err().to_string();
        assert!(error("{}").starts_with("url: is needed"));
        assert!(error(r#"{"url":"https://example.com/"}"#).starts_with("events: is needed"));
        assert!(error(r#"{"url":"example","events":[]}"#).starts_with("url: \"example\" isn't a URL"));
        let unknown = error(r#"{"url":"https://example.com/","events":["task.done"]}"#);
        assert!(unknown.contains("task.done") && unknown.contains("review.completed"), "{unknown}");
    }

    #[test]
    fn the_format_is_chosen_again_when_the_url_changes_unless_it_was_chosen_against_the_url() {
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
        assert_eq!(change(r#"{"url":"https://chat.example.com/moved"}"#), PayloadFormat::Slack, "it was chosen");
        assert_eq!(change(&format!(r#"{{{slack},"format":"optio"}}"#)), PayloadFormat::Optio);
        assert_eq!(change(r#"{"url":"https://hooks.slack.com/services/T/B/y"}"#), PayloadFormat::Optio, "so was this");
    }

    #[test]
    fn what_would_change_nothing_is_noticed_and_an_unknown_field_is_named() {
        assert!(draft("{}").is_empty() && draft(r#"{"secret":"••••••"}"#).is_empty());
        for json in [r#"{"secret":null}"#, r#"{"active":true}"#, r#"{"secret":"••••••","description":null}"#]
        {
            assert!(!draft(json).is_empty(), "{json}");
        }
        let error = serde_json::from_str::<Draft>(r#"{"colour":"red"}"#).unwrap_err().to_string();
        assert!(error.contains("colour") && error.contains("ratePerSecond"), "{error}");
    }

    #[test]
    fn a_url_of_slack_presets_its_format() {
        let json = r#"{"url":"https://hooks.slack.com/services/T/B/x","events":["task.failed"]}"#;
        assert_eq!(draft(json).create(0).unwrap().format, PayloadFormat::Slack);
        assert_eq!(sample().format, PayloadFormat::Optio);
    }
}
