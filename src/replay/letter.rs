//! The headers of a dead letter, as they are read. `record.rs` writes them.

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::kafka::headers::{self, Header};
use crate::record::header_names as names;
use crate::webhook::WebhookId;

/// The fields of a dead letter that filters use, from its headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Letter {
    /// The webhook of the delivery. None for a record that could not be read.
    pub webhook_id: Option<WebhookId>,
    /// The type of the event.
    pub event: Option<EventType>,
    /// Why it was dead-lettered. None if the header is missing or has an unknown value.
    pub reason: Option<DeadReason>,
    /// The id of the delivery.
    pub delivery_id: Option<DeliveryId>,
    /// The time at which it was dead-lettered, in Unix milliseconds.
    pub died_at_ms: i64,
    /// The number of replays and redeliveries before it was dead-lettered.
    pub replays: u32,
    /// Whether the record has the header `optio-source-timestamp`, which only a record that could not be read has.
    pub has_source_time: bool,
    /// Whether the value was shortened because the topic refused its size. A shortened value cannot be sent.
    pub is_shortened: bool,
}

impl Letter {
    /// Reads the headers of a record. Dead-lettering appends its headers to those of a record that could not be read,
    /// so the last header of a name counts.
    #[must_use]
    pub fn read(record: &BorrowedMessage<'_>) -> Self {
        let mut letter = Self { died_at_ms: record.timestamp().to_millis().unwrap_or(0), ..Self::default() };
        for header in headers::all(record.headers()) {
            let _ = letter.take(&header);
        }
        if letter.is_unread() {
            // The delivery headers of such a record come from its producer, not from this program.
            (letter.webhook_id, letter.event, letter.delivery_id) = (None, None, None);
        }
        letter
    }

    /// Takes a header into account. Returns None if its value is not text, and has no effect then. The values of other
    /// headers are not looked at, because that would take a good part of the time for a record.
    fn take(&mut self, header: &Header<'_>) -> Option<()> {
        match header.key {
            keys::WEBHOOK_ID => self.webhook_id = header.text()?.parse().ok(),
            keys::EVENT => self.event = EventType::named(header.text()?),
            keys::DELIVERY_ID => self.delivery_id = header.text()?.parse().ok().map(DeliveryId),
            keys::DEAD_REASON => self.reason = DeadReason::named(header.text()?),
            keys::DEAD_AT => self.died_at_ms = header.text()?.parse().unwrap_or(self.died_at_ms),
            keys::REPLAYS => self.replays = header.text()?.parse().unwrap_or(0),
            keys::SOURCE_TIMESTAMP => self.has_source_time |= header.text().is_some(),
            keys::SHORTENED_FROM => self.is_shortened |= header.text().is_some(),
            keys::SOURCE_TOPIC => {
                header.text()?;
                // Ours begin here. What was read before comes from the producer of a record that could not be read.
                (self.has_source_time, self.is_shortened, self.replays) = (false, false, 0);
            }
            _ => {}
        }
        Some(())
    }

    /// Whether the dead letter is a record that could not be read, rather than a delivery.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.has_source_time && matches!(self.reason, Some(DeadReason::Malformed | DeadReason::TooLarge))
    }
}

/// The names of headers as bytes, which are compared without a check that they are text.
mod keys {
    use super::names;

    pub(super) const WEBHOOK_ID: &[u8] = names::WEBHOOK_ID.as_bytes();
    pub(super) const EVENT: &[u8] = names::EVENT.as_bytes();
    pub(super) const DELIVERY_ID: &[u8] = names::DELIVERY_ID.as_bytes();
    pub(super) const DEAD_REASON: &[u8] = names::DEAD_REASON.as_bytes();
    pub(super) const DEAD_AT: &[u8] = names::DEAD_AT.as_bytes();
    pub(super) const REPLAYS: &[u8] = names::REPLAYS.as_bytes();
    pub(super) const SOURCE_TIMESTAMP: &[u8] = names::SOURCE_TIMESTAMP.as_bytes();
    pub(super) const SHORTENED_FROM: &[u8] = names::SHORTENED_FROM.as_bytes();
    pub(super) const SOURCE_TOPIC: &[u8] = names::SOURCE_TOPIC.as_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_producer_with_our_names_say_nothing_about_the_dead_letter() {
        let mut letter = Letter::default();
        let theirs = [(names::REPLAYS, "7"), (names::SHORTENED_FROM, "9"), (names::SOURCE_TIMESTAMP, "1")];
        let ours = [(names::SOURCE_TOPIC, "task-events"), (names::SOURCE_OFFSET, "3")];
        let header =
            |(key, value): (&'static str, &'static str)| Header { key: key.as_bytes(), value: Some(value.as_bytes()) };
        for pair in theirs.into_iter().chain(ours) {
            letter.take(&header(pair)).unwrap();
        }
        assert_eq!(letter, Letter::default());
        letter.take(&header((names::REPLAYS, "2"))).unwrap();
        assert_eq!(letter.replays, 2);
    }
}
