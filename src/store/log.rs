//! The delivery log: each attempt in its webhook's stream, bounded by count and age.

use std::time::Duration;

use super::Keys;
use crate::clock::millis;
use crate::config;
use crate::webhook::WebhookId;

pub use entry::{Entry, Logged, Shown};
pub use entry_id::EntryId;
pub use read::{DeliveryLog, Filter, Page};

mod entry;
mod entry_id;
mod read;

/// Characters of an answer's body that the log keeps (contract section 7).
pub const RESPONSE_BODY_MAX: usize = 2_000;
/// How often a webhook's log is cut by age; it lives that much longer.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// Adds an entry; the answer is its id.
pub fn append(
    pipe: &mut redis::Pipeline,
    keys: &Keys,
    webhook: WebhookId,
    meta: &[u8],
    payload: &[u8],
    log: &config::Log,
) {
    pipe.cmd("XADD").arg(keys.log(webhook)).arg("MAXLEN").arg("~").arg(log.entries_max);
    pipe.arg("*").arg("meta").arg(meta).arg("payload").arg(payload);
}

/// Lets the log go with the last of it. With each batch: the webhook may have been deleted meanwhile, its log with it,
/// and what comes after that must not stay for ever. No answer.
pub fn expire(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, log: &config::Log) {
    pipe.cmd("PEXPIRE").arg(keys.log(webhook)).arg(lasts_ms(log)).ignore();
}

/// How long a log stays after its last entry, in milliseconds.
#[must_use]
pub fn lasts_ms(log: &config::Log) -> i64 {
    millis(log.age_max + TRIM_INTERVAL)
}

/// Entries from before this are too old, Unix milliseconds.
#[must_use]
pub fn oldest_ms(log: &config::Log, now_ms: i64) -> i64 {
    (now_ms - millis(log.age_max)).max(0)
}

/// Cuts what is too old. No answer.
pub fn trim(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, now_ms: i64, log: &config::Log) {
    pipe.cmd("XTRIM").arg(keys.log(webhook)).arg("MINID").arg("~").arg(oldest_ms(log, now_ms)).ignore();
}
