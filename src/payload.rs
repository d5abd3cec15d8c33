//! The payload formats. A format decides what the body of a request looks like, and each one has its own file.

mod classic;
pub mod slack;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::event::Event;

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
}

impl PayloadFormat {
    /// All formats, in the order in which pages list them.
    pub const ALL: [Self; 3] = [Self::Optio, Self::Slack, Self::OptioClassic];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optio => "optio",
            Self::Slack => "slack",
            Self::OptioClassic => "optio-classic",
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
        }
    }

    /// The hosts whose URLs get this format by default.
    #[must_use]
    pub fn hosts(self) -> &'static [&'static str] {
        match self {
            Self::Optio | Self::OptioClassic => &[],
            Self::Slack => slack::HOSTS,
        }
    }

    /// Returns the default format for a URL.
    #[must_use]
    pub fn preset(url: &Url) -> Self {
        // A host name may end with the dot of the DNS root.
        let host = url.host_str().map(|host| host.strip_suffix('.').unwrap_or(host));
        let fits = |format: &Self| host.is_some_and(|host| format.hosts().contains(&host));
        Self::ALL.into_iter().find(fits).unwrap_or_default()
    }

    /// A number for the shape of the body that a URL accepts. URLs with the same format and shape share their bodies.
    fn shape(self, url: &Url) -> usize {
        match self {
            Self::Optio | Self::OptioClassic => 0,
            Self::Slack => slack::shape(url) as usize,
        }
    }

    fn render(self, event: &Event, url: &Url) -> Bytes {
        match self {
            Self::Optio => event.body.clone(),
            Self::Slack => slack::body(event.event_type, &event.body, slack::shape(url)),
            Self::OptioClassic => classic::body(event),
        }
    }

    /// Returns `X-Optio-Signature` as receivers of this format expect it. Optio's built-in worker sends the bare hex.
    #[must_use]
    pub fn signature(self, signature: &str) -> &str {
        match self {
            Self::OptioClassic => signature.strip_prefix("sha256=").unwrap_or(signature),
            Self::Optio | Self::Slack => signature,
        }
    }
}

/// The bodies of one event. Each body is rendered once, no matter how many webhooks get it.
#[derive(Debug, Default)]
pub struct Bodies(Vec<((PayloadFormat, usize), Bytes)>);

impl Bodies {
    /// Returns the body of `event` in `format`, in the shape that `url` accepts. All webhooks with that format and
    /// shape get the same bytes.
    pub fn of(&mut self, event: &Event, format: PayloadFormat, url: &Url) -> Bytes {
        let key = (format, format.shape(url));
        if let Some((_, body)) = self.0.iter().find(|(known, _)| *known == key) {
            return body.clone();
        }
        let body = format.render(event, url);
        self.0.push((key, body.clone()));
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
}
