//! An event's body, as each webhook's format has it.

use bytes::Bytes;
use url::Url;

use super::Event;
use crate::slack::{self, Takes};
use crate::webhook::PayloadFormat;

/// The bodies of one event, each made once, however many webhooks get it.
#[derive(Debug, Default)]
pub struct Bodies {
    slack_message: Option<Bytes>,
    slack_variables: Option<Bytes>,
}

impl Bodies {
    /// The same bytes for each webhook of that format, at a URL of that kind.
    pub fn of(&mut self, event: &Event, format: PayloadFormat, url: &Url) -> Bytes {
        match format {
            PayloadFormat::Optio => event.body.clone(),
            PayloadFormat::Slack => {
                let takes = slack::takes(url);
                let made = match takes {
                    Takes::Message => &mut self.slack_message,
                    Takes::Variables => &mut self.slack_variables,
                };
                made.get_or_insert_with(|| slack::body(event.event_type, &event.body, takes)).clone()
            }
        }
    }
}
