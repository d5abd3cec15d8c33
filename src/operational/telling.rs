//! Decides what to tell about a webhook.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::event::EventType;
use crate::webhook::Webhook;

/// A webhook that was disabled longer ago than this isn't told, so that an update of the program tells nothing old.
const OLD_MS: i64 = 86_400_000;

/// The settings of operational events.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// `webhooks.failing_after`
    pub failing_after: Duration,
    /// `webhooks.notice_interval`: the least time between two events of the same kind about the same webhook.
    pub interval: Duration,
}

/// What was told about a webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    /// When `webhook.disabled` was last told, in Unix milliseconds.
    pub disabled_at_ms: Option<i64>,
    /// When `webhook.failing` was last told.
    pub failing_at_ms: Option<i64>,
    /// When `webhook.recovered` was last told.
    pub recovered_at_ms: Option<i64>,
    /// When `delivery.exhausted` was last told.
    pub exhausted_at_ms: Option<i64>,
    /// Whether it was told that the webhook is disabled, and it still is.
    pub is_disabled: bool,
    /// Whether it was told that the webhook is failing, and it still is.
    pub is_failing: bool,
    /// Since when the webhook has been in a trouble that was told, until it was told that it works again.
    pub trouble_since_ms: Option<i64>,
    /// The deaths that were last told.
    pub died: Option<Died>,
}

/// Deliveries to a webhook that became dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Died {
    /// Their number.
    pub count: u64,
    /// When the first of them died, in Unix milliseconds.
    pub since_ms: i64,
}

/// What Redis says about a webhook.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The webhook.
    pub webhook: &'a Webhook,
    /// Since when it was last changed, in Unix milliseconds.
    pub changed_at_ms: i64,
    /// Since when it has failed without a success.
    pub failing_since_ms: Option<i64>,
    /// Whether its endpoint backs off.
    pub backs_off: bool,
    /// Its dead letters that were not told yet.
    pub died: Option<Died>,
    /// When it last answered with success, as far as that is known.
    pub succeeded_at_ms: Option<i64>,
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of the event.
    pub event: EventType,
    /// A sentence for people.
    pub reason: String,
    /// Since when, in Unix milliseconds. It makes the id of the event.
    pub since_ms: i64,
}

/// Whether the decision depends on when the webhook last answered with success.
#[must_use]
pub fn needs_success(told: &Told, seen: &Seen<'_>) -> bool {
    told.trouble_since_ms.is_some() && seen.webhook.active && seen.failing_since_ms.is_none() && !seen.backs_off
}

/// Decides what to tell, and what is remembered once it is told.
#[must_use]
pub fn decide(told: &Told, seen: &Seen<'_>, rules: Rules, now_ms: i64) -> (Vec<Finding>, Told) {
    let mut next = told.clone();
    let mut found = Vec::new();
    let may = |last: Option<i64>| last.is_none_or(|at| now_ms.saturating_sub(at) >= millis(rules.interval));
    let webhook = seen.webhook;

    match webhook.disabled_reason.as_ref().filter(|_| !webhook.active) {
        None => next.is_disabled = false,
        Some(_) if told.is_disabled => {}
        Some(_) if told.disabled_at_ms.is_none() && now_ms.saturating_sub(seen.changed_at_ms) > OLD_MS => {
            next.is_disabled = true;
        }
        Some(reason) if may(told.disabled_at_ms) => {
            let since_ms = seen.changed_at_ms;
            found.push(Finding {
                event: EventType::WebhookDisabled,
                reason: format!("It was disabled: {reason}."),
                since_ms,
            });
            next.is_disabled = true;
            next.disabled_at_ms = Some(now_ms);
            next.trouble_since_ms = next.trouble_since_ms.or(Some(since_ms));
        }
        Some(_) => {}
    }

    let failing_since = seen.failing_since_ms.filter(|_| webhook.active);
    if failing_since.is_none() {
        next.is_failing = false;
    }
    let is_long = |since: &i64| now_ms.saturating_sub(*since) >= millis(rules.failing_after);
    if let Some(since_ms) = failing_since.filter(is_long).filter(|_| seen.backs_off && !told.is_failing)
        && may(told.failing_at_ms)
    {
        let minutes = now_ms.saturating_sub(since_ms) / 60_000;
        let reason =
            format!("It has failed for {} without one success, and its circuit is open.", minutes_text(minutes));
        found.push(Finding { event: EventType::WebhookFailing, reason, since_ms });
        next.is_failing = true;
        next.failing_at_ms = Some(now_ms);
        next.trouble_since_ms = next.trouble_since_ms.or(Some(since_ms));
    }

    if let Some(died) = seen.died.filter(|_| may(told.exhausted_at_ms)) {
        let what = if died.count == 1 { "1 delivery".to_owned() } else { format!("{} deliveries", died.count) };
        let reason = format!("{what} failed for good and can be replayed from the dead letters.");
        found.push(Finding { event: EventType::DeliveryExhausted, reason, since_ms: died.since_ms });
        next.exhausted_at_ms = Some(now_ms);
        next.died = Some(died);
    }

    let works = needs_success(told, seen) && found.is_empty();
    if let Some(since_ms) = told.trouble_since_ms.filter(|_| works)
        && seen.succeeded_at_ms.is_some_and(|at| at >= since_ms)
        && may(told.recovered_at_ms)
    {
        let reason = "It answers with success again.".to_owned();
        found.push(Finding { event: EventType::WebhookRecovered, reason, since_ms });
        next.recovered_at_ms = Some(now_ms);
        next.trouble_since_ms = None;
    }
    (found, next)
}

fn minutes_text(minutes: i64) -> String {
    match minutes {
        1 => "1 minute".to_owned(),
        0..120 => format!("{minutes} minutes"),
        _ => format!("{} hours", minutes / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const NOW: i64 = 1_700_000_000_000;
    const RULES: Rules = Rules { failing_after: Duration::from_secs(3_600), interval: Duration::from_secs(3_600) };

    fn webhook() -> Webhook {
        Webhook::new("https://example.com/".parse().unwrap(), vec![EventType::TaskFailed], NOW)
    }

    fn seen(webhook: &Webhook) -> Seen<'_> {
        Seen {
            webhook,
            changed_at_ms: NOW,
            failing_since_ms: None,
            backs_off: false,
            died: None,
            succeeded_at_ms: None,
        }
    }

    fn kinds(told: &Told, seen: &Seen<'_>, now_ms: i64) -> (Vec<EventType>, Told) {
        let (found, next) = decide(told, seen, RULES, now_ms);
        (found.into_iter().map(|finding| finding.event).collect(), next)
    }

    #[test]
    fn a_disabled_webhook_is_told_once_and_again_after_it_was_enabled() {
        let mut off = webhook();
        (off.active, off.disabled_reason) = (false, Some("the endpoint answered 410 Gone".into()));
        let (found, told) = kinds(&Told::default(), &seen(&off), NOW);
        assert_eq!(found, [EventType::WebhookDisabled]);
        assert_eq!(kinds(&told, &seen(&off), NOW + 9 * HOUR_MS).0, []);
        let on = webhook();
        let (found, told) = kinds(&told, &seen(&on), NOW + 1);
        assert!(found.is_empty() && !told.is_disabled);
        assert_eq!(kinds(&told, &seen(&off), NOW + 2).0, [], "at most once in an hour");
        assert_eq!(kinds(&told, &seen(&off), NOW + HOUR_MS).0, [EventType::WebhookDisabled]);
    }

    #[test]
    fn a_webhook_that_was_disabled_long_ago_is_not_told() {
        let mut off = webhook();
        (off.active, off.disabled_reason) = (false, Some("gone".into()));
        let (found, told) = kinds(&Told::default(), &seen(&off), NOW + 25 * HOUR_MS);
        assert!(found.is_empty() && told.is_disabled && told.trouble_since_ms.is_none());
    }

    #[test]
    fn a_paused_webhook_is_not_disabled() {
        let mut paused = webhook();
        paused.active = false;
        assert_eq!(kinds(&Told::default(), &seen(&paused), NOW).0, []);
    }

    #[test]
    fn a_webhook_fails_when_its_circuit_is_open_after_an_hour_and_recovers_with_a_success() {
        let webhook = webhook();
        let failing = Seen { failing_since_ms: Some(NOW), backs_off: true, ..seen(&webhook) };
        assert_eq!(kinds(&Told::default(), &failing, NOW + HOUR_MS - 1).0, []);
        assert_eq!(kinds(&Told::default(), &Seen { backs_off: false, ..failing }, NOW + HOUR_MS).0, []);
        let (found, told) = kinds(&Told::default(), &failing, NOW + HOUR_MS);
        assert_eq!(found, [EventType::WebhookFailing]);
        assert_eq!(kinds(&told, &failing, NOW + 9 * HOUR_MS).0, [], "it is told once");
        assert_eq!(kinds(&told, &seen(&webhook), NOW + 9 * HOUR_MS).0, [], "there is no success yet");
        let works = Seen { succeeded_at_ms: Some(NOW + 8 * HOUR_MS), ..seen(&webhook) };
        let (found, told) = kinds(&told, &works, NOW + 9 * HOUR_MS);
        assert_eq!(found, [EventType::WebhookRecovered]);
        assert_eq!(kinds(&told, &works, NOW + 19 * HOUR_MS).0, []);
    }

    #[test]
    fn deaths_are_told_at_most_once_in_an_hour() {
        let webhook = webhook();
        let died = |count, since_ms| Seen { died: Some(Died { count, since_ms }), ..seen(&webhook) };
        let (found, told) = kinds(&Told::default(), &died(3, NOW), NOW);
        assert_eq!(found, [EventType::DeliveryExhausted]);
        assert_eq!(kinds(&told, &died(1, NOW + 5), NOW + 5).0, []);
        assert_eq!(kinds(&told, &died(9, NOW + 5), NOW + HOUR_MS).0, [EventType::DeliveryExhausted]);
    }
}
