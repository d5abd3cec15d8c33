//! The report of a worker to the status page, every second.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::now_ms;
use crate::clock::rfc3339;
use crate::conditions::{Conditions, Severity};
use crate::pipeline::assigned::Assigned;
use crate::pipeline::dispatch::Dispatcher;
use crate::pipeline::partition::Partition;
use crate::report::{HoldingReport, PartitionReport, Report};
use crate::store::is_away;
use crate::store::workers::Reports;

/// The interval between reports.
const INTERVAL: Duration = Duration::from_secs(1);
/// The largest number of endpoints in a report. Endpoints in the worst state come first.
const ENDPOINTS_MAX: usize = 200;

/// Writes a report at each interval, until it is cancelled. A report that fails because Redis is unavailable is
/// skipped, because the next one replaces it.
pub async fn keep(
    dispatcher: Arc<Dispatcher>,
    assigned: Arc<Assigned>,
    reports: Reports,
    worker: String,
    conditions: Conditions,
) {
    let mut refused = conditions.outage("redis: this worker's report", Severity::Warning);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match reports.put(&report(&dispatcher, &assigned, worker.clone())).await {
            Ok(workers) => {
                refused.over();
                dispatcher.set_workers(workers);
            }
            Err(error) if is_away(&error) => tracing::debug!(%error, "a report cannot be written"),
            Err(error) => refused.failed(format_args!("the status page does not show this worker: {error}")),
        }
    }
}

fn report(dispatcher: &Dispatcher, assigned: &Assigned, worker: String) -> Report {
    let in_flight_max = dispatcher.in_flight_max();
    let mut endpoints = dispatcher.endpoints();
    endpoints.sort_by_key(|endpoint| (endpoint.breaker, std::cmp::Reverse(endpoint.waiting), endpoint.webhook_id));
    endpoints.truncate(ENDPOINTS_MAX);
    let seen = dispatcher.webhooks_seen();
    Report {
        webhooks: seen.map(|(_, webhooks)| webhooks),
        webhooks_version: seen.map(|(version, _)| version),
        worker,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at_ms: now_ms(),
        in_flight: in_flight_max - dispatcher.permits_left(),
        in_flight_max,
        partitions: assigned.all().iter().map(|partition| partition_report(partition)).collect(),
        endpoints,
    }
}

fn partition_report(partition: &Partition) -> PartitionReport {
    let holding = partition.blocker().map(|holding| HoldingReport {
        offset: holding.offset,
        written_at: rfc3339(holding.timestamp_ms),
        stage: holding.stage,
        webhook_id: holding.webhook,
    });
    PartitionReport {
        topic: partition.topic.to_string(),
        partition: partition.number,
        open_offsets: partition.open_offsets(),
        paused: partition.paused.load(std::sync::atomic::Ordering::Relaxed),
        holding,
    }
}
