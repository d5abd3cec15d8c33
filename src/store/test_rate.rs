//! The number of test events to each webhook and to each host in the current minute, over all processes.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use url::Url;

use super::Keys;
use super::connection::Connection;
use crate::webhook::Webhook;

/// The time for which test events are counted. It begins with the first one.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts only if both limits allow it, so that a webhook that is over its own limit uses up nothing of its host's.
const CODE: &str = "
for i, key in ipairs(KEYS) do
    if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[i]) then
        local left = redis.call('PTTL', key)
        if left < 0 then
            left = tonumber(ARGV[3])
            redis.call('PEXPIRE', key, left)
        end
        return {i, left}
    end
end
for _, key in ipairs(KEYS) do
    if redis.call('INCR', key) == 1 then
        redis.call('PEXPIRE', key, ARGV[3])
    end
end
return {0, 0}
";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));

/// The limits of test events within a minute.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To one webhook.
    pub to_webhook: u32,
    /// To one host, from all webhooks together.
    pub to_host: u32,
}

/// A limit that is reached, and the time after which the next test event is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The limit of the webhook.
    OfWebhook(Duration),
    /// The limit of the host.
    OfHost(Duration),
}

/// Counts one more test event to `webhook` and to its host, unless a limit is reached.
///
/// # Errors
/// Errors of Redis. The test event must not be sent then.
pub async fn count(
    connection: &mut Connection,
    keys: &Keys,
    webhook: &Webhook,
    limits: Limits,
) -> redis::RedisResult<Option<Reached>> {
    let mut call = SCRIPT.key(keys.tests(webhook.id));
    call.key(keys.tests_to(host(&webhook.url))).arg(limits.to_webhook).arg(limits.to_host);
    let (limit, left_ms): (u8, u64) = call.arg(WINDOW.as_millis() as u64).invoke_async(connection).await?;
    let wait = Duration::from_millis(left_ms).min(WINDOW);
    Ok(match limit {
        0 => None,
        1 => Some(Reached::OfWebhook(wait)),
        _ => Some(Reached::OfHost(wait)),
    })
}

/// The host as it is counted. A name with the dot of the DNS root is the same host.
fn host(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    host.strip_suffix('.').unwrap_or(host)
}
