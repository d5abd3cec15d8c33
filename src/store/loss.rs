//! Whether a store that a webhook was just added to has lost its others, as far as anyone knows.

use std::time::Duration;

use super::reading::REMEDY;
use super::reports::Reports;
use super::webhooks::Added;
use crate::kafka::group::Commits;

/// How long Kafka may take to say whether anything was delivered before.
const ASKED_MAX: Duration = Duration::from_secs(3);

/// What running workers last saw of the store: its version, and how many webhooks it had.
///
/// # Errors
/// Redis's.
pub async fn seen_by_workers(reports: &Reports) -> redis::RedisResult<Option<(u64, u64)>> {
    let reports = reports.all().await?;
    Ok(reports.iter().filter_map(|report| Some((report.webhooks_version?, report.webhooks?))).max())
}

/// A sentence for whoever added a webhook, if the store lost others.
pub async fn after_adding(added: Added, reports: &Reports, commits: &Commits) -> Option<String> {
    let seen = seen_by_workers(reports).await.ok().flatten();
    let mut group = None;
    if added.is_first && seen.is_none() {
        group = tokio::time::timeout(ASKED_MAX, commits.of_any_group()).await.ok()?.ok()?;
    }
    sentence(added, seen, group.as_deref())
}

fn sentence(added: Added, seen: Option<(u64, u64)>, group: Option<&str>) -> Option<String> {
    let Added { expected, found, version, is_first } = added;
    if let Some((saw, webhooks)) = seen.filter(|(saw, _)| *saw > version) {
        return Some(format!(
            "this store has lost webhooks: running workers last saw {webhooks} of them (version {saw}), it has {found} now (version {version}); they send nothing, and {REMEDY}"
        ));
    }
    if expected > found {
        return Some(format!(
            "this store has lost webhooks: there should be {expected} of them, and {found} are there; workers send nothing, and {REMEDY}"
        ));
    }
    let group = group.filter(|_| is_first)?;
    Some(format!(
        "this store had no webhooks, and the consumer group {group} has commits, so there were some before: what waits for those is dropped as it comes up; if they are to come back, stop the workers and restore them first"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_adds_a_webhook_is_told_of_others_that_were_lost() {
        let first = Added { expected: 1, found: 1, version: 1, is_first: true };
        assert_eq!(sentence(first, None, None), None, "a fresh installation");
        assert!(sentence(first, Some((12, 10)), None).unwrap().contains("last saw 10 of them"));
        assert!(sentence(first, None, Some("optio-webhooks")).unwrap().contains("optio-webhooks has commits"));
        let ordinary = Added { expected: 4, found: 4, version: 13, is_first: false };
        assert_eq!(sentence(ordinary, Some((12, 3)), None), None);
        assert!(
            sentence(Added { expected: 11, ..ordinary }, None, None).unwrap().contains("11 of them, and 4 are there")
        );
    }
}
