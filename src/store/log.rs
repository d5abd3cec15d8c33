//! The delivery log: one Redis stream of attempts for each webhook, bounded by count and age.

use std::time::Duration;

use super::Keys;
use crate::clock::millis;
use crate::config;
use crate::webhook::WebhookId;

pub use entry::{LogEntry, Logged, LoggedAttempt};
pub use entry_id::EntryId;
pub use read::{DeliveryLog, Filter, LogPage};

mod entry;
mod entry_id;
pub mod packed;
mod read;

/// The number of characters of a response body that the log keeps.
pub const RESPONSE_BODY_MAX: usize = 2_000;
/// The interval at which the log of a webhook is trimmed by age. The whole log also expires this much later.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// Adds a command that appends an entry, from [`Logged::packed`]. Its answer is the id of the entry.
pub fn append(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, packed: &[u8], log: &config::Log) {
    pipe.cmd("XADD").arg(keys.log(webhook)).arg("MAXLEN").arg("~").arg(log.entries_max);
    pipe.arg("*").arg("packed").arg(packed);
}

/// Adds a command that lets the log expire after its last entry. Its answer is ignored.
///
/// Each batch needs it: the webhook and its log may have been deleted meanwhile, and then the entries of this batch
/// would stay forever.
pub fn expire(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, log: &config::Log) {
    pipe.cmd("PEXPIRE").arg(keys.log(webhook)).arg(expire_ms(log)).ignore();
}

/// The time from the last entry of a log until the log expires, in milliseconds.
#[must_use]
pub fn expire_ms(log: &config::Log) -> i64 {
    millis(log.age_max + TRIM_INTERVAL)
}

/// The time before which entries are too old, in Unix milliseconds.
#[must_use]
pub fn oldest_ms(log: &config::Log, now_ms: i64) -> i64 {
    (now_ms - millis(log.age_max)).max(0)
}

/// Adds a command that removes entries that are too old. Its answer is ignored.
pub fn trim(pipe: &mut redis::Pipeline, keys: &Keys, webhook: WebhookId, now_ms: i64, log: &config::Log) {
    pipe.cmd("XTRIM").arg(keys.log(webhook)).arg("MINID").arg("~").arg(oldest_ms(log, now_ms)).ignore();
}
