//! Every counter, and the one gauge that is set when its value changes.

use std::sync::OnceLock;

use super::kinds::{Counter, CounterBy, GaugeBy};
use super::labels::{ConnectionClosed, NameFailure, PauseReason, Pool, Rebalance};
use crate::delivery::{DeadReason, Dropped, FailureCode};
use crate::event::{EventType, Nothing, OPTIONAL_FIELDS};

/// Records read, by what they are.
pub static EVENTS: CounterBy = CounterBy {
    name: "optio_webhooks_events_total",
    help: "Records read, by event type, or by why no webhook can subscribe to them.",
    label: "type",
    known: || {
        let types = EventType::ALL.into_iter().map(EventType::as_str);
        let nothing = Nothing::ALL.into_iter().map(Nothing::as_str);
        types.chain(nothing).chain([DeadReason::Malformed.as_str(), DeadReason::TooLarge.as_str()]).collect()
    },
    series: OnceLock::new(),
};

/// Optional fields that became null.
pub static FIELDS_NOT_UNDERSTOOD: CounterBy = CounterBy {
    name: "optio_webhooks_fields_not_understood_total",
    help: "Optional fields of events that became null because their value could not be understood.",
    label: "field",
    known: || OPTIONAL_FIELDS.to_vec(),
    series: OnceLock::new(),
};

/// Requests that were sent again within one attempt.
pub static RESENDS: Counter = Counter {
    name: "optio_webhooks_resends_total",
    help: "Requests that were sent again over a new connection within one attempt.",
};

/// Names of hosts without an address that may be dialled.
pub static NAME_FAILURES: CounterBy = CounterBy {
    name: "optio_webhooks_name_failures_total",
    help: "Lookups of an endpoint's host that gave no address that may be dialled, by reason.",
    label: "reason",
    known: || NameFailure::ALL.into_iter().map(NameFailure::as_str).collect(),
    series: OnceLock::new(),
};

/// Deferrals, by reason.
pub static DEFERRALS: CounterBy = CounterBy {
    name: "optio_webhooks_deferrals_total",
    help: "Deliveries that went to a retry tier without an attempt, by reason.",
    label: "reason",
    known: || FailureCode::ALL.into_iter().filter(|code| code.is_deferral()).map(FailureCode::as_str).collect(),
    series: OnceLock::new(),
};

/// Deliveries that found a permit pool exhausted.
pub static POOL_EXHAUSTED: CounterBy = CounterBy {
    name: "optio_webhooks_clogged_total",
    help: "Deliveries that were deferred because a permit pool was exhausted, by pool.",
    label: "share",
    known: || Pool::ALL.into_iter().map(Pool::as_str).collect(),
    series: OnceLock::new(),
};

/// Dead letters, by reason.
pub static DEAD_LETTERS: CounterBy = CounterBy {
    name: "optio_webhooks_dead_letters_total",
    help: "Records written to the dead-letter topic, by reason.",
    label: "reason",
    known: || DeadReason::ALL.into_iter().map(DeadReason::as_str).collect(),
    series: OnceLock::new(),
};

/// Deliveries that were dropped, by reason.
pub static DROPPED: CounterBy = CounterBy {
    name: "optio_webhooks_dropped_total",
    help: "Deliveries that were dropped, by reason: the webhook is gone, or a redelivery replaces them.",
    label: "reason",
    known: || Dropped::ALL.into_iter().map(Dropped::as_str).collect(),
    series: OnceLock::new(),
};

/// Events for webhooks that this version can't read.
pub static UNSUPPORTED_EVENTS: Counter = Counter {
    name: "optio_webhooks_held_events_total",
    help: "Events that wait because this version can't read their webhook, counted for each webhook.",
};

/// Circuits that opened.
pub static CIRCUITS_OPENED: Counter =
    Counter { name: "optio_webhooks_breaker_opened_total", help: "Circuits that opened." };

/// Webhooks that were disabled.
pub static DISABLED: Counter = Counter {
    name: "optio_webhooks_disabled_total",
    help: "Webhooks that were disabled after 410 Gone, or after webhooks.disable_after without a success.",
};

/// Writes that failed and are tried again, by topic.
pub static HAND_OFF_FAILURES: CounterBy = CounterBy {
    name: "optio_webhooks_hand_off_failures_total",
    help: "Writes to a retry tier or the dead-letter topic that failed and are tried again, by topic.",
    label: "topic",
    known: Vec::new,
    series: OnceLock::new(),
};

/// Commits that failed.
pub static COMMIT_FAILURES: Counter = Counter {
    name: "optio_webhooks_commit_failures_total",
    help: "Commits of offsets that failed and are tried again.",
};

/// Rebalances, by what they did.
pub static REBALANCES: CounterBy = CounterBy {
    name: "optio_webhooks_rebalances_total",
    help: "Rebalances of this process's consumers, by what they did with the partitions.",
    label: "change",
    known: || Rebalance::ALL.into_iter().map(Rebalance::as_str).collect(),
    series: OnceLock::new(),
};

/// Partitions that were paused, by reason.
pub static PAUSES: CounterBy = CounterBy {
    name: "optio_webhooks_pauses_total",
    help: "Pauses in reading a partition, by reason.",
    label: "reason",
    known: || PauseReason::ALL.into_iter().map(PauseReason::as_str).collect(),
    series: OnceLock::new(),
};

/// Consumers that replaced one which read nothing.
pub static CONSUMERS_RENEWED: Counter = Counter {
    name: "optio_webhooks_consumers_renewed_total",
    help: "Kafka consumers that were created anew because they read nothing while their lag grew.",
};

/// Batches that Redis did not take.
pub static SETTLE_FAILURES: Counter = Counter {
    name: "optio_webhooks_settle_failures_total",
    help: "Batches of settled deliveries that Redis did not take and that are tried again.",
};

/// Producers that replaced one with a fatal error.
pub static PRODUCERS_RENEWED: Counter = Counter {
    name: "optio_webhooks_producers_renewed_total",
    help: "Kafka producers that were created anew after a fatal error.",
};

/// Connections to Redis that were replaced.
pub static REDIS_RECONNECTS: Counter = Counter {
    name: "optio_webhooks_redis_reconnects_total",
    help: "Connections to Redis that did not answer and were replaced.",
};

/// Keys of Redis that refused a write.
pub static SETTLE_REFUSED: Counter = Counter {
    name: "optio_webhooks_settle_refused_total",
    help: "Keys of Redis that refused what was to be recorded, counted for each batch.",
};

/// Panics that were contained.
pub static PANICS: Counter = Counter {
    name: "optio_webhooks_panics_total",
    help: "Panics while a record or a delivery was handled. Each one was contained.",
};

/// Connections to the admin server that were closed before they ended by themselves.
pub static ADMIN_CONNECTIONS_CLOSED: CounterBy = CounterBy {
    name: "optio_webhooks_admin_connections_closed_total",
    help: "Connections to the admin server that were closed for new ones or because they took too long, by reason.",
    label: "reason",
    known: || ConnectionClosed::ALL.into_iter().map(ConnectionClosed::as_str).collect(),
    series: OnceLock::new(),
};

/// Entries that the audit log lacks.
pub static AUDIT_MISSING: Counter =
    Counter { name: "optio_webhooks_audit_missing_total", help: "Entries of the audit log that Redis did not take." };

/// Wrong tokens.
pub static SIGN_IN_FAILURES: Counter = Counter {
    name: "optio_webhooks_admin_sign_in_failures_total",
    help: "Wrong tokens at the sign-in and in bearer tokens.",
};

/// Conditions that keep this process from a part of its work.
pub static CONDITION: GaugeBy = GaugeBy {
    name: "optio_webhooks_condition",
    help: "1 while a condition keeps this process from a part of its work, else 0.",
    label: "condition",
};

/// The counters without labels.
pub(super) static COUNTERS: [&Counter; 13] = [
    &RESENDS,
    &UNSUPPORTED_EVENTS,
    &CIRCUITS_OPENED,
    &DISABLED,
    &COMMIT_FAILURES,
    &PRODUCERS_RENEWED,
    &CONSUMERS_RENEWED,
    &SETTLE_FAILURES,
    &REDIS_RECONNECTS,
    &SETTLE_REFUSED,
    &PANICS,
    &SIGN_IN_FAILURES,
    &AUDIT_MISSING,
];

/// The counters with a label.
pub(super) static COUNTERS_BY: [&CounterBy; 11] = [
    &EVENTS,
    &FIELDS_NOT_UNDERSTOOD,
    &NAME_FAILURES,
    &DEFERRALS,
    &POOL_EXHAUSTED,
    &DEAD_LETTERS,
    &DROPPED,
    &HAND_OFF_FAILURES,
    &REBALANCES,
    &PAUSES,
    &ADMIN_CONNECTIONS_CLOSED,
];
