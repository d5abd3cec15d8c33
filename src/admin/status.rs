//! How the whole stands: workers, partitions, endpoints.

use serde::Serialize;
use utoipa::ToSchema;

use super::lag::Lag;
use super::{Admin, Problem};
use crate::clock::now_ms;
use crate::report::{EndpointReport, HoldingReport, PartitionReport, Report};
use crate::topics::Names;

/// Everything an operator looks at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Records of the events' topic that aren't settled.
    pub lag: i64,
    /// Age of the oldest event that isn't settled, in milliseconds; null where there is none, or, with a `lag`, where it
    /// can't be read in time.
    pub oldest_undelivered_age_ms: Option<i64>,
    /// The workers that live.
    pub workers: Vec<WorkerStatus>,
    /// Every partition that is read, events first.
    pub partitions: Vec<PartitionStatus>,
    /// Endpoints that something is going on with, as each worker sees them; the worst first.
    pub endpoints: Vec<EndpointStatus>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Host and process.
    pub worker: String,
    /// Its version.
    pub version: String,
    /// Deliveries open.
    pub in_flight: usize,
    /// How many may be.
    pub in_flight_max: usize,
    /// Partitions that it reads.
    pub partitions: usize,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// What its group committed; null before its first commit.
    pub committed: Option<i64>,
    /// One past the last record.
    pub end: i64,
    /// Records that aren't settled. In a retry tier most of them wait for their time.
    pub lag: i64,
    /// Who reads it; null where nobody does.
    pub worker: Option<String>,
    /// Records between the watermark and the last one read.
    pub open_offsets: usize,
    /// Whether consumption of it is paused.
    pub paused: bool,
    /// What holds its watermark; null where nothing does.
    pub holding: Option<HoldingReport>,
}

/// One endpoint as one worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Whose view.
    pub worker: String,
    /// What it sees.
    #[serde(flatten)]
    pub endpoint: EndpointReport,
}

impl Admin {
    /// As it stands now.
    ///
    /// # Errors
    /// 503 where Kafka or Redis is away.
    pub async fn status(&self) -> Result<Status, Problem> {
        let reports = self.reports.all().await?;
        let names = Names::new(&self.config);
        let held = reports.iter().flat_map(|report| &report.partitions).filter(|one| one.topic == names.events());
        let held = held.filter(|one| one.holding.is_some()).map(|one| one.partition).collect();
        let lags = self.lags.now(held).await?;
        let reader =
            |lag: &Lag| reports.iter().find_map(|report| Some((report, read_by(report, &lag.topic, lag.partition)?)));
        let of_events = || lags.iter().filter(|lag| lag.topic == names.events());
        // Who holds an event of a partition knows better than its group's last commit.
        let oldest_at_ms = of_events().filter_map(|lag| {
            let holding = reader(lag).and_then(|(_, partition)| written_at_ms(partition.holding.as_ref()?));
            holding.or(lag.oldest_at_ms)
        });
        let oldest_at_ms = oldest_at_ms.min();
        let lag = of_events().map(|lag| lag.lag).sum();
        let partitions = lags.iter().map(|lag| {
            let found = reader(lag);
            PartitionStatus {
                worker: found.map(|(report, _)| report.worker.clone()),
                open_offsets: found.map_or(0, |(_, partition)| partition.open_offsets),
                paused: found.is_some_and(|(_, partition)| partition.paused),
                holding: found.and_then(|(_, partition)| partition.holding.clone()),
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

fn read_by<'a>(report: &'a Report, topic: &str, partition: i32) -> Option<&'a PartitionReport> {
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
    let of = |report: &Report| {
        let worker = report.worker.clone();
        report.endpoints.clone().into_iter().map(move |endpoint| EndpointStatus { worker: worker.clone(), endpoint })
    };
    let mut all: Vec<EndpointStatus> = reports.iter().flat_map(of).collect();
    all.sort_by_key(|one| (one.endpoint.breaker, std::cmp::Reverse(one.endpoint.waiting), one.endpoint.webhook_id));
    all
}
