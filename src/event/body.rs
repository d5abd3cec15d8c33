//! An event's body, as each format has it.

use bytes::Bytes;

use super::Event;
use crate::slack;
use crate::webhook::PayloadFormat;

/// The bodies of one event, each made once, however many webhooks get it.
#[derive(Debug, Default)]
pub struct Bodies {
    slack: Option<Bytes>,
}

impl Bodies {
    /// The same bytes for each webhook of that format.
    pub fn of(&mut self, event: &Event, format: PayloadFormat) -> Bytes {
        match format {
            PayloadFormat::Optio => event.body.clone(),
            PayloadFormat::Slack => {
                self.slack.get_or_insert_with(|| slack::message(event.event_type, &event.body)).clone()
            }
        }
    }
}
