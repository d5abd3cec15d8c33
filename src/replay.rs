//! Replay sends dead letters again. Rewind sends past events from `task-events` again, to one webhook.
//!
//! Both write to the replay topic, which the worker consumes like retries that are due. A record in that topic names
//! the record that it replays, so it is also the mark that this record was replayed. Writing and marking are one step,
//! and cannot disagree after a crash.

pub(crate) mod backwards;
pub mod browse;
pub mod choice;
pub(crate) mod copying;
pub(crate) mod dead_letters;
pub(crate) mod letter;
pub(crate) mod missed;
pub mod moment;
pub(crate) mod origin;
pub mod recent;
pub(crate) mod replay_marks;
pub(crate) mod rewind;
pub(crate) mod scan;
pub(crate) mod session;
pub(crate) mod summary;
pub(crate) mod tail;
pub mod writer;

use std::num::NonZeroU32;

use tokio_util::sync::CancellationToken;

/// The options of a replay or a rewind.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// The largest number of deliveries to replay. None for no limit.
    pub limit: Option<u64>,
    /// The largest number of deliveries per second. None for no limit.
    pub rate: Option<NonZeroU32>,
    /// Whether to replay what was already replayed.
    pub again: bool,
    /// Whether to count only, and write nothing.
    pub dry_run: bool,
}

/// The progress of a replay or a rewind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether the marks of earlier replays are still being read. Nothing else has started then.
    pub reading_marks: bool,
    /// The number of offsets that were read.
    pub read: u64,
    /// The number of offsets to read.
    pub total: u64,
    /// The number of deliveries that were replayed, or would be in a dry run.
    pub replayed: u64,
}

/// The connections of a running replay to its caller.
pub struct Watch<'a> {
    /// Receives the progress regularly, on the thread that replays.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Ends the replay after the current batch.
    pub stop: &'a CancellationToken,
    /// Called before each batch. Returns an error if another replay may have started, and the replay then ends.
    pub still_ours: &'a dyn Fn() -> anyhow::Result<()>,
}
