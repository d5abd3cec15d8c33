//! The check of the Redis server at the start: its version, eviction policy and persistence.

use redis::RedisResult;

use super::connection::Connection;
use super::is_away;

/// The oldest version that has `XTRIM MINID`, which trims logs and marks.
const VERSION_MIN: (u32, u32) = (6, 2);

/// The result of the check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fitness {
    /// The reason why the server cannot be used, if it cannot.
    pub refusal: Option<String>,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
}

/// Checks the server. If the server refuses a question, the result has a warning.
///
/// # Errors
/// Errors of Redis if the server is unavailable.
pub async fn fitness(connection: &Connection) -> RedisResult<Fitness> {
    let info = match redis::cmd("INFO").query_async::<String>(&mut connection.clone()).await {
        Ok(info) => Some(info),
        Err(error) if is_away(&error) => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "INFO is refused");
            None
        }
    };
    let refusal = judge(info.as_deref(), None, None).refusal;
    if refusal.is_some() {
        return Ok(Fitness { refusal, warnings: Vec::new() });
    }
    let saves = match setting(connection, "save").await {
        Ok(value) => value,
        Err(error) if is_away(&error) => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "CONFIG is refused");
            None
        }
    };
    let policy = setting(connection, "maxmemory-policy").await.ok().flatten();
    Ok(judge(info.as_deref(), policy.as_deref(), saves.as_deref()))
}

async fn setting(connection: &Connection, name: &str) -> RedisResult<Option<String>> {
    let pair: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection.clone()).await?;
    Ok(pair.into_iter().nth(1))
}

/// Judges the text of `INFO` and the settings `maxmemory-policy` and `save`. None means that the server does not give
/// the value.
fn judge(info: Option<&str>, policy: Option<&str>, saves: Option<&str>) -> Fitness {
    let field = |name: &str| {
        let mut lines = info.unwrap_or_default().lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let mut fitness = Fitness::default();
    match field("redis_version").map(|text| (text, version(text))) {
        Some((text, Some(version))) if version < VERSION_MIN => {
            let (major, minor) = VERSION_MIN;
            fitness.refusal =
                Some(format!("redis.url: this is Redis {text}; {major}.{minor} or newer is required (XTRIM MINID)"));
        }
        Some((_, Some(_))) => {}
        _ => fitness
            .warnings
            .push("redis doesn't report its version (INFO server), so the version can't be checked".to_owned()),
    }
    match field("maxmemory_policy").or(policy) {
        Some("noeviction") => {}
        Some(policy) => fitness.warnings.push(format!(
            "redis: maxmemory-policy is {policy}: under memory pressure it evicts webhooks, logs and marks; with noeviction it refuses writes instead, and nothing is lost"
        )),
        None => fitness.warnings.push("redis doesn't report its maxmemory-policy, so it can't be checked whether webhooks may be evicted".to_owned()),
    }
    match (field("aof_enabled"), saves) {
        (Some("1"), _) => {}
        (Some(_), Some(saves)) if !saves.trim().is_empty() => {}
        (Some(_), Some(_)) => fitness
            .warnings
            .push("redis keeps nothing on disk (neither appendonly nor save): a restart loses the webhooks".to_owned()),
        _ => fitness
            .warnings
            .push("redis doesn't report whether it keeps its data on disk, so persistence can't be checked".to_owned()),
    }
    fitness
}

/// The major and minor version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.2.4\r\nvalkey_version:8.0.1\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n";

    #[test]
    fn a_redis_that_is_too_old_is_refused_with_its_version() {
        assert_eq!(judge(Some(GOOD), None, None), Fitness::default());
        let old = |version: &str| judge(Some(&GOOD.replace("7.2.4", version)), None, None).refusal;
        assert!(old("6.0.16").unwrap().contains("Redis 6.0.16"));
        assert!(old("5").is_some() && old("6.2.0").is_none() && old("10.0").is_none());
    }

    #[test]
    fn settings_that_may_lose_webhooks_and_missing_answers_are_warned_about() {
        let warnings = |info: Option<&str>, policy, saves| judge(info, policy, saves).warnings;
        let evicts = GOOD.replace("noeviction", "allkeys-lru");
        assert!(warnings(Some(&evicts), None, None)[0].contains("allkeys-lru"));
        let without_aof = GOOD.replace("aof_enabled:1", "aof_enabled:0");
        assert!(warnings(Some(&without_aof), None, Some(""))[0].contains("keeps nothing on disk"));
        assert!(warnings(Some(&without_aof), None, Some("3600 1")).is_empty());
        assert!(warnings(Some(&without_aof), None, None)[0].contains("can't be checked"));
        assert_eq!(warnings(None, None, None).len(), 3);
        assert_eq!(judge(None, None, None).refusal, None);
    }
}
