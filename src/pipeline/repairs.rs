//! What people and other workers say of endpoints that this process leaves alone, heard within a moment.

use std::sync::Arc;
use std::time::Duration;

use super::Pipeline;
use crate::conditions::Severity;
use crate::store::repaired::Repaired;

/// How often. A person who has mended an endpoint and tests it sees its deliveries go within a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Listens until the process ends.
pub async fn listen(pipeline: Arc<Pipeline>, mut repaired: Repaired) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut outage = pipeline.conditions.outage("redis: endpoints that work again", Severity::Warning);
    loop {
        ticks.tick().await;
        match repaired.news().await {
            Ok(news) => {
                outage.over();
                for (webhook, repair) in news {
                    tracing::debug!(%webhook, ?repair, "heard of an endpoint");
                    pipeline.endpoints.hear(webhook, repair);
                    pipeline.advance(webhook);
                }
            }
            Err(error) => {
                outage.failed(format_args!("circuits close by their own time only: {error}"));
                outage.wait().await;
            }
        }
    }
}
