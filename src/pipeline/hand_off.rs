//! Writing a delivery to a retry tier or the dead-letter topic: acknowledged by all replicas, tried until it is.
//!
//! Every write has an end. One that is too large leads to a dead letter, and a dead letter that is too large to a shortened
//! one. What can't be written for another reason holds its offset and nothing else: it gives its permits back, a drain
//! doesn't wait for it, and `/readyz` names the topic and the reason.

mod producing;

use crate::metrics;
use std::sync::Arc;

use rdkafka::message::OwnedHeaders;

use super::handling::Handling;
use super::incoming::Unreadable;
use crate::clock::now_ms;
use crate::delivery::{DeadReason, Delivery};
use crate::record::{self, LastError};
use crate::topics::Names;
pub use producing::{Limits, Producing};
use producing::{Outgoing, Written};

/// Writes to retry tiers and the dead-letter topic.
#[derive(Clone)]
pub struct HandOff {
    producing: Arc<Producing>,
    names: Arc<Names>,
}

/// Whether it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum HandedOff {
    /// It is durable.
    Written,
    /// It wasn't written, and its partition isn't ours any more: the next owner does it.
    LeftToNextOwner,
}

/// Bytes of a dead letter's value that are tried one after another where the whole is too large.
const SHORTENED: [usize; 4] = [512 << 10, 64 << 10, 4 << 10, 0];

impl HandOff {
    /// Over `producing`.
    #[must_use]
    pub fn new(producing: Producing, names: Names) -> Self {
        Self { producing: Arc::new(producing), names: Arc::new(names) }
    }

    /// Puts a delivery into `tier`. Returns when it is durable; not cancel safe.
    pub async fn retry(
        &self,
        delivery: &Delivery,
        tier: u32,
        due_at_ms: i64,
        last: LastError,
        handling: &mut Handling,
    ) -> HandedOff {
        let headers = record::headers(delivery, Some(due_at_ms), last);
        let (topic, key) = (self.names.retry(tier), delivery.webhook_id.to_string());
        let outgoing = Outgoing { topic: &topic, key: Some(key.as_bytes()), value: Some(&delivery.body) };
        match self.producing.write(outgoing, headers, handling).await {
            Written::Done => HandedOff::Written,
            Written::LeftToNextOwner => HandedOff::LeftToNextOwner,
            Written::TooLarge => {
                let detail = format!("topic {topic} doesn't take a record of {} bytes", delivery.body.len());
                self.dead(delivery, DeadReason::TooLarge, &detail, last, handling).await
            }
        }
    }

    /// Gives a delivery up. Returns when that is durable; not cancel safe.
    pub async fn dead(
        &self,
        delivery: &Delivery,
        reason: DeadReason,
        detail: &str,
        last: LastError,
        handling: &mut Handling,
    ) -> HandedOff {
        tracing::warn!(delivery = %delivery.id, webhook = %delivery.webhook_id, reason = reason.as_str(), attempts = delivery.attempts, detail, "dead-lettered");
        metrics::DEAD_LETTERS.increment(reason.as_str());
        let key = delivery.webhook_id.to_string();
        let headers = |detail: &str| record::dead(record::headers(delivery, None, last), reason, detail, now_ms());
        let letter = Letter { key: Some(key.as_bytes()), value: Some(&delivery.body), detail, at: &delivery.source };
        self.letter(letter, headers, headers, handling).await
    }

    /// Gives a record up that can't be read: its key, value and headers untouched beside ours.
    pub async fn unreadable(&self, record: &Unreadable, handling: &mut Handling) -> HandedOff {
        let source = &record.origin.source;
        let reason = record.reason.as_str();
        tracing::warn!(topic = %source.topic, partition = source.partition, offset = source.offset, reason, detail = record.detail, "dead-lettered");
        metrics::DEAD_LETTERS.increment(reason);
        let headers = |theirs: OwnedHeaders, detail: &str| {
            record::dead(record::unread(theirs, &record.origin), record.reason, detail, now_ms())
        };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let letter = Letter { key, value, detail: &record.detail, at: source };
        let whole = |detail: &str| headers(record.headers.clone(), detail);
        self.letter(letter, whole, |detail| headers(OwnedHeaders::new(), detail), handling).await
    }

    /// Writes a dead letter, shortened where the topic doesn't take all of it: first its value, at last its own key and
    /// headers too.
    async fn letter(
        &self,
        letter: Letter<'_>,
        headers: impl Fn(&str) -> OwnedHeaders,
        fewest_headers: impl Fn(&str) -> OwnedHeaders,
        handling: &mut Handling,
    ) -> HandedOff {
        let topic = self.names.dead_letters();
        let Letter { key, value, detail, at } = letter;
        let outgoing = |key, value| Outgoing { topic: &topic, key, value };
        let mut written = self.producing.write(outgoing(key, value), headers(detail), handling).await;
        let size = value.map_or(0, <[u8]>::len);
        for kept in SHORTENED.into_iter().filter(|kept| *kept < size).chain([0]) {
            if written != Written::TooLarge {
                break;
            }
            let place = format!("{}/{}/{}", at.topic, at.partition, at.offset);
            let detail = format!("cut to {kept} of {size} bytes, the original stands at {place}; {detail}");
            let is_last = kept == 0;
            let headers = if is_last { fewest_headers(&detail) } else { headers(&detail) };
            let key = key.filter(|_| !is_last);
            let value = value.map(|value| &value[..kept]);
            written = self.producing.write(outgoing(key, value), record::shortened(headers, size), handling).await;
        }
        match written {
            Written::Done => HandedOff::Written,
            Written::LeftToNextOwner => HandedOff::LeftToNextOwner,
            // Not even the fewest headers fit: no broker allows that little, so this is the topic's fault, and it is loud.
            Written::TooLarge => {
                let outgoing = outgoing(None, None);
                self.producing.write_however_long(outgoing, fewest_headers(detail), handling).await
            }
        }
    }
}

struct Letter<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    detail: &'a str,
    /// Where the original stands.
    at: &'a crate::position::RecordPosition,
}
