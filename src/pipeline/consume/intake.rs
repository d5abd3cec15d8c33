//! What a poll thread makes of its records: events are decoded, retries wait until they are due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _, OwnedHeaders};

use super::Assigned;
use crate::config::Config;
use crate::delivery::{DeadReason, Delivery, Source, now_ms};
use crate::event::{Decoded, Limits, Position, Undecodable, decode};
use crate::pipeline::partition::Receipt;
use crate::pipeline::window::Window;
use crate::pipeline::{Batch, Incoming, Unreadable};
use crate::record::{self, LastError, UnreadOrigin};
use crate::schedule::Schedule;
use crate::topics::Names;

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

type Waiting = (Box<Delivery>, LastError, Arc<Receipt>);

/// The windows of the tiers' partitions, and of the replays'.
pub struct Retries {
    names: Names,
    schedule: Schedule,
    window_max: usize,
    limits: Limits,
    /// By the assignment's address; the entry keeps the assignment, so that no other can have it.
    windows: HashMap<usize, (Assigned, Window<Waiting>)>,
    /// Which window is served first; moves on, so that one with very much that is due doesn't hold up the others.
    turn: usize,
}

impl Retries {
    /// For the tiers of these settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            names: Names::new(config),
            schedule: Schedule::new(&config.delivery),
            window_max: config.delivery.retry.window_max,
            limits: Limits::new(config),
            windows: HashMap::new(),
            turn: 0,
        }
    }

    /// A replayed record that couldn't be read: through the decoder that it came to first, again.
    fn unread(&mut self, message: &BorrowedMessage<'_>, partition: &Assigned) -> Incoming {
        let Some(origin) = record::unread_origin(message.headers()) else {
            let detail = "a replay that doesn't say where it comes from".to_owned();
            return unreadable(message, here(message, partition), DeadReason::Malformed, detail);
        };
        if !self.names.is_waiting(&origin.source.topic) {
            return transition(message, origin, self.limits);
        }
        let headers = record::untouched(message.headers());
        match record::delivery(message.payload().unwrap_or_default(), Some(headers.as_borrowed())) {
            Ok((delivery, last)) => Incoming::Due { delivery: Box::new(delivery), last },
            Err(error) => unreadable(message, origin, DeadReason::Malformed, error.to_string()),
        }
    }

    fn window(&mut self, partition: &Assigned) -> &mut Window<Waiting> {
        let (names, schedule, window_max) = (&self.names, &self.schedule, self.window_max);
        let (_, window) = self.windows.entry(Arc::as_ptr(partition).addr()).or_insert_with(|| {
            // A tier that the settings don't know any more may hold anything: nothing is assumed of it.
            let shortest = names.tier_of(&partition.topic).and_then(|tier| schedule.shortest(tier)).unwrap_or_default();
            (partition.clone(), Window::new(window_max, shortest))
        });
        window
    }
}

impl Intake {
    /// How long a poll may wait.
    pub(super) fn wait(&self, longest: Duration) -> Duration {
        let Self::Retries(retries) = self else { return longest };
        let next = retries.windows.values().filter_map(|(_, window)| window.next_due_ms()).min();
        next.map_or(longest, |due| Duration::from_millis(u64::try_from(due - now_ms()).unwrap_or(0)).min(longest))
    }

    /// A record was read.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>, partition: &Assigned, ready: &mut Batch) {
        let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
        let Some(receipt) = partition.open(message.offset(), timestamp_ms) else { return };
        match self {
            Self::Events { limits } => {
                ready.push((transition(message, here(message, partition), *limits), receipt));
            }
            Self::Retries(retries) if record::is_replay_of_unread(message.headers()) => {
                ready.push((retries.unread(message, partition), receipt));
            }
            Self::Retries(retries) => match record::read(message.payload().unwrap_or_default(), message.headers()) {
                Ok((delivery, due_at_ms, last)) => {
                    let window = retries.window(partition);
                    window.insert(due_at_ms, message.offset(), timestamp_ms, (Box::new(delivery), last, receipt));
                }
                Err(error) => ready.push((
                    unreadable(message, here(message, partition), DeadReason::Malformed, error.to_string()),
                    receipt,
                )),
            },
        }
    }

    /// Moves what is due, and what is too far off, to `ready`, as long as that has fewer than `max`.
    pub(super) fn release(&mut self, max: usize, ready: &mut Batch) {
        let Self::Retries(retries) = self else { return };
        let now = now_ms();
        let mut windows: Vec<&mut Window<Waiting>> =
            retries.windows.values_mut().map(|(_, window)| window).filter(|window| !window.is_empty()).collect();
        if windows.is_empty() {
            return;
        }
        // Equal shares first, then whatever is left to whoever has more.
        let count = windows.len();
        windows.rotate_left(retries.turn % count);
        retries.turn = retries.turn.wrapping_add(1);
        for share in [max.div_ceil(count), max] {
            for window in &mut windows {
                let max = max.min(ready.len() + share);
                while ready.len() < max {
                    let Some((delivery, last, receipt)) = window.pop_due(now) else { break };
                    ready.push((Incoming::Due { delivery, last }, receipt));
                }
                while ready.len() < max {
                    let Some((due_at_ms, (delivery, last, receipt))) = window.pop_far(now) else { break };
                    ready.push((Incoming::Far { delivery, last, due_at_ms }, receipt));
                }
            }
        }
    }

    /// Whether a partition may not read on.
    pub(super) fn is_full(&self, partition: &Assigned) -> bool {
        let Self::Retries(retries) = self else { return false };
        retries.windows.get(&Arc::as_ptr(partition).addr()).is_some_and(|(_, window)| window.is_full())
    }

    /// Forgets what waits of partitions that aren't ours any more.
    pub(super) fn forget_closed(&mut self) {
        if let Self::Retries(retries) = self {
            retries.windows.retain(|_, (partition, _)| !partition.is_closed());
        }
    }
}

fn traceparent(message: &BorrowedMessage<'_>) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == "traceparent")?;
    std::str::from_utf8(header.value?).ok().map(str::to_owned)
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
            Incoming::Event { event, traceparent: traceparent(message), source, replays }
        }
        Ok(Decoded::Nothing(_)) => Incoming::Nothing,
        Err(error @ Undecodable::Malformed(_)) => unreadable(message, origin, DeadReason::Malformed, error.to_string()),
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

fn unreadable(message: &BorrowedMessage<'_>, origin: UnreadOrigin, reason: DeadReason, detail: String) -> Incoming {
    Incoming::Unreadable(Box::new(Unreadable {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        // What is replayed has ours behind its own.
        headers: if record::is_replay_of_unread(message.headers()) {
            record::untouched(message.headers())
        } else {
            message.headers().map_or_else(OwnedHeaders::new, rdkafka::message::BorrowedHeaders::detach)
        },
        origin,
        reason,
        detail,
    }))
}
