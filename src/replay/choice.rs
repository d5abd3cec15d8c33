//! Which dead letters are meant.

use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::replay::letter::Letter;
use crate::webhook::WebhookId;

/// A dead letter is meant if it fits every kind of filter that is given, and of each kind any value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Of these webhooks.
    pub webhooks: Vec<WebhookId>,
    /// Of these event types.
    pub events: Vec<EventType>,
    /// Only the one that stands at this partition and offset.
    pub at: Option<(i32, i64)>,
    /// That died of these.
    pub reasons: Vec<DeadReason>,
    /// With these delivery ids.
    pub deliveries: Vec<DeliveryId>,
    /// That died then or later, Unix milliseconds.
    pub since_ms: Option<i64>,
    /// That died before, Unix milliseconds.
    pub until_ms: Option<i64>,
}

impl Choice {
    /// Whether there is no filter.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a dead letter with that key may be meant: the key is its webhook's id. Taking a record's headers apart
    /// is what costs most of its time, so that of another webhook is better not begun.
    #[must_use]
    pub fn may_take(&self, key: Option<&[u8]>) -> bool {
        let webhook = || uuid::Uuid::try_parse_ascii(key.unwrap_or_default()).ok().map(WebhookId);
        self.webhooks.is_empty() || webhook().is_some_and(|webhook| self.webhooks.contains(&webhook))
    }

    /// Whether the dead letter that stands there may be meant.
    #[must_use]
    pub fn may_take_at(&self, partition: i32, offset: i64) -> bool {
        self.at.is_none_or(|at| at == (partition, offset))
    }

    /// Whether this one is meant.
    #[must_use]
    pub fn takes(&self, letter: &Letter) -> bool {
        fn any<T: PartialEq>(wanted: &[T], value: Option<T>) -> bool {
            wanted.is_empty() || value.is_some_and(|value| wanted.contains(&value))
        }
        any(&self.webhooks, letter.webhook_id)
            && any(&self.events, letter.event)
            && any(&self.reasons, letter.reason)
            && any(&self.deliveries, letter.delivery_id)
            && self.since_ms.is_none_or(|since| letter.died_at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.died_at_ms < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn letter() -> Letter {
        Letter {
            webhook_id: Some(WebhookId(Uuid::from_u128(1))),
            event: Some(EventType::TaskFailed),
            reason: Some(DeadReason::Exhausted),
            delivery_id: Some(DeliveryId(Uuid::from_u128(2))),
            died_at_ms: 1_000,
            replays: 0,
            ..Letter::default()
        }
    }

    #[test]
    fn without_a_filter_all_are_meant() {
        assert!(Choice::default().is_everything());
        assert!(Choice::default().takes(&letter()));
    }

    #[test]
    fn every_kind_of_filter_must_fit_and_of_each_any_value() {
        let other = WebhookId(Uuid::from_u128(3));
        let mut choice = Choice { webhooks: vec![other, letter().webhook_id.unwrap()], ..Choice::default() };
        assert!(!choice.is_everything());
        assert!(choice.takes(&letter()));
        choice.reasons = vec![DeadReason::Expired];
        assert!(!choice.takes(&letter()));
        choice = Choice { webhooks: vec![other], ..Choice::default() };
        assert!(!choice.takes(&letter()));
    }

    #[test]
    fn what_has_the_key_of_another_webhook_need_not_be_looked_at() {
        let (one, other) = (WebhookId(Uuid::from_u128(1)), WebhookId(Uuid::from_u128(3)));
        let choice = Choice { webhooks: vec![one], ..Choice::default() };
        assert!(choice.may_take(Some(one.to_string().as_bytes())));
        assert!(!choice.may_take(Some(other.to_string().as_bytes())) && !choice.may_take(Some(b"x")));
        assert!(!choice.may_take(None) && Choice::default().may_take(None));
    }

    #[test]
    fn one_that_has_no_webhook_fits_no_filter_by_webhook() {
        let choice = Choice { webhooks: vec![WebhookId(Uuid::from_u128(1))], ..Choice::default() };
        assert!(!choice.takes(&Letter { webhook_id: None, ..letter() }));
    }

    #[test]
    fn since_is_within_and_until_is_not() {
        let span = |since, until| Choice { since_ms: Some(since), until_ms: Some(until), ..Choice::default() };
        assert!(span(1_000, 1_001).takes(&letter()));
        assert!(!span(1_001, 2_000).takes(&letter()));
        assert!(!span(0, 1_000).takes(&letter()));
    }
}
