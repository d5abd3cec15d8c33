//! The gauges of a worker, read at the moment of a scrape.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::now_ms;
use crate::metrics::gauges::{self, Page};
use crate::pipeline::assigned::Assigned;
use crate::pipeline::dispatch::Dispatcher;
use crate::pipeline::partition::{Partition, Standing};
use crate::pipeline::pulse::Pulse;
use crate::report::{BreakerState, Stage};

/// The parts of a worker whose state health and metrics show.
#[derive(Clone)]
pub struct Observed {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) assigned: Arc<Assigned>,
    pub(super) pulse: Pulse,
    /// How long a thread that reads from Kafka may take to move again.
    pub(super) stuck_after: Duration,
}

/// One partition at the moment of the scrape.
struct Seen {
    topic: Arc<str>,
    number: String,
    standing: Standing,
    /// The stage of the record that blocks the watermark.
    stage: Option<Stage>,
    paused: bool,
}

impl Observed {
    /// The threads that have not moved for too long, each with the time since it last moved.
    pub(super) fn stuck(&self) -> Vec<(&'static str, Duration)> {
        self.pulse.stuck(self.stuck_after)
    }

    /// Adds all gauges of the worker.
    pub(super) fn add_to(&self, page: &mut Page) {
        self.add_deliveries(page);
        let partitions: Vec<Seen> = self.assigned.all().iter().map(|partition| Seen::of(partition)).collect();
        add_partitions(&partitions, page);
    }

    fn add_deliveries(&self, page: &mut Page) {
        let max = self.dispatcher.in_flight_max();
        page.one(&gauges::IN_FLIGHT, (max - self.dispatcher.permits_left()) as f64);
        page.one(&gauges::IN_FLIGHT_MAX, max as f64);
        let endpoints = self.dispatcher.endpoints();
        let sum = |of: fn(&crate::report::EndpointReport) -> usize| endpoints.iter().map(of).sum::<usize>() as f64;
        page.one(&gauges::REQUESTS_IN_FLIGHT, sum(|endpoint| endpoint.in_flight));
        page.one(&gauges::WAITING, sum(|endpoint| endpoint.waiting));
        let circuits = |state| endpoints.iter().filter(|endpoint| endpoint.breaker == state).count() as f64;
        let states = [("open", BreakerState::Open), ("half_open", BreakerState::HalfOpen)];
        page.add(&gauges::CIRCUITS, states.map(|(name, state)| (vec![("state", name)], circuits(state))));
        if let Some((_, webhooks)) = self.dispatcher.webhooks_seen() {
            page.one(&gauges::WEBHOOKS, webhooks as f64);
        }
    }
}

impl Seen {
    fn of(partition: &Partition) -> Self {
        Self {
            topic: partition.topic.clone(),
            number: partition.number.to_string(),
            standing: partition.standing(),
            stage: partition.blocker().map(|blocker| blocker.stage),
            paused: partition.paused.load(Ordering::Relaxed),
        }
    }

    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("topic", &self.topic), ("partition", &self.number)]
    }

    /// Records that are not settled. A record that was not read is not settled either.
    fn unsettled(&self) -> Option<f64> {
        Some(self.standing.lag? as f64 + self.standing.unsettled as f64)
    }

    fn past_due(&self, now_ms: i64) -> f64 {
        let past_due_ms = self.standing.next_due_ms.map_or(0, |due| now_ms.saturating_sub(due).max(0));
        past_due_ms as f64 / 1_000.0
    }
}

fn add_partitions(partitions: &[Seen], page: &mut Page) {
    let now_ms = now_ms();
    let mut add = |gauge, value: &dyn Fn(&Seen) -> Option<f64>| {
        page.add(gauge, partitions.iter().filter_map(|seen| Some((seen.labels(), value(seen)?))));
    };
    add(&gauges::LAG, &|seen| seen.standing.lag.map(|lag| lag as f64));
    add(&gauges::UNSETTLED, &Seen::unsettled);
    add(&gauges::OPEN_OFFSETS, &|seen| Some(seen.standing.open_offsets as f64));
    add(&gauges::OLDEST_UNSETTLED_AGE, &|seen| Some(seen.standing.oldest_age(now_ms).as_secs_f64()));
    add(&gauges::PAST_DUE, &|seen| Some(seen.past_due(now_ms)));
    add(&gauges::PAUSED, &|seen| Some(f64::from(u8::from(seen.paused))));
    let blocked = partitions.iter().filter_map(|seen| {
        let mut labels = seen.labels();
        labels.push(("stage", seen.stage?.as_str()));
        Some((labels, seen.standing.blocked_for.as_secs_f64()))
    });
    page.add(&gauges::WATERMARK_BLOCKED, blocked);
}
