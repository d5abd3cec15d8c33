//! Permits for open deliveries: the pools, and the permits that a delivery takes from them.

mod pool;
mod shares;

use crate::metrics::{self, Pool};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::store::snapshot::Snapshots;
use crate::webhook::WebhookId;
use pool::PermitPool;
use shares::{Shared, SharedPool};

/// The number of ordinary permits for each write permit. A delivery that is only written waits for Kafka, never for an
/// endpoint.
const PERMITS_PER_WRITE_PERMIT: usize = 8;
/// A payload of more bytes than this counts as large.
const LARGE_BYTES: usize = 16 << 10;

/// The permits that an open delivery holds. Dropping them gives them back.
#[derive(Debug)]
pub struct Permits {
    _open: OwnedSemaphorePermit,
    _claim: Option<Shared>,
    _large: Option<Shared>,
}

/// Why a delivery wants to be open. It decides which pools the delivery takes a permit from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A first attempt.
    First,
    /// A first attempt of an event for very many webhooks.
    Wide,
    /// A later attempt.
    Retry,
}

/// All permit pools of this process.
pub struct PermitPools {
    /// `worker.in_flight_max`
    open: PermitPool,
    /// `worker.retry_share`
    retry: SharedPool,
    /// `worker.wide_share`
    wide: SharedPool,
    /// `worker.large_bytes_max`
    large: SharedPool,
    /// The pool of deliveries that are only written.
    write: Arc<Semaphore>,
    snapshots: Snapshots,
}

impl PermitPools {
    /// Creates the pools with the sizes that `config` gives them. `snapshots` says whether Redis answers.
    #[must_use]
    pub fn new(config: &Config, snapshots: Snapshots) -> Self {
        let worker = &config.worker;
        let pool = |size: usize| PermitPool::new(size, config.delivery.endpoint_wait_max);
        Self {
            open: pool(worker.in_flight_max),
            retry: SharedPool::new(pool(percent(worker.in_flight_max, worker.retry_share))),
            wide: SharedPool::new(pool(percent(worker.in_flight_max, worker.wide_share))),
            large: SharedPool::new(pool((worker.large_bytes_max / config.delivery.payload_max).max(2))),
            write: Arc::new(Semaphore::new((worker.in_flight_max / PERMITS_PER_WRITE_PERMIT).max(1))),
            snapshots,
        }
    }

    /// Takes the permits for a delivery with a payload of `bytes` to `webhook`. Retries and wide events leave a part of
    /// all permits to others. Returns None if a pool is exhausted: endpoints hold its permits and don't give them back, so
    /// nobody else may wait for them. `is_slow` says whether the endpoint holds permits for long. Of the smaller pools, such an
    /// endpoint gets no more than it leaves free. Cancel safe.
    pub async fn claim(
        &self,
        claim: Claim,
        bytes: usize,
        webhook: WebhookId,
        is_slow: impl Fn() -> bool,
    ) -> Option<Permits> {
        let share = async |pool: &SharedPool, name| {
            if pool.is_share_taken(webhook) && is_slow() {
                metrics::POOL_EXHAUSTED.increment(name);
                return None;
            }
            let permit = self.take(&pool.permits, name).await?;
            Some(pool.hold(webhook, permit))
        };
        let claim = match claim {
            Claim::First => None,
            Claim::Wide => Some(share(&self.wide, Pool::Wide.as_str()).await?),
            Claim::Retry => Some(share(&self.retry, Pool::Retry.as_str()).await?),
        };
        let large = if bytes > LARGE_BYTES { Some(share(&self.large, Pool::Large.as_str()).await?) } else { None };
        Some(Permits { _open: self.take(&self.open, Pool::All.as_str()).await?, _claim: claim, _large: large })
    }

    async fn take(&self, pool: &PermitPool, name: &'static str) -> Option<OwnedSemaphorePermit> {
        // While Redis is away no delivery ends, so pools are not judged.
        let may_judge = || self.snapshots.is_fresh();
        let permit = pool.claim(may_judge).await;
        if permit.is_none() {
            metrics::POOL_EXHAUSTED.increment(name);
        }
        permit
    }

    /// Takes a permit for a delivery that is only written. Cancel safe.
    pub async fn write(&self) -> Permits {
        let permit = self.write.clone().acquire_owned().await.expect("the semaphore is never closed");
        Permits { _open: permit, _claim: None, _large: None }
    }

    /// The number of further deliveries that could be open now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.open.available()
    }
}

/// `percent` percent of `all`, at least 1.
#[must_use]
pub fn percent(all: usize, percent: usize) -> usize {
    (all * percent / 100).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_endpoint_leaves_half_of_a_smaller_pool_and_a_fast_one_may_take_all() {
        let mut config = Config::built_in();
        (config.worker.in_flight_max, config.worker.retry_share) = (40, 50);
        let pools = PermitPools::new(&config, Snapshots::fixed(Vec::new()));
        let [slow, fast] = [1, 2].map(|id| WebhookId(uuid::Uuid::from_u128(id)));
        let mut held = Vec::new();
        while let Some(permits) = pools.claim(Claim::Retry, 0, slow, || true).await {
            held.push(permits);
        }
        assert_eq!(held.len(), 10);
        for _ in 0..10 {
            held.push(pools.claim(Claim::Retry, 0, fast, || false).await.expect("the rest of the pool"));
        }
        assert!(pools.claim(Claim::First, 0, slow, || true).await.is_some(), "the pool of all has its own bound");
    }
}
