//! Every histogram. All of them measure seconds.

use super::kinds::Histogram;

/// The bounds for one request, in seconds. The longest `delivery.timeout` is five minutes.
const REQUEST_S: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The bounds for a write to Kafka or Redis, in seconds.
const WRITE_S: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The bounds for the delay of a delivery, in seconds. The default retry schedule ends after more than a day.
const DELAY_S: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0,
    86_400.0, 259_200.0,
];

/// The duration of attempts that succeeded.
pub static DELIVERED_DURATION: Histogram = Histogram::new(
    "optio_webhooks_delivered_attempt_duration_seconds",
    "Time from the start of a successful attempt to the end of its answer.",
    REQUEST_S,
);

/// The duration of attempts that failed.
pub static FAILED_DURATION: Histogram = Histogram::new(
    "optio_webhooks_failed_attempt_duration_seconds",
    "Time from the start of a failed attempt to its failure.",
    REQUEST_S,
);

/// The delay of first attempts.
pub static FIRST_ATTEMPT_DELAY: Histogram = Histogram::new(
    "optio_webhooks_first_attempt_delay_seconds",
    "Time from the timestamp of an event's record to the start of the first attempt.",
    DELAY_S,
);

/// The delay of deliveries.
pub static DELIVERY_DELAY: Histogram = Histogram::new(
    "optio_webhooks_delivery_delay_seconds",
    "Time from the timestamp of an event's record to the end of the attempt that delivered it.",
    DELAY_S,
);

/// The duration of hand-offs.
pub static HAND_OFF_DURATION: Histogram = Histogram::new(
    "optio_webhooks_hand_off_duration_seconds",
    "Time from the start of a write to a retry tier or the dead-letter topic until it is durable.",
    WRITE_S,
);

/// The duration of batches to Redis.
pub static SETTLE_DURATION: Histogram = Histogram::new(
    "optio_webhooks_settle_duration_seconds",
    "Time that Redis took for a batch of settled deliveries.",
    WRITE_S,
);

/// The duration of commits.
pub static COMMIT_DURATION: Histogram =
    Histogram::new("optio_webhooks_commit_duration_seconds", "Time that the broker took for a commit.", WRITE_S);

/// All of them.
pub(super) static HISTOGRAMS: [&Histogram; 7] = [
    &DELIVERED_DURATION,
    &FAILED_DURATION,
    &FIRST_ATTEMPT_DELAY,
    &DELIVERY_DELAY,
    &HAND_OFF_DURATION,
    &SETTLE_DURATION,
    &COMMIT_DURATION,
];
