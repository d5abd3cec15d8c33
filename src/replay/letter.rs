//! The headers of a dead letter, as they are read. `record.rs` writes them.

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::kafka::headers;
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
            if let Some(value) = header.text() {
                letter.take(header.key, value);
            }
        }
        if letter.is_unread() {
            // The delivery headers of such a record come from its producer, not from this program.
            (letter.webhook_id, letter.event, letter.delivery_id) = (None, None, None);
        }
        letter
    }

    fn take(&mut self, key: &[u8], value: &str) {
        if key == names::SOURCE_TOPIC.as_bytes() {
            // Ours begin here. What was read before comes from the producer of a record that could not be read.
            (self.has_source_time, self.is_shortened, self.replays) = (false, false, 0);
        }
        self.has_source_time |= key == names::SOURCE_TIMESTAMP.as_bytes();
        self.is_shortened |= key == names::SHORTENED_FROM.as_bytes();
        match key {
            name if name == names::WEBHOOK_ID.as_bytes() => self.webhook_id = value.parse().ok(),
            name if name == names::EVENT.as_bytes() => self.event = EventType::named(value),
            name if name == names::DELIVERY_ID.as_bytes() => self.delivery_id = value.parse().ok().map(DeliveryId),
            name if name == names::DEAD_REASON.as_bytes() => self.reason = DeadReason::named(value),
            name if name == names::DEAD_AT.as_bytes() => self.died_at_ms = value.parse().unwrap_or(self.died_at_ms),
            name if name == names::REPLAYS.as_bytes() => self.replays = value.parse().unwrap_or(0),
            _ => {}
        }
    }

    /// Whether the dead letter is a record that could not be read, rather than a delivery.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.has_source_time && matches!(self.reason, Some(DeadReason::Malformed | DeadReason::TooLarge))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_producer_with_our_names_say_nothing_about_the_dead_letter() {
        let mut letter = Letter::default();
        let theirs = [(names::REPLAYS, "7"), (names::SHORTENED_FROM, "9"), (names::SOURCE_TIMESTAMP, "1")];
        let ours = [(names::SOURCE_TOPIC, "task-events"), (names::SOURCE_OFFSET, "3")];
        for (key, value) in theirs.into_iter().chain(ours) {
            letter.take(key.as_bytes(), value);
        }
        assert_eq!(letter, Letter::default());
        letter.take(names::REPLAYS.as_bytes(), "2");
        assert_eq!(letter.replays, 2);
    }
}
