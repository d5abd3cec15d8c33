//! The loop of a replay and of a rewind: read a topic, select records, write them to the replay topic.

use rdkafka::message::BorrowedMessage;

use super::scan::Scan;
use super::summary::{Group, Summary};
use super::writer::{Outgoing, Writer};
use super::{Manner, Progress, Watch};
use crate::config::Config;

/// The number of records between two progress reports.
const PROGRESS_EVERY: u64 = 1_000;

/// Selects records, and writes what replays them.
pub(super) trait Selector {
    /// A selected record, decoded.
    type Item;

    /// The selected record and its group. For a record that is not selected, it counts the reason in `summary`.
    fn select(&self, record: &BorrowedMessage<'_>, summary: &mut Summary) -> Option<(Group, Self::Item)>;

    /// Passes the record of the replay topic to `write`. Returns false if there is none, because the selected record is
    /// damaged.
    ///
    /// # Errors
    /// Returns the error of `write`.
    fn write(
        &self,
        record: &BorrowedMessage<'_>,
        item: &Self::Item,
        write: &mut dyn FnMut(Outgoing<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool>;
}

/// Copies what `selector` selects. Blocks the calling thread.
///
/// # Errors
/// Fails if Kafka refuses a record, or if [`Watch::still_ours`] returns an error.
pub(super) fn copy<S: Selector>(
    config: &Config,
    mut scan: Scan,
    selector: &S,
    manner: &Manner,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let mut writer = if manner.dry_run { None } else { Some(Writer::new(config, manner.rate)?) };
    let total = scan.total();
    let mut replayed = 0;
    while manner.limit.is_none_or(|limit| replayed < limit) {
        let Some(record) = scan.next(watch.stop)? else { break };
        summary.looked_at += 1;
        if let Some((group, item)) = selector.select(&record, &mut summary) {
            let is_written = match &mut writer {
                None => true,
                Some(writer) => {
                    if writer.is_between_batches() {
                        (watch.still_ours)()?;
                    }
                    selector.write(&record, &item, &mut |outgoing| writer.write(outgoing, watch.stop))?
                }
            };
            if is_written {
                summary.count(group);
                replayed += 1;
            } else {
                summary.foreign += 1;
            }
        }
        if summary.looked_at % PROGRESS_EVERY == 0 || manner.rate.is_some() {
            (watch.progress)(Progress { reading_marks: false, read: scan.read(), total, replayed });
        }
    }
    if let Some(writer) = &mut writer {
        writer.flush()?;
    }
    summary.interrupted = watch.stop.is_cancelled();
    (watch.progress)(Progress { reading_marks: false, read: scan.read(), total, replayed });
    Ok(summary)
}
