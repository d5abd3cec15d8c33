//! What people and other workers say of endpoints that this process leaves alone, heard within a moment.

use std::sync::Arc;
use std::time::Duration;

use super::dispatch::Dispatcher;
use crate::conditions::Severity;
use crate::store::recoveries::Recoveries;

/// How often. A person who has mended an endpoint and tests it sees its deliveries go within a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Listens until the process ends.
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
                    dispatcher.advance(webhook);
                }
            }
            Err(error) => {
                outage.failed(format_args!("circuits close by their own time only: {error}"));
                outage.wait().await;
            }
        }
    }
}
