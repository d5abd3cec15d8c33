//! A dead letter as it stands in its topic.

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::kafka::headers;
use crate::record;
use crate::webhook::WebhookId;

/// What filters look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Letter {
    /// Whom it was for; None for a record that couldn't be read.
    pub webhook_id: Option<WebhookId>,
    /// What of.
    pub event: Option<EventType>,
    /// Why it died; None where the record doesn't say, or not in words of ours.
    pub reason: Option<DeadReason>,
    /// Its identity.
    pub delivery_id: Option<DeliveryId>,
    /// When it died, Unix milliseconds.
    pub died_at_ms: i64,
    /// How often it was replayed before it died.
    pub replays: u32,
    /// Whether it is a record as it came, not a delivery: only such a one says what time it had.
    pub has_source_time: bool,
    /// Whether its value was cut because its topic didn't take all of it: what is left can't be sent.
    pub is_shortened: bool,
}

impl Letter {
    /// Reads a record's headers. Ours stand behind those of a record that couldn't be read: the last of a name counts.
    #[must_use]
    pub fn read(record: &BorrowedMessage<'_>) -> Self {
        let mut letter = Self { died_at_ms: record.timestamp().to_millis().unwrap_or(0), ..Self::default() };
        for header in headers::all(record.headers()) {
            if let Some(value) = header.text() {
                letter.take(header.key, value);
            }
        }
        if letter.is_unread() {
            // Whatever such a record says of deliveries isn't ours.
            (letter.webhook_id, letter.event, letter.delivery_id) = (None, None, None);
        }
        letter
    }

    fn take(&mut self, key: &[u8], value: &str) {
        self.has_source_time |= key == record::SOURCE_TIMESTAMP.as_bytes();
        self.is_shortened |= key == record::SHORTENED.as_bytes();
        match key {
            b"optio-webhook-id" => self.webhook_id = value.parse().ok(),
            b"optio-event" => self.event = EventType::named(value),
            b"optio-delivery-id" => self.delivery_id = value.parse().ok().map(DeliveryId),
            b"optio-dead-reason" => self.reason = DeadReason::named(value),
            b"optio-dead-at" => self.died_at_ms = value.parse().unwrap_or(self.died_at_ms),
            b"optio-replays" => self.replays = value.parse().unwrap_or(0),
            _ => {}
        }
    }

    /// Whether it is a record that couldn't be read, as it came.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.has_source_time && matches!(self.reason, Some(DeadReason::Malformed | DeadReason::TooLarge))
    }
}
