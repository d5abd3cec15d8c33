//! An event's body, as each webhook's format has it.

use bytes::Bytes;

use super::Event;
use crate::slack::{self, Takes};
use crate::webhook::{PayloadFormat, Webhook};

/// The bodies of one event, each made once, however many webhooks get it.
#[derive(Debug, Default)]
pub struct Bodies {
    slack_message: Option<Bytes>,
    slack_variables: Option<Bytes>,
}

impl Bodies {
    /// The same bytes for each webhook of that format.
    pub fn of(&mut self, event: &Event, webhook: &Webhook) -> Bytes {
        match webhook.format {
            PayloadFormat::Optio => event.body.clone(),
            PayloadFormat::Slack => {
                let takes = slack::takes(&webhook.url);
                let made = match takes {
                    Takes::Message => &mut self.slack_message,
                    Takes::Variables => &mut self.slack_variables,
                };
                made.get_or_insert_with(|| slack::body(event.event_type, &event.body, takes)).clone()
            }
        }
    }
}
