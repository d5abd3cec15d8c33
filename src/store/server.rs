//! Whether the Redis that was found can hold what is entrusted to it: its version, and what it does with data.

use redis::RedisResult;

use super::connection::Connection;
use super::is_away;

/// `XTRIM MINID`, by which logs and marks are trimmed, is of this version.
const VERSION_MIN: (u32, u32) = (6, 2);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fitness {
    /// Why it can't be used at all.
    pub refusal: Option<String>,
    /// What an operator should know, a sentence each.
    pub warnings: Vec<String>,
}

/// Asks the server.
///
/// # Errors
/// Where it is away. One that may not be asked is warned of.
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

/// Judges what the server says: the text of `INFO`, and of its settings `maxmemory-policy` and `save`; None where it
/// doesn't say.
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
                Some(format!("redis.url: this is Redis {text}; {major}.{minor} or newer is needed (XTRIM MINID)"));
        }
        Some((_, Some(_))) => {}
        _ => fitness
            .warnings
            .push("redis doesn't say its version (INFO server): whether it is new enough can't be checked".to_owned()),
    }
    match field("maxmemory_policy").or(policy) {
        Some("noeviction") => {}
        Some(policy) => fitness.warnings.push(format!(
            "redis: maxmemory-policy is {policy}: under memory pressure it evicts webhooks, logs and marks; noeviction refuses writes instead, and nothing is lost"
        )),
        None => fitness.warnings.push("redis doesn't say its maxmemory-policy: whether it may evict webhooks can't be checked".to_owned()),
    }
    match (field("aof_enabled"), saves) {
        (Some("1"), _) => {}
        (Some(_), Some(saves)) if !saves.trim().is_empty() => {}
        (Some(_), Some(_)) => fitness
            .warnings
            .push("redis keeps nothing on disk (neither appendonly nor save): a restart loses the webhooks".to_owned()),
        _ => fitness
            .warnings
            .push("redis doesn't say whether it keeps its data on disk: that can't be checked".to_owned()),
    }
    fitness
}

/// Major and minor.
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
    fn what_may_lose_webhooks_is_warned_of_and_what_is_not_said_too() {
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
