//! The names of record headers. `docs/reference.md`, section "Record headers", says which records have which.

/// The delivery id, a UUID.
pub const DELIVERY_ID: &str = "optio-delivery-id";
/// The webhook id, a UUID.
pub const WEBHOOK_ID: &str = "optio-webhook-id";
/// The event type.
pub const EVENT: &str = "optio-event";
/// The event's identity.
pub const EVENT_ID: &str = "optio-event-id";
/// The task id.
pub const TASK_ID: &str = "optio-task-id";
/// The number of attempts made so far.
pub const ATTEMPTS: &str = "optio-attempts";
/// The number of deferrals so far.
pub const DEFERRALS: &str = "optio-deferrals";
/// When the delivery is due, in Unix milliseconds.
pub const DUE_AT: &str = "optio-due-at";
/// When the event was first seen, in Unix milliseconds.
pub const FIRST_SEEN_AT: &str = "optio-first-seen-at";
/// The failure code of the last attempt or deferral.
pub const LAST_ERROR: &str = "optio-last-error";
/// The HTTP status of the last attempt.
pub const LAST_STATUS: &str = "optio-last-status";
/// The topic that the event was first read from.
pub const SOURCE_TOPIC: &str = "optio-source-topic";
/// The partition that the event was first read from.
pub const SOURCE_PARTITION: &str = "optio-source-partition";
/// The offset that the event was first read from.
pub const SOURCE_OFFSET: &str = "optio-source-offset";
/// The timestamp of a record that could not be decoded, in Unix milliseconds: an event without a time takes it.
pub const SOURCE_TIMESTAMP: &str = "optio-source-timestamp";
/// How often the delivery was replayed; absent for never.
pub const REPLAYS: &str = "optio-replays";
/// `true` on a redelivery until its first attempt: it is not deferred because its endpoint backs off.
pub const BY_HAND: &str = "optio-by-hand";
/// On a replay or a rewind: the record that is sent again.
pub const REPLAY_OF: &str = "optio-replay-of";
/// On a replayed record that could not be decoded: it goes through the decoder again.
pub const REPLAY_UNREAD: &str = "optio-replay-unread";
/// Why the delivery is a dead letter.
pub const DEAD_REASON: &str = "optio-dead-reason";
/// A sentence for people, of at most 300 characters.
pub const DEAD_DETAIL: &str = "optio-dead-detail";
/// When it became a dead letter, in Unix milliseconds.
pub const DEAD_AT: &str = "optio-dead-at";
/// On a dead letter that did not fit into its topic: how many bytes its value had.
pub const SHORTENED_FROM: &str = "optio-shortened-from";
/// The W3C trace context of the event.
pub const TRACEPARENT: &str = "traceparent";
