//! Redeliveries, which replace the retries of the same delivery that still wait in a retry tier.
//!
//! A Redis stream, trimmed by age. Each entry has the id of the delivery and the time of the request. When a retry of
//! that delivery comes up that was first seen before that time, the worker drops it.

use std::collections::HashMap;
use std::time::Duration;

use crate::store::connection::Connection;
use redis::streams::StreamRangeReply;

use super::Keys;
use crate::clock::{millis, now_ms};
use crate::delivery::DeliveryId;

/// The approximate number of redeliveries in the stream. When an older entry is removed, a retry that still waits is
/// sent as well, under the same delivery id.
const ENTRIES_MAX: usize = 100_000;

/// Adds commands that append a redelivery requested at `at_ms` (Unix milliseconds), and remove those that are older
/// than `age_max`, because no retry waits for longer. Their answers are ignored.
pub fn append(pipe: &mut redis::Pipeline, keys: &Keys, delivery: DeliveryId, at_ms: i64, age_max: Duration) {
    let key = keys.replaced();
    pipe.cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(ENTRIES_MAX);
    pipe.arg("*").arg("delivery").arg(delivery.to_string()).arg("at").arg(at_ms).ignore();
    pipe.cmd("XTRIM").arg(&key).arg("MINID").arg("~").arg((at_ms - millis(age_max)).max(0)).ignore();
}

/// The time of the last redelivery of each delivery, in Unix milliseconds. Earlier records of the delivery are
/// replaced.
///
/// # Errors
/// Errors of Redis.
pub async fn load(connection: &mut Connection, keys: &Keys) -> redis::RedisResult<HashMap<DeliveryId, i64>> {
    let reply: StreamRangeReply =
        redis::cmd("XRANGE").arg(keys.replaced()).arg("-").arg("+").query_async(connection).await?;
    let now_ms = now_ms();
    let entries = reply.ids.iter().filter_map(|entry| {
        let delivery = entry.get::<String>("delivery")?.parse().ok()?;
        // A time in the future would also replace records that are first seen from now on.
        Some((delivery, entry.get::<i64>("at")?.min(now_ms)))
    });
    // The stream is oldest first, so the last redelivery of a delivery wins.
    Ok(entries.collect())
}
