//! Payload formats: the body of a request, by what the receiver understands. One file per format.

pub mod slack;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::event::Event;

/// The format of a webhook's payload. A new one is a variant here, and a file of its own; the compiler finds the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// Optio's own JSON payload.
    #[default]
    Optio,
    /// A message for Slack.
    Slack,
}

impl PayloadFormat {
    /// All formats, in the order in which pages list them.
    pub const ALL: [Self; 2] = [Self::Optio, Self::Slack];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optio => "optio",
            Self::Slack => "slack",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// The name that people read.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Optio => "Optio's JSON payload",
            Self::Slack => "Slack message",
        }
    }

    /// The hosts whose URLs preset this format.
    #[must_use]
    pub fn hosts(self) -> &'static [&'static str] {
        match self {
            Self::Optio => &[],
            Self::Slack => slack::HOSTS,
        }
    }

    /// The format that fits a URL.
    #[must_use]
    pub fn preset(url: &Url) -> Self {
        // A host may be written with the root's dot at its end.
        let host = url.host_str().map(|host| host.strip_suffix('.').unwrap_or(host));
        let fits = |format: &Self| host.is_some_and(|host| format.hosts().contains(&host));
        Self::ALL.into_iter().find(fits).unwrap_or_default()
    }

    /// Which of the format's shapes a URL takes. URLs that take the same shape share their bodies.
    fn shape(self, url: &Url) -> usize {
        match self {
            Self::Optio => 0,
            Self::Slack => slack::takes(url) as usize,
        }
    }

    fn render(self, event: &Event, url: &Url) -> Bytes {
        match self {
            Self::Optio => event.body.clone(),
            Self::Slack => slack::body(event.event_type, &event.body, slack::takes(url)),
        }
    }
}

/// The bodies of one event. Each one is rendered once, however many webhooks get it.
#[derive(Debug, Default)]
pub struct Bodies(Vec<((PayloadFormat, usize), Bytes)>);

impl Bodies {
    /// The body of `event` in `format`, as `url` takes it. It is the same bytes for every webhook of that format.
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
