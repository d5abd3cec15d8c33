//! The number of test events that each webhook got within the current minute, over all processes.

use std::time::Duration;

use super::Keys;
use super::connection::Connection;
use crate::webhook::WebhookId;

/// The time for which test events are counted. It begins with the first one.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts one more test event for `webhook`. If it is one more than `max`, the result is the time after which the next
/// one is allowed.
///
/// # Errors
/// Errors of Redis. The test event must not be sent then.
pub async fn count(
    connection: &mut Connection,
    keys: &Keys,
    webhook: WebhookId,
    max: u32,
) -> redis::RedisResult<Option<Duration>> {
    let key = keys.tests(webhook);
    let mut pipe = redis::pipe();
    // The three commands are one transaction, so a counter without an expiry can't be left behind.
    pipe.atomic();
    pipe.cmd("SET").arg(&key).arg(0).arg("PX").arg(WINDOW.as_millis() as u64).arg("NX").ignore();
    pipe.incr(&key, 1).pttl(&key);
    let (counted, left_ms): (u64, i64) = pipe.query_async(connection).await?;
    Ok((counted > max.into()).then(|| Duration::from_millis(left_ms.try_into().unwrap_or(0)).min(WINDOW)))
}
