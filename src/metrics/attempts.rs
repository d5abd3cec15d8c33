//! The counter of attempts: by event type, outcome, and class of the answer's status.

use std::sync::OnceLock;

use super::histograms::{DELIVERED_DURATION, DELIVERY_DELAY, FAILED_DURATION, FIRST_ATTEMPT_DELAY};
use crate::delivery::{Attempt, Delivery, FailureCode};
use crate::event::EventType;

pub(super) const NAME: &str = "optio_webhooks_attempts_total";
pub(super) const HELP: &str =
    "Attempts, by event type, by outcome (delivered, or a failure code), and by class of the answer's status.";

/// The value of `outcome` for an attempt that succeeded.
const DELIVERED: &str = "delivered";

/// The values of `status`. `none` means that no answer came.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

const EVENTS: usize = EventType::ALL.len();
const OUTCOMES: usize = FailureCode::ALL.len() + 1;

/// The series, looked up once each: a lookup costs more than an increment.
static SERIES: [OnceLock<::metrics::Counter>; EVENTS * OUTCOMES * CLASSES.len()] =
    [const { OnceLock::new() }; EVENTS * OUTCOMES * CLASSES.len()];

fn class(status: Option<u16>) -> usize {
    match status {
        Some(status @ 100..=599) => usize::from(status / 100),
        _ => 0,
    }
}

fn series(event: EventType, failure: Option<FailureCode>, class: usize) -> &'static ::metrics::Counter {
    let outcome = failure.map_or(0, |code| code as usize + 1);
    SERIES[(event as usize * OUTCOMES + outcome) * CLASSES.len() + class].get_or_init(|| {
        let outcome = failure.map_or(DELIVERED, FailureCode::as_str);
        ::metrics::counter!(NAME, "event" => event.as_str(), "outcome" => outcome, "status" => CLASSES[class])
    })
}

/// Counts an attempt, its duration, and the delay of its delivery. A replay counts as an attempt, but its delay says
/// nothing about this process.
pub fn count(delivery: &Delivery, attempt: &Attempt) {
    series(delivery.event_type, attempt.failure, class(attempt.status)).increment(1);
    let is_delivered = attempt.failure.is_none();
    if is_delivered { &DELIVERED_DURATION } else { &FAILED_DURATION }.observe(attempt.duration);
    if delivery.replays > 0 {
        return;
    }
    let took_ms = i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX);
    if delivery.attempts == 0 {
        FIRST_ATTEMPT_DELAY.observe_between(delivery.first_seen_at_ms, attempt.ended_at_ms.saturating_sub(took_ms));
    }
    if is_delivered {
        DELIVERY_DELAY.observe_between(delivery.first_seen_at_ms, attempt.ended_at_ms);
    }
}

/// Starts the usual series at 0. The others appear when they are first counted.
pub(super) fn begin() {
    ::metrics::describe_counter!(NAME, HELP);
    for event in EventType::ALL {
        series(event, None, class(Some(200))).increment(0);
        series(event, Some(FailureCode::Status), class(Some(500))).increment(0);
        for code in [FailureCode::Timeout, FailureCode::Dns, FailureCode::Connect, FailureCode::Tls] {
            series(event, Some(code), class(None)).increment(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_class() {
        let classes = [None, Some(0), Some(100), Some(204), Some(302), Some(404), Some(599), Some(600), Some(999)];
        assert_eq!(
            classes.map(|status| CLASSES[class(status)]),
            ["none", "none", "1xx", "2xx", "3xx", "4xx", "5xx", "none", "none"]
        );
    }

    #[test]
    fn no_two_combinations_share_a_series() {
        for (at, event) in EventType::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, at);
        }
        for (at, code) in FailureCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, at);
        }
    }
}
