//! Applies recoveries from people and other workers to endpoints that back off in this process.

use std::sync::Arc;
use std::time::Duration;

use super::dispatch::Dispatcher;
use crate::conditions::Severity;
use crate::store::recoveries::{Recoveries, Recovery};

/// The time between two reads of new recoveries. A person who has fixed an endpoint and tests it sees its deliveries go
/// within a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Reads and applies recoveries. Never returns.
pub async fn listen(dispatcher: Arc<Dispatcher>, mut recoveries: Recoveries) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut outage = dispatcher.conditions.outage("redis: endpoints that work again", Severity::Warning);
    loop {
        ticks.tick().await;
        match recoveries.read_new().await {
            Ok(new) => {
                outage.over();
                for (webhook, recovery) in new {
                    tracing::debug!(%webhook, ?recovery, "endpoint recovery received");
                    dispatcher.endpoints.recover(webhook, recovery);
                    if recovery == Recovery::Succeeded {
                        dispatcher.disabling.succeeded_elsewhere(webhook);
                    }
                    dispatcher.advance(webhook);
                }
            }
            Err(error) => {
                outage.failed(format_args!("circuits close only after their own time: {error}"));
                outage.wait().await;
            }
        }
    }
}
