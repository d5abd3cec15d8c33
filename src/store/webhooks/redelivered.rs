//! Redeliveries, which replace earlier records of their deliveries.

use std::collections::HashMap;
use std::time::Duration;

use redis::RedisResult;

use super::{WebhookStore, scripts};
use crate::delivery::DeliveryId;
use crate::store::replaced;

impl WebhookStore {
    /// Records a redelivery requested at `at_ms` (Unix milliseconds), and announces it. Workers drop earlier records of
    /// the delivery when they come up.
    ///
    /// # Errors
    /// Errors of Redis. The redelivery may still have been recorded.
    pub async fn replace(&self, delivery: DeliveryId, at_ms: i64, age_max: Duration) -> RedisResult<()> {
        let mut pipe = redis::pipe();
        replaced::append(&mut pipe, &self.keys, delivery, at_ms, age_max);
        pipe.query_async::<()>(&mut self.connection.clone()).await?;
        self.script(&scripts::ANNOUNCE).invoke_async(&mut self.connection.clone()).await
    }

    /// The time of the last redelivery of each delivery, in Unix milliseconds. Earlier records of the delivery are
    /// replaced.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn replaced(&self) -> RedisResult<HashMap<DeliveryId, i64>> {
        replaced::load(&mut self.connection.clone(), &self.keys).await
    }
}
