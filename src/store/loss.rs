//! The warning for a person who adds a webhook to a store that seems to have lost other webhooks.

use std::time::Duration;

use super::reading::REMEDY;
use super::webhooks::Added;
use super::workers::Reports;
use crate::kafka::group::Commits;

/// How long to wait for Kafka to say whether a consumer group has commits.
const COMMITS_TIMEOUT: Duration = Duration::from_secs(3);

/// The version of the webhooks and their number, as running workers last read them. None if no worker reports any.
///
/// # Errors
/// Errors of Redis.
pub async fn seen_by_workers(reports: &Reports) -> redis::RedisResult<Option<(u64, u64)>> {
    let reports = reports.all().await?;
    Ok(reports.iter().filter_map(|report| Some((report.webhooks_version?, report.webhooks?))).max())
}

/// A warning for the person who added a webhook, if the store has lost other webhooks. None if the loss cannot be
/// determined.
pub async fn after_adding(added: Added, reports: &Reports, commits: &Commits) -> Option<String> {
    let seen = seen_by_workers(reports).await.ok().flatten();
    let mut group = None;
    if added.is_first && seen.is_none() {
        group = tokio::time::timeout(COMMITS_TIMEOUT, commits.of_any_group()).await.ok()?.ok()?;
    }
    warning(added, seen, group.as_deref())
}

fn warning(added: Added, seen: Option<(u64, u64)>, group: Option<&str>) -> Option<String> {
    let Added { expected, found, version, is_first } = added;
    if let Some((seen_version, webhooks)) = seen.filter(|(seen_version, _)| *seen_version > version) {
        return Some(format!(
            "Redis has lost webhooks: running workers last saw {webhooks} of them (version {seen_version}), and now there are {found} (version {version}); the workers send nothing, and {REMEDY}"
        ));
    }
    if expected > found {
        return Some(format!(
            "Redis has lost webhooks: there should be {expected} of them, and {found} are there; workers send nothing, and {REMEDY}"
        ));
    }
    let group = group.filter(|_| is_first)?;
    Some(format!(
        "Redis had no webhooks, but the consumer group {group} has commits, so there were webhooks before: workers drop the deliveries that still wait for them; to keep these deliveries, stop the workers and restore the webhooks first"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_a_webhook_warns_about_lost_webhooks() {
        let first = Added { expected: 1, found: 1, version: 1, is_first: true };
        assert_eq!(warning(first, None, None), None, "a fresh installation");
        assert!(warning(first, Some((12, 10)), None).unwrap().contains("last saw 10 of them"));
        assert!(warning(first, None, Some("optio-webhooks")).unwrap().contains("optio-webhooks has commits"));
        let ordinary = Added { expected: 4, found: 4, version: 13, is_first: false };
        assert_eq!(warning(ordinary, Some((12, 3)), None), None);
        assert!(
            warning(Added { expected: 11, ..ordinary }, None, None).unwrap().contains("11 of them, and 4 are there")
        );
    }
}
