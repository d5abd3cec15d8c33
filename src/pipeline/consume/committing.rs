//! Commits offsets on a separate thread.
//!
//! rdkafka reports no result of an asynchronous commit (rust-rdkafka issue 856). A synchronous commit on the poll
//! thread would stop polling for a round trip, or for as long as the broker is away.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::client::Helper;
use super::rebalance::Rebalances;

/// Starts the thread. It commits every `interval`.
///
/// # Errors
/// Fails if the thread can't be created.
pub(super) fn start(name: &str, consumer: Arc<BaseConsumer<Rebalances>>, interval: Duration) -> anyhow::Result<Helper> {
    Helper::start(format!("{name} commits"), interval, move || consumer.context().commit(&consumer))
}
