//! The payload formats. A format decides what the body of a request looks like, and each one has its own file.

mod classic;
mod cloud_events;
mod discord;
mod message;
pub mod slack;
mod teams;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::event::Event;
use message::Message;

/// The format of a webhook's payload. To add one, add a variant and a file; the compiler finds the other places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// Optio's own JSON payload.
    #[default]
    Optio,
    /// A message for Slack.
    Slack,
    /// The payload of Optio's built-in worker, for receivers that have not moved yet.
    #[serde(rename = "optio-classic")]
    OptioClassic,
    /// A message for Discord.
    Discord,
    /// A message for Microsoft Teams.
    Teams,
    /// A CloudEvent in the structured JSON format.
    CloudEvents,
}

impl PayloadFormat {
    /// All formats, in the order in which pages list them.
    pub const ALL: [Self; 6] =
        [Self::Optio, Self::Slack, Self::OptioClassic, Self::Discord, Self::Teams, Self::CloudEvents];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optio => "optio",
            Self::Slack => "slack",
            Self::OptioClassic => "optio-classic",
            Self::Discord => "discord",
            Self::Teams => "teams",
            Self::CloudEvents => "cloudevents",
        }
    }

    /// Returns the format with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// The name for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Optio => "Optio's JSON payload",
            Self::Slack => "Slack message",
            Self::OptioClassic => "Optio's earlier payload (optio-classic)",
            Self::Discord => "Discord message",
            Self::Teams => "Microsoft Teams message",
            Self::CloudEvents => "CloudEvents (structured JSON)",
        }
    }

    /// The value of the request's `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => cloud_events::CONTENT_TYPE,
            Self::Optio | Self::Slack | Self::OptioClassic | Self::Discord | Self::Teams => "application/json",
        }
    }

    /// The hosts whose URLs get this format by default. One that begins with a dot stands for all hosts below it.
    #[must_use]
    pub fn hosts(self) -> &'static [&'static str] {
        match self {
            Self::Optio | Self::OptioClassic | Self::CloudEvents => &[],
            Self::Slack => slack::HOSTS,
            Self::Discord => discord::HOSTS,
            Self::Teams => teams::HOSTS,
        }
    }

    /// Returns the default format for a URL.
    #[must_use]
    pub fn preset(url: &Url) -> Self {
        // A host name may end with the dot of the DNS root.
        let host = url.host_str().map(|host| host.strip_suffix('.').unwrap_or(host));
        let is_at = |host: &str, entry: &str| host == entry || (entry.starts_with('.') && host.ends_with(entry));
        let fits = |format: &Self| host.is_some_and(|host| format.hosts().iter().any(|entry| is_at(host, entry)));
        match Self::ALL.into_iter().find(fits).unwrap_or_default() {
            Self::Discord if url.path().trim_end_matches('/').ends_with("/slack") => Self::Slack,
            Self::Discord if !discord::takes(url) => Self::Optio,
            format => format,
        }
    }

    /// A number for the shape of the body that a URL accepts. URLs with the same format and shape share their bodies.
    fn shape(self, url: &Url) -> usize {
        match self {
            Self::Optio | Self::OptioClassic | Self::Discord | Self::Teams | Self::CloudEvents => 0,
            Self::Slack => slack::shape(url) as usize,
        }
    }

    fn render(self, event: &Event, url: &Url, public_url: &str) -> Bytes {
        match self {
            Self::Optio => event.body.clone(),
            Self::Slack => slack::body(&Message::of(event, public_url), event.event_type.as_str(), slack::shape(url)),
            Self::OptioClassic => classic::body(event),
            Self::Discord => discord::body(&Message::of(event, public_url)),
            Self::Teams => teams::body(&Message::of(event, public_url)),
            Self::CloudEvents => cloud_events::body(event, public_url),
        }
    }

    /// Returns `X-Optio-Signature` as receivers of this format expect it. Optio's built-in worker sends the bare hex.
    #[must_use]
    pub fn signature(self, signature: &str) -> &str {
        match self {
            Self::OptioClassic => signature.strip_prefix("sha256=").unwrap_or(signature),
            Self::Optio | Self::Slack | Self::Discord | Self::Teams | Self::CloudEvents => signature,
        }
    }
}

/// The bodies of one event. Each body is rendered once, no matter how many webhooks get it.
#[derive(Debug, Default)]
pub struct Bodies<'a> {
    /// The address of Optio's web app (`webhooks.public_url`), or an empty text.
    public_url: &'a str,
    rendered: Vec<((PayloadFormat, usize), Bytes)>,
}

impl<'a> Bodies<'a> {
    /// Creates bodies whose links lead to Optio's web app at `public_url` (`webhooks.public_url`).
    #[must_use]
    pub fn new(public_url: &'a str) -> Self {
        Self { public_url, rendered: Vec::new() }
    }

    /// Returns the body of `event` in `format`, in the shape that `url` accepts. All webhooks with that format and
    /// shape get the same bytes.
    pub fn of(&mut self, event: &Event, format: PayloadFormat, url: &Url) -> Bytes {
        let key = (format, format.shape(url));
        if let Some((_, body)) = self.rendered.iter().find(|(known, _)| *known == key) {
            return body.clone();
        }
        let body = format.render(event, url, self.public_url);
        self.rendered.push((key, body.clone()));
        body
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::event::EventType;

    #[test]
    fn lists_of_all_variants_are_complete() {
        assert_eq!(PayloadFormat::ALL, PayloadFormat::value_variants());
        assert_eq!(EventType::ALL, EventType::value_variants());
        assert!(PayloadFormat::ALL.into_iter().all(|format| PayloadFormat::named(format.as_str()) == Some(format)));
    }

    #[test]
    fn the_host_of_a_url_presets_the_format() {
        for (url, format) in [
            ("https://discord.com/api/webhooks/1/x", PayloadFormat::Discord),
            ("https://discord.com./api/webhooks/1/x", PayloadFormat::Discord),
            ("https://canary.discord.com/api/v10/webhooks/1/x?wait=true", PayloadFormat::Discord),
            ("https://discord.com/api/webhooks/1/x/slack", PayloadFormat::Slack),
            ("https://discord.com/blog", PayloadFormat::Optio),
            ("https://discord.com.example.org/api/webhooks/1/x", PayloadFormat::Optio),
            ("https://prod-12.westeurope.logic.azure.com:443/workflows/x/triggers/manual", PayloadFormat::Teams),
            ("https://a.12.environment.api.powerplatform.com./workflows/x", PayloadFormat::Teams),
            ("https://logic.azure.com.example.org/", PayloadFormat::Optio),
            ("https://notlogic.azure.com/", PayloadFormat::Optio),
            ("https://10.0.0.1/", PayloadFormat::Optio),
        ] {
            assert_eq!(PayloadFormat::preset(&Url::parse(url).unwrap()), format, "{url}");
        }
    }
}
