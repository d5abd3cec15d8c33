//! The run of a replay: on a separate thread, while it holds the lease that only one replay can hold.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::schedule::Reconnect;
use crate::store::lease::{Lease, TTL};

/// The check before each batch that this is still the only replay.
pub type StillOurs<'a> = &'a dyn Fn() -> anyhow::Result<()>;

/// Runs `work`, which may block, on a separate thread, and then `finish`. Renews `lease` meanwhile and releases it at the
/// end, after an error too.
///
/// Cancelling `stop` ends a wait for Redis. `work` must watch `stop` itself to end early. Not cancel safe: if this
/// future is dropped, the thread continues without the lease.
///
/// # Errors
/// The errors of `work` and `finish`, or that `work` panicked.
pub async fn run<T: Send + 'static>(
    lease: Option<Lease>,
    stop: CancellationToken,
    work: impl FnOnce(StillOurs<'_>) -> anyhow::Result<T> + Send + 'static,
    finish: impl AsyncFnOnce(&T) -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    let thread = tokio::task::spawn_blocking({
        let (lease, runtime) = (lease.clone(), tokio::runtime::Handle::current());
        move || work(&|| runtime.block_on(still_ours(lease.as_ref(), &stop)))
    });
    let all = async {
        let outcome = thread.await.context("the replay ended unexpectedly").flatten()?;
        finish(&outcome).await?;
        Ok(outcome)
    };
    let outcome = tokio::select! {
        outcome = all => outcome,
        never = renew(lease.as_ref(), TTL / 3) => match never {},
    };
    release(lease.as_ref()).await;
    outcome
}

/// A lease that is held until a run takes it over. If it is dropped before, for example because a client hangs up, the lease
/// is released.
pub struct Held(Option<Lease>);

impl Held {
    /// Holds `lease`, which was acquired.
    #[must_use]
    pub fn new(lease: Option<Lease>) -> Self {
        Self(lease)
    }

    /// Whether there is a lease.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Gives the lease to a run.
    #[must_use]
    pub fn take(mut self) -> Option<Lease> {
        self.0.take()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            tokio::spawn(async move { release(Some(&lease)).await });
        }
    }
}

/// Releases the lease, if there is one. If Redis can't be reached, the lease expires by itself.
pub async fn release(lease: Option<&Lease>) {
    if let Some(lease) = lease
        && let Err(error) = lease.give_back().await
    {
        tracing::debug!(%error, "the lease cannot be released; it expires by itself");
    }
}

async fn renew(lease: Option<&Lease>, interval: Duration) -> std::convert::Infallible {
    let Some(lease) = lease else { return std::future::pending().await };
    loop {
        tokio::time::sleep(interval).await;
        // The result does not matter here: `still_ours` renews the lease before each batch and checks the result.
        let _ = lease.renew().await;
    }
}

/// Checks, before each batch, that this replay has held the lease all the time. Waits while Redis is unavailable.
async fn still_ours(lease: Option<&Lease>, stop: &CancellationToken) -> anyhow::Result<()> {
    let Some(lease) = lease else { return Ok(()) };
    let mut reconnect = Reconnect::default();
    while !stop.is_cancelled() {
        match lease.renew().await {
            Ok(true) => return Ok(()),
            Ok(false) => anyhow::bail!(
                "this replay did not renew its lease for more than {} s, so another replay may have started; what it \
                 has replayed stays replayed, and a run with the same choice goes on from there",
                TTL.as_secs()
            ),
            Err(error) => {
                tracing::warn!(%error, "redis is unavailable; the replay goes on when it is back");
                reconnect.wait().await;
            }
        }
    }
    anyhow::bail!("interrupted while redis was unavailable; run again with the same choice to go on")
}
