//! The status of the whole system: workers, partitions, endpoints.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::lag::Lag;
use super::problem::Problem;
use super::state::Admin;
use crate::clock::now_ms;
use crate::report::{EndpointReport, HoldingReport, PartitionReport, Report};
use crate::topics::Names;

/// What an operator looks at first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The number of unsettled records in the topic of events.
    pub lag: i64,
    /// The age of the oldest event that is not settled, in milliseconds. It is null if there is no such event. If
    /// it is null although `lag` is not 0, the age could not be read in time.
    pub oldest_undelivered_age_ms: Option<i64>,
    /// The running workers.
    pub workers: Vec<WorkerStatus>,
    /// Every partition that the workers read. Those of the topic of events come first.
    pub partitions: Vec<PartitionStatus>,
    /// The endpoints that are busy or backing off, as each worker sees them. The worst come first.
    pub endpoints: Vec<EndpointStatus>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Its host and process.
    pub worker: String,
    /// Its version.
    pub version: String,
    /// The number of open deliveries.
    pub in_flight: usize,
    /// The highest allowed number of open deliveries.
    pub in_flight_max: usize,
    /// The number of partitions that it reads.
    pub partitions: usize,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The offset that the group committed; null before its first commit.
    pub committed: Option<i64>,
    /// The offset after the last record.
    pub end: i64,
    /// The number of records that are not settled. In a retry tier most of them wait until they are due.
    pub lag: i64,
    /// The worker that reads it; null if none does.
    pub worker: Option<String>,
    /// The number of records from the watermark to the last one that was read.
    pub open_offsets: usize,
    /// Whether the worker has paused it.
    pub paused: bool,
    /// What blocks its watermark; null if nothing does.
    pub holding: Option<HoldingReport>,
}

/// One endpoint as one worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// The worker whose view this is.
    pub worker: String,
    /// The endpoint in that worker's view.
    #[serde(flatten)]
    pub endpoint: EndpointReport,
}

impl Admin {
    /// The status at this moment.
    ///
    /// # Errors
    /// 503: Kafka or Redis can't be reached.
    pub async fn status(&self) -> Result<Status, Problem> {
        let reports = self.reports.all().await?;
        let names = Names::new(&self.config);
        let event_partitions =
            reports.iter().flat_map(|report| &report.partitions).filter(|one| one.topic == names.events());
        let blocked = event_partitions.filter(|one| one.holding.is_some()).map(|one| one.partition).collect();
        let lags = self.lags.now(blocked).await?;
        let reader_of = |lag: &Lag| {
            reports.iter().find_map(|report| Some((report, partition_of(report, &lag.topic, lag.partition)?)))
        };
        let of_events = || lags.iter().filter(|lag| lag.topic == names.events());
        // A worker's report is newer than the last commit, so its time of the oldest open event is preferred.
        let oldest_at_ms = of_events().filter_map(|lag| {
            let reported = reader_of(lag).and_then(|(_, partition)| written_at_ms(partition.holding.as_ref()?));
            reported.or(lag.oldest_at_ms)
        });
        let oldest_at_ms = oldest_at_ms.min();
        let lag = of_events().map(|lag| lag.lag).sum();
        let partitions = lags.iter().map(|lag| {
            let reader = reader_of(lag);
            PartitionStatus {
                worker: reader.map(|(report, _)| report.worker.clone()),
                open_offsets: reader.map_or(0, |(_, partition)| partition.open_offsets),
                paused: reader.is_some_and(|(_, partition)| partition.paused),
                holding: reader.and_then(|(_, partition)| partition.holding.clone()),
                topic: lag.topic.clone(),
                partition: lag.partition,
                committed: lag.committed,
                end: lag.end,
                lag: lag.lag,
            }
        });
        let partitions = partitions.collect();
        Ok(Status {
            lag,
            oldest_undelivered_age_ms: oldest_at_ms.map(|at_ms| (now_ms() - at_ms).max(0)),
            endpoints: endpoints(&reports),
            workers: reports.iter().map(worker).collect(),
            partitions,
        })
    }
}

fn written_at_ms(holding: &HoldingReport) -> Option<i64> {
    let at = humantime::parse_rfc3339(&holding.written_at).ok()?;
    Some(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis() as i64)
}

fn partition_of<'a>(report: &'a Report, topic: &str, partition: i32) -> Option<&'a PartitionReport> {
    report.partitions.iter().find(|one| one.topic == topic && one.partition == partition)
}

fn worker(report: &Report) -> WorkerStatus {
    WorkerStatus {
        worker: report.worker.clone(),
        version: report.version.clone(),
        in_flight: report.in_flight,
        in_flight_max: report.in_flight_max,
        partitions: report.partitions.len(),
    }
}

fn endpoints(reports: &[Report]) -> Vec<EndpointStatus> {
    let of_report = |report: &Report| {
        let worker = report.worker.clone();
        report.endpoints.clone().into_iter().map(move |endpoint| EndpointStatus { worker: worker.clone(), endpoint })
    };
    let mut all: Vec<EndpointStatus> = reports.iter().flat_map(of_report).collect();
    all.sort_by_key(|one| (one.endpoint.breaker, std::cmp::Reverse(one.endpoint.waiting), one.endpoint.webhook_id));
    all
}
