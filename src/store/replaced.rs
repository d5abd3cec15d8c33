//! Deliveries that were sent again by hand: what of them still waits in a retry tier is replaced by that.
//!
//! A stream, trimmed by age: a redelivery names its delivery and the moment it was asked for. A record of that
//! delivery that was first seen before that moment is dropped when it comes up.

use std::collections::HashMap;
use std::time::Duration;

use crate::store::connection::Connection;
use redis::streams::StreamRangeReply;

use super::Keys;
use crate::clock::{millis, now_ms};
use crate::delivery::DeliveryId;

/// Redeliveries that are remembered at most. Beyond that the oldest are forgotten: then a retry that still waits is
/// sent as well, under the same delivery id.
const REMEMBERED_MAX: usize = 100_000;

/// Adds one, and forgets those whose retries can't wait any more. No answer.
pub fn append(pipe: &mut redis::Pipeline, keys: &Keys, delivery: DeliveryId, at_ms: i64, age_max: Duration) {
    let key = keys.replaced();
    pipe.cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(REMEMBERED_MAX);
    pipe.arg("*").arg("delivery").arg(delivery.to_string()).arg("at").arg(at_ms).ignore();
    pipe.cmd("XTRIM").arg(&key).arg("MINID").arg("~").arg((at_ms - millis(age_max)).max(0)).ignore();
}

/// Until when records of a delivery are replaced, Unix milliseconds.
///
/// # Errors
/// Redis's.
pub async fn load(connection: &mut Connection, keys: &Keys) -> redis::RedisResult<HashMap<DeliveryId, i64>> {
    let reply: StreamRangeReply =
        redis::cmd("XRANGE").arg(keys.replaced()).arg("-").arg("+").query_async(connection).await?;
    let now_ms = now_ms();
    let entries = reply.ids.iter().filter_map(|entry| {
        let delivery = entry.get::<String>("delivery")?.parse().ok()?;
        // One of the future would replace what is seen from now on as well.
        Some((delivery, entry.get::<i64>("at")?.min(now_ms)))
    });
    // The last one of a delivery counts.
    Ok(entries.collect())
}
