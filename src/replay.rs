//! Back into delivery: dead letters that are replayed, and the past of the events' topic told to one webhook.
//!
//! Both are written to the replay topic, from where the worker takes them like retries that are due. A record there
//! says what it is a replay of, and so is its own mark: what was replayed is read from that topic, and writing and
//! marking can't come apart.

pub mod backwards;
pub mod browse;
pub mod choice;
pub mod dead_letters;
pub mod from_log;
pub mod letter;
pub mod marks;
pub mod moment;
pub mod origin;
pub mod scan;
pub mod session;
pub mod writer;

use std::num::NonZeroU32;

use tokio_util::sync::CancellationToken;

/// How a replay goes, whatever is replayed.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// No more than this many.
    pub limit: Option<u64>,
    /// No more than this many a second.
    pub rate: Option<NonZeroU32>,
    /// What was replayed before goes as well.
    pub again: bool,
    /// Nothing is written: only counted.
    pub dry_run: bool,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Earlier replays are being read; nothing else has begun.
    pub reading_marks: bool,
    /// Offsets that were looked at.
    pub read: u64,
    /// Offsets to look at.
    pub total: u64,
    /// Deliveries put back, or that would be.
    pub replayed: u64,
}

/// Who watches a replay, and may end it.
pub struct Watch<'a> {
    /// Told now and then, from the thread that replays.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Ends it after the batch that is on its way.
    pub stop: &'a CancellationToken,
    /// Called before each batch: whether this is still the one replay that runs.
    pub still_ours: &'a dyn Fn() -> anyhow::Result<()>,
}
