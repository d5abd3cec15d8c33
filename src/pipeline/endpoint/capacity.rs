//! The number of permits that an endpoint may hold, given what is known about it.

use std::time::Duration;

use super::{Endpoint, EndpointLimits};
use crate::pipeline::lane::Queued;
use crate::pipeline::latency::Pulse;

/// The facts about an endpoint at one moment that decide how many permits it may hold.
#[derive(Debug, Clone, Copy)]
pub struct Capacity<'a> {
    /// Its limits.
    pub limits: &'a EndpointLimits,
    /// Its requests in flight.
    pub in_flight: usize,
    /// Its deliveries that wait.
    pub waiting: usize,
    /// The number of requests that it may have in flight.
    pub limit: usize,
    /// Its response time.
    pub pulse: Pulse,
    /// The time from one request to the next, if its webhook has a rate.
    pub period: Option<Duration>,
    /// Whether a probe is in flight.
    pub is_probing: bool,
}

impl Capacity<'_> {
    /// The number of deliveries that it is expected to take within `span`.
    fn takes_within(&self, span: Duration) -> usize {
        let limit = if self.is_probing { 1 } else { self.limit };
        let by_latency = match self.pulse {
            Pulse::Unknown => usize::MAX,
            Pulse::Answers(latency) => (times(span, latency) * limit as f64) as usize,
            // Its requests in flight end when an attempt times out, and not before.
            Pulse::Silent if span < self.limits.attempt_max => 0,
            Pulse::Silent => limit,
        };
        let by_rate = self.period.map_or(usize::MAX, |period| times(span, period).ceil() as usize);
        by_latency.min(by_rate)
    }

    /// The permits that it may hold: those that it gives back soon, and at most `slow_part` that it holds for long. The
    /// latter are no more than the requests that are in flight or can start now, and a short queue. The queue is no
    /// longer than what the endpoint takes within the time of a single attempt.
    #[must_use]
    pub fn may_hold(&self, slow_part: usize) -> usize {
        let startable = if self.period.is_some() { 1 } else { self.limit.saturating_sub(self.in_flight) };
        let queue = self.limits.queue_max.min(self.takes_within(self.limits.longest_wait()));
        let soon = self.takes_within(self.limits.wait_max);
        soon.saturating_add(slow_part.min(self.in_flight + startable + queue))
    }

    /// The permits that it holds and is not expected to give back within `delivery.endpoint_wait_max`.
    #[must_use]
    pub fn holds_long(&self) -> usize {
        if self.pulse == Pulse::Unknown {
            return self.in_flight;
        }
        (self.in_flight + self.waiting).saturating_sub(self.takes_within(self.limits.wait_max))
    }
}

impl<T: Queued> Endpoint<T> {
    /// Whether it is known to be slow, and holds permits that it doesn't give back soon. Nothing is known about an endpoint
    /// that has not had the time to answer yet.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.pulse() != Pulse::Unknown && self.holds_long() > 0
    }
}

/// The number of times that `each` fits into `span`.
fn times(span: Duration, each: Duration) -> f64 {
    span.as_secs_f64() / each.as_secs_f64().max(f64::EPSILON)
}
