//! Hand-offs: writes of deliveries to a retry tier or the dead-letter topic. A hand-off is tried until all replicas
//! have acknowledged it.
//!
//! A delivery that is too large for its tier becomes a dead letter, and a dead letter that is too large is shortened. A
//! hand-off that is refused for another reason blocks its own offset and nothing else: it gives its permits back, a
//! drain doesn't wait for it, and `/readyz` names the topic and the reason.

mod producer;
pub(super) mod producing;

use crate::metrics;
use std::borrow::Cow;
use std::sync::Arc;

use rdkafka::message::OwnedHeaders;
use uuid::Uuid;

use super::handling::Handling;
use super::incoming::Unreadable;
use crate::clock::now_ms;
use crate::delivery::{DeadReason, Delivery};
use crate::detail::Detail;
use crate::kafka::headers;
use crate::record::{self, LastError};
use crate::topics::Names;
use producer::Outgoing;
#[cfg(test)]
pub(crate) use producer::Script;
pub(super) use producer::Sending;
use producing::Written;
pub use producing::{Limits, Producing};

/// Writes to retry tiers and the dead-letter topic.
#[derive(Clone)]
pub struct HandOff {
    producing: Arc<Producing>,
    names: Arc<Names>,
    /// The names of the retry tiers, the first tier first.
    tiers: Arc<[String]>,
}

/// The outcome of a hand-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum HandedOff {
    /// The record is durable.
    Written,
    /// The record wasn't written, and its partition is no longer ours. The next owner writes it.
    LeftToNextOwner,
}

/// The sizes in bytes to which the value of a dead letter is cut in turn if the whole dead letter is too large.
const SHORTENED_SIZES: [usize; 4] = [512 << 10, 64 << 10, 4 << 10, 0];

impl HandOff {
    /// Creates the hand-off. Clones share the producers.
    #[must_use]
    pub fn new(producing: Producing, names: Names, tiers: u32) -> Self {
        let tiers = (1..=tiers).map(|tier| names.retry(tier)).collect();
        Self { producing: Arc::new(producing), names: Arc::new(names), tiers }
    }

    fn topic(&self, tier: u32) -> Cow<'_, str> {
        let known = tier.checked_sub(1).and_then(|at| self.tiers.get(at as usize));
        known.map_or_else(|| Cow::Owned(self.names.retry(tier)), |known| Cow::Borrowed(known.as_str()))
    }

    /// Writes a delivery to `tier`. Returns when it is durable. Not cancel safe.
    pub async fn retry(
        &self,
        delivery: &Delivery,
        tier: u32,
        due_at_ms: i64,
        last: LastError,
        handling: &mut Handling,
    ) -> HandedOff {
        let sending = self.start_retry(delivery, tier, due_at_ms, last);
        self.finish_retry(delivery, tier, last, sending, handling).await
    }

    /// Gives a delivery to the producer of `tier`. It is durable when the result resolves to `Ok`. Otherwise
    /// [`HandOff::finish_retry`] must go on with it.
    pub(super) fn start_retry(&self, delivery: &Delivery, tier: u32, due_at_ms: i64, last: LastError) -> Sending {
        let headers = record::headers(delivery, Some(due_at_ms), last);
        let mut key = Uuid::encode_buffer();
        let key = delivery.webhook_id.0.hyphenated().encode_lower(&mut key);
        self.producing.start(Self::outgoing(delivery, &self.topic(tier), key.as_bytes()), headers)
    }

    /// Goes on with a delivery that was given to the producer of `tier`. Returns when it is durable. Not cancel safe.
    pub(super) async fn finish_retry(
        &self,
        delivery: &Delivery,
        tier: u32,
        last: LastError,
        sending: Sending,
        handling: &mut Handling,
    ) -> HandedOff {
        let (topic, key) = (self.topic(tier), delivery.webhook_id.to_string());
        match self.producing.finish(Self::outgoing(delivery, &topic, key.as_bytes()), sending, handling).await {
            Written::Done => HandedOff::Written,
            Written::LeftToNextOwner => HandedOff::LeftToNextOwner,
            Written::TooLarge => {
                let refused = Detail::new("topic ").value(&topic).text(" refuses a record of ");
                let detail = refused.size(delivery.body.len()).text(" bytes");
                // Few deliveries die here. The state of this call is large, so it is allocated only for them.
                Box::pin(self.dead(delivery, DeadReason::TooLarge, &detail, last, handling)).await
            }
        }
    }

    fn outgoing<'a>(delivery: &'a Delivery, topic: &'a str, key: &'a [u8]) -> Outgoing<'a> {
        Outgoing { topic, key: Some(key), value: Some(&delivery.body), foreign_header_bytes: 0 }
    }

    /// Dead-letters a delivery. Returns when the dead letter is durable. Not cancel safe.
    pub async fn dead(
        &self,
        delivery: &Delivery,
        reason: DeadReason,
        detail: &Detail,
        last: LastError,
        handling: &mut Handling,
    ) -> HandedOff {
        tracing::warn!(delivery = %delivery.id, webhook = %delivery.webhook_id, reason = reason.as_str(), attempts = delivery.attempts, %detail, "dead-lettered");
        metrics::DEAD_LETTERS.increment(reason.as_str());
        // Events about dead operational events could go round in circles.
        handling.died = Some(delivery.webhook_id).filter(|_| !delivery.event_type.is_operational());
        let key = delivery.webhook_id.to_string();
        let headers = |detail: &Detail| record::dead(record::headers(delivery, None, last), reason, detail, now_ms());
        let letter = Letter {
            key: Some(key.as_bytes()),
            value: Some(&delivery.body),
            foreign_header_bytes: 0,
            detail,
            original: &delivery.source,
        };
        self.letter(letter, headers, headers, handling).await
    }

    /// Dead-letters a record that can't be read. Its key, value and headers are unchanged, and ours are appended.
    pub async fn unreadable(&self, record: &Unreadable, handling: &mut Handling) -> HandedOff {
        let source = &record.origin.source;
        let reason = record.reason.as_str();
        tracing::warn!(topic = %source.topic, partition = source.partition, offset = source.offset, reason, detail = %record.detail, "dead-lettered");
        metrics::DEAD_LETTERS.increment(reason);
        let headers = |theirs: OwnedHeaders, detail: &Detail| {
            record::dead(record::unread(theirs, &record.origin), record.reason, detail, now_ms())
        };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let foreign_header_bytes = headers::bytes(Some(record.headers.as_borrowed()));
        let letter = Letter { key, value, foreign_header_bytes, detail: &record.detail, original: source };
        let whole = |detail: &Detail| headers(record.headers.clone(), detail);
        self.letter(letter, whole, |detail| headers(OwnedHeaders::new(), detail), handling).await
    }

    /// Writes a dead letter. If the topic refuses it for its size, the value is shortened step by step. The last step
    /// also leaves out the record's own key and headers.
    async fn letter(
        &self,
        letter: Letter<'_>,
        headers: impl Fn(&Detail) -> OwnedHeaders,
        fewest_headers: impl Fn(&Detail) -> OwnedHeaders,
        handling: &mut Handling,
    ) -> HandedOff {
        let topic = self.names.dead_letters();
        let Letter { key, value, foreign_header_bytes, detail, original } = letter;
        let outgoing = |key, value| Outgoing { topic: &topic, key, value, foreign_header_bytes };
        let mut written = self.producing.write(outgoing(key, value), headers(detail), handling).await;
        let size = value.map_or(0, <[u8]>::len);
        for kept in SHORTENED_SIZES.into_iter().filter(|kept| *kept < size).chain([0]) {
            if written != Written::TooLarge {
                break;
            }
            let cut = Detail::new("cut to ").size(kept).text(" of ").size(size).text(" bytes, the original is at ");
            let cut = cut.value(&original.topic).text("/").number(original.partition).text("/").number(original.offset);
            let detail = cut.text("; ").detail(detail);
            let is_last = kept == 0;
            let headers = if is_last { fewest_headers(&detail) } else { headers(&detail) };
            let key = key.filter(|_| !is_last);
            let value = value.map(|value| &value[..kept]);
            written = self.producing.write(outgoing(key, value), record::shortened(headers, size), handling).await;
        }
        match written {
            Written::Done => HandedOff::Written,
            Written::LeftToNextOwner => HandedOff::LeftToNextOwner,
            // Not even the fewest headers fit. No broker has such a low default, so the topic has a wrong setting. The
            // write is tried until somebody corrects it, and `/readyz` shows it.
            Written::TooLarge => {
                let outgoing = outgoing(None, None);
                self.producing.write_whatever_size(outgoing, fewest_headers(detail), handling).await
            }
        }
    }
}

/// A dead letter before it is written.
struct Letter<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    /// The size in bytes of the headers that another program wrote.
    foreign_header_bytes: usize,
    detail: &'a Detail,
    /// The position of the original record.
    original: &'a crate::position::RecordPosition,
}
