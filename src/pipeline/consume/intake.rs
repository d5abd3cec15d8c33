//! What a poll thread makes of its records: events are decoded, retries wait until they are due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, OwnedHeaders};

use super::Assigned;
use crate::config::Config;
use crate::delivery::{DeadReason, Delivery, Source, now_ms};
use crate::event::{Decoded, Limits, Position, Undecodable, decode};
use crate::pipeline::partition::Receipt;
use crate::pipeline::window::{Window, bytes_part};
use crate::pipeline::{Batch, Incoming, Unreadable, panics};
use crate::record::{self, LastError, UnreadOrigin};
use crate::topics::{self, Names};

/// What kind of records a thread reads.
pub enum Intake {
    /// Task transitions.
    Events {
        /// `events.bytes_max`, `delivery.payload_max`
        limits: Limits,
    },
    /// Retry tiers.
    Retries(Retries),
}

type Waiting = (Arc<Delivery>, LastError, Arc<Receipt>);

/// What one record turns out to be.
enum Read {
    /// It goes on at once.
    Ready(Incoming),
    /// It waits until it is due, Unix milliseconds.
    Waits(Box<Delivery>, i64, LastError),
}

/// The windows of the tiers' partitions, and of the replays'.
pub struct Retries {
    config: Arc<Config>,
    names: Names,
    limits: Limits,
    /// By the assignment's address; the entry keeps the assignment, so that no other can have it.
    windows: HashMap<usize, (Assigned, Window<Waiting>)>,
    /// Which window is served first; moves on, so that one with very much that is due doesn't hold up the others.
    turn: usize,
}

/// Bytes that a waiting delivery takes beside its body.
const DELIVERY_BYTES: usize = 512;

impl Retries {
    /// For the tiers of these settings.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Self {
        let names = Names::new(config);
        Self { names, limits: Limits::new(config), config: config.clone(), windows: HashMap::new(), turn: 0 }
    }

    fn read(&self, message: &BorrowedMessage<'_>, partition: &Assigned) -> Read {
        if record::is_replay_of_unread(message.headers()) {
            return Read::Ready(self.unread(message, partition));
        }
        match record::read(message.payload(), message.headers()) {
            Ok((delivery, due_at_ms, last)) => Read::Waits(Box::new(delivery), due_at_ms, last),
            Err(error) => Read::Ready(malformed(message, here(message, partition), error.to_string())),
        }
    }

    /// A replayed record that couldn't be read: through the decoder that it came to first, again.
    fn unread(&self, message: &BorrowedMessage<'_>, partition: &Assigned) -> Incoming {
        let Some(origin) = record::unread_origin(message.headers()) else {
            return malformed(message, here(message, partition), "a replay that doesn't say where it comes from");
        };
        if !self.names.is_waiting(&origin.source.topic) {
            return transition(message, origin, self.limits);
        }
        let headers = record::untouched(message.headers());
        match record::delivery(message.payload(), Some(headers.as_borrowed())) {
            Ok((delivery, last)) => Incoming::Due { delivery: Arc::new(delivery), last },
            Err(error) => malformed(message, origin, error.to_string()),
        }
    }

    fn window(&mut self, partition: &Assigned) -> &mut Window<Waiting> {
        let (names, config) = (&self.names, &self.config);
        let (_, window) = self.windows.entry(Arc::as_ptr(partition).addr()).or_insert_with(|| {
            let waits = topics::waits(config, names.tier_of(&partition.topic));
            (partition.clone(), Window::new(config.delivery.retry.window_max, waits))
        });
        window
    }

    /// Bytes that a window may hold now which holds `own`.
    fn bytes_part(&self, own: usize) -> usize {
        let held = self.windows.values().map(|(_, window)| window.bytes()).sum();
        bytes_part(self.config.worker.waiting_bytes_max, self.windows.len(), held, own)
    }
}

impl Intake {
    /// How long a poll may wait.
    pub(super) fn wait(&self, longest: Duration) -> Duration {
        let Self::Retries(retries) = self else { return longest };
        let next = retries.windows.values().filter_map(|(_, window)| window.next_due_ms()).min();
        let left = |due: i64| Duration::from_millis(u64::try_from(due.saturating_sub(now_ms())).unwrap_or(0));
        next.map_or(longest, |due| left(due).min(longest))
    }

    /// A record was read. Nothing that stands in it can stop the thread: what panics twice is malformed.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>, partition: &Assigned, ready: &mut Batch) {
        let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
        let Some(receipt) = partition.open(message.offset(), timestamp_ms) else { return };
        let read = panics::twice(|| match self {
            Self::Events { limits } => Read::Ready(transition(message, here(message, partition), *limits)),
            Self::Retries(retries) => retries.read(message, partition),
        });
        match (read, self) {
            (Ok(Read::Ready(incoming)), _) => ready.push(incoming, receipt),
            (Ok(Read::Waits(delivery, due_at_ms, last)), Self::Retries(retries)) => {
                let bytes = delivery.body.len() + DELIVERY_BYTES;
                let waiting = (Arc::from(delivery), last, receipt);
                let window = retries.window(partition);
                window.insert(due_at_ms, message.offset(), timestamp_ms, now_ms(), bytes, waiting);
            }
            (Ok(Read::Waits(..)) | Err(panics::Panicked), _) => {
                ready.push(malformed(message, here(message, partition), panics::DETAIL), receipt);
            }
        }
    }

    /// Moves what is due, and what is too far off, to `ready`, as long as that has room. `open_offsets_max` is the number of
    /// open offsets at which a partition stops reading: before that, long waits below the others are moved on as well.
    pub(super) fn release(&mut self, open_offsets_max: usize, ready: &mut Batch) {
        let Self::Retries(retries) = self else { return };
        let now = now_ms();
        let count = retries.windows.values().filter(|(_, window)| !window.is_empty()).count();
        if count == 0 {
            return;
        }
        let held: usize = retries.windows.values().map(|(_, window)| window.bytes()).sum();
        let (all, bytes_max) = (retries.windows.len(), retries.config.worker.waiting_bytes_max);
        let mut windows: Vec<&mut (Assigned, Window<Waiting>)> =
            retries.windows.values_mut().filter(|(_, window)| !window.is_empty()).collect();
        // Equal shares first, then whatever is left to whoever has more.
        windows.rotate_left(retries.turn % count);
        retries.turn = retries.turn.wrapping_add(1);
        let max = super::super::BATCH_MAX;
        for share in [max.div_ceil(count), max] {
            for (partition, window) in &mut windows {
                let max = max.min(ready.len() + share);
                while ready.len() < max && !ready.is_full() {
                    let Some((delivery, last, receipt)) = window.pop_due(now) else { break };
                    ready.push(Incoming::Due { delivery, last }, receipt);
                }
                let part = bytes_part(bytes_max, all, held, window.bytes());
                let half = half_open(partition, open_offsets_max);
                while ready.len() < max && !ready.is_full() {
                    let blocking = half.and_then(|half| window.pop_blocking(now, half));
                    let Some((due_at_ms, (delivery, last, receipt))) = blocking.or_else(|| window.pop_far(now, part))
                    else {
                        break;
                    };
                    ready.push(Incoming::Far { delivery, last, due_at_ms }, receipt);
                }
            }
        }
    }

    /// Whether a partition may not read on.
    pub(super) fn is_full(&self, partition: &Assigned) -> bool {
        let Self::Retries(retries) = self else { return false };
        let window = retries.windows.get(&Arc::as_ptr(partition).addr());
        window.is_some_and(|(_, window)| window.is_full(retries.bytes_part(window.bytes())))
    }

    /// Forgets what waits of partitions that aren't ours any more.
    pub(super) fn forget_closed(&mut self) {
        if let Self::Retries(retries) = self {
            retries.windows.retain(|_, (partition, _)| !partition.is_closed());
        }
    }
}

/// The middle of a partition's open offsets, once there are half as many as stop it.
fn half_open(partition: &Assigned, open_offsets_max: usize) -> Option<i64> {
    if partition.open_offsets() < open_offsets_max / 2 {
        return None;
    }
    partition.span().map(|(low, end)| low + (end - low) / 2 + 1)
}

/// A task transition, as it came now or, replayed, from `origin`.
fn transition(message: &BorrowedMessage<'_>, origin: UnreadOrigin, limits: Limits) -> Incoming {
    let UnreadOrigin { source, timestamp_ms, replays } = &origin;
    let at = Position {
        topic: &source.topic,
        partition: source.partition,
        offset: source.offset,
        timestamp_ms: *timestamp_ms,
    };
    match decode(message.payload(), at, limits) {
        Ok(Decoded::Event(event)) => {
            let (source, replays) = (source.clone(), *replays);
            Incoming::Event {
                event: Arc::new(event),
                traceparent: record::traceparent(message.headers()),
                source,
                replays,
            }
        }
        Ok(Decoded::Nothing(why)) => Incoming::Nothing(why),
        Err(Undecodable::Malformed(detail)) => malformed(message, origin, detail),
        Err(error @ Undecodable::TooLarge { .. }) => {
            unreadable(message, origin, DeadReason::TooLarge, error.to_string())
        }
    }
}

/// Where a record stands that comes for the first time.
fn here(message: &BorrowedMessage<'_>, partition: &Assigned) -> UnreadOrigin {
    UnreadOrigin {
        source: Source { topic: partition.topic.clone(), partition: partition.number, offset: message.offset() },
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        replays: 0,
    }
}

fn malformed(message: &BorrowedMessage<'_>, origin: UnreadOrigin, detail: impl Into<String>) -> Incoming {
    unreadable(message, origin, DeadReason::Malformed, detail.into())
}

fn unreadable(message: &BorrowedMessage<'_>, origin: UnreadOrigin, reason: DeadReason, detail: String) -> Incoming {
    Incoming::Unreadable(Arc::new(Unreadable {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        // What is replayed has ours behind its own.
        headers: if record::is_replay_of_unread(message.headers()) {
            record::untouched(message.headers())
        } else {
            message.headers().map_or_else(OwnedHeaders::new, BorrowedHeaders::detach)
        },
        origin,
        reason,
        detail,
    }))
}
