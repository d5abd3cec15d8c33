//! A replay at work: on a thread of its own, under the lease that makes it the only one.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::schedule::Reconnect;
use crate::store::lease::{LASTS, Lease};

/// What a replay asks before each batch: whether it still is the only one.
pub type StillOurs<'a> = &'a dyn Fn() -> anyhow::Result<()>;

/// Runs `work`, which may block, while `lease` is renewed, and gives that back at the end. `stop` ends a wait for
/// Redis; that the work itself ends is the work's business. Not cancel safe: the thread goes on, without the lease.
///
/// # Errors
/// Those of `work`.
pub async fn run<T: Send + 'static>(
    lease: Option<Lease>,
    stop: CancellationToken,
    work: impl FnOnce(StillOurs<'_>) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let thread = tokio::task::spawn_blocking({
        let (lease, runtime) = (lease.clone(), tokio::runtime::Handle::current());
        move || work(&|| runtime.block_on(still_ours(lease.as_ref(), &stop)))
    });
    let outcome = tokio::select! {
        outcome = thread => outcome.context("the replay ended").flatten(),
        never = renew(lease.as_ref(), LASTS / 3) => match never {},
    };
    if let Some(lease) = &lease
        && let Err(error) = lease.give_back().await
    {
        tracing::debug!(%error, "the lease expires by itself");
    }
    outcome
}

async fn renew(lease: Option<&Lease>, interval: Duration) -> std::convert::Infallible {
    let Some(lease) = lease else { return std::future::pending().await };
    loop {
        tokio::time::sleep(interval).await;
        // What came of it is asked before each batch.
        let _ = lease.renew().await;
    }
}

/// Before each batch: no other replay has begun since ours did.
async fn still_ours(lease: Option<&Lease>, stop: &CancellationToken) -> anyhow::Result<()> {
    let Some(lease) = lease else { return Ok(()) };
    let mut reconnect = Reconnect::default();
    while !stop.is_cancelled() {
        match lease.renew().await {
            Ok(true) => return Ok(()),
            Ok(false) => anyhow::bail!(
                "this replay was held up for more than {} s, and another may have begun; what was replayed stays so. \
                 Run again with the same choice to go on",
                LASTS.as_secs()
            ),
            Err(error) => {
                tracing::warn!(%error, "redis is away: the replay goes on when it is back");
                reconnect.wait().await;
            }
        }
    }
    anyhow::bail!("interrupted while redis was away; run again with the same choice to go on")
}
