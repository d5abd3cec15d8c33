//! The selection of dead letters to browse or replay.

use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::replay::letter::Letter;
use crate::webhook::WebhookId;

/// A selection of dead letters. A dead letter is selected if it matches every filter that is set. It matches a filter
/// with several values if it has one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The webhooks of the deliveries. Empty for all.
    pub webhooks: Vec<WebhookId>,
    /// The event types. Empty for all.
    pub events: Vec<EventType>,
    /// The partition and offset of a single dead letter.
    pub at: Option<(i32, i64)>,
    /// The reasons of the dead letters. Empty for all.
    pub reasons: Vec<DeadReason>,
    /// The ids of the deliveries. Empty for all.
    pub deliveries: Vec<DeliveryId>,
    /// Only deliveries dead-lettered at or after this time, in Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Only deliveries dead-lettered before this time, in Unix milliseconds.
    pub until_ms: Option<i64>,
}

impl Choice {
    /// Whether no filter is set.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a dead letter with this key may be selected. The key is the id of its webhook. Parsing the headers takes
    /// most of the time for a record, so this check avoids it for records of other webhooks.
    #[must_use]
    pub fn may_select(&self, key: Option<&[u8]>) -> bool {
        let webhook = || uuid::Uuid::try_parse_ascii(key.unwrap_or_default()).ok().map(WebhookId);
        self.webhooks.is_empty() || webhook().is_some_and(|webhook| self.webhooks.contains(&webhook))
    }

    /// Whether the dead letter at this position may be selected.
    #[must_use]
    pub fn may_select_at(&self, partition: i32, offset: i64) -> bool {
        self.at.is_none_or(|at| at == (partition, offset))
    }

    /// Whether a dead letter is selected. Ignores the filter for the position, which [`Self::may_select_at`] checks.
    #[must_use]
    pub fn selects(&self, letter: &Letter) -> bool {
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
    fn without_a_filter_all_dead_letters_are_selected() {
        assert!(Choice::default().is_everything());
        assert!(Choice::default().selects(&letter()));
    }

    #[test]
    fn a_dead_letter_must_match_one_value_of_each_filter() {
        let other = WebhookId(Uuid::from_u128(3));
        let mut choice = Choice { webhooks: vec![other, letter().webhook_id.unwrap()], ..Choice::default() };
        assert!(!choice.is_everything());
        assert!(choice.selects(&letter()));
        choice.reasons = vec![DeadReason::Expired];
        assert!(!choice.selects(&letter()));
        choice = Choice { webhooks: vec![other], ..Choice::default() };
        assert!(!choice.selects(&letter()));
    }

    #[test]
    fn a_record_with_the_key_of_another_webhook_is_not_selected() {
        let (one, other) = (WebhookId(Uuid::from_u128(1)), WebhookId(Uuid::from_u128(3)));
        let choice = Choice { webhooks: vec![one], ..Choice::default() };
        assert!(choice.may_select(Some(one.to_string().as_bytes())));
        assert!(!choice.may_select(Some(other.to_string().as_bytes())) && !choice.may_select(Some(b"x")));
        assert!(!choice.may_select(None) && Choice::default().may_select(None));
    }

    #[test]
    fn a_dead_letter_without_a_webhook_matches_no_webhook_filter() {
        let choice = Choice { webhooks: vec![WebhookId(Uuid::from_u128(1))], ..Choice::default() };
        assert!(!choice.selects(&Letter { webhook_id: None, ..letter() }));
    }

    #[test]
    fn since_is_inclusive_and_until_is_exclusive() {
        let span = |since, until| Choice { since_ms: Some(since), until_ms: Some(until), ..Choice::default() };
        assert!(span(1_000, 1_001).selects(&letter()));
        assert!(!span(1_001, 2_000).selects(&letter()));
        assert!(!span(0, 1_000).selects(&letter()));
    }
}
