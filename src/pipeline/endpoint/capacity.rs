//! How many permits an endpoint may hold, from what is known of it.

use std::time::Duration;

use super::EndpointLimits;
use crate::pipeline::latency::Pulse;

/// What is known of an endpoint at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Capacity<'a> {
    /// Its limits.
    pub limits: &'a EndpointLimits,
    /// Its requests in flight.
    pub in_flight: usize,
    /// Its deliveries that wait.
    pub waiting: usize,
    /// How many requests it may have in flight.
    pub limit: usize,
    /// How long it takes to answer.
    pub pulse: Pulse,
    /// The time from one request to the next, if its webhook has a rate.
    pub period: Option<Duration>,
    /// Whether a probe is in flight.
    pub is_probing: bool,
}

impl Capacity<'_> {
    /// How many deliveries it will take within `span`, as far as is known.
    fn takes_within(&self, span: Duration) -> usize {
        let limit = if self.is_probing { 1 } else { self.limit };
        let by_latency = match self.pulse {
            Pulse::Unknown => usize::MAX,
            Pulse::Answers(latency) => (times(span, latency) * limit as f64) as usize,
            // What is in flight ends within the time that an attempt may take. Before that nothing does.
            Pulse::Silent if span < self.limits.attempt_max => 0,
            Pulse::Silent => limit,
        };
        let by_rate = self.period.map_or(usize::MAX, |period| times(span, period).ceil() as usize);
        by_latency.min(by_rate)
    }

    /// The permits that it may hold: those that it gives back soon, and for long no more than `slow_part`. Nor does it
    /// hold more for long than what can go now and a short queue behind it, which it will have taken within the time that
    /// a single attempt may take.
    #[must_use]
    pub fn may_hold(&self, slow_part: usize) -> usize {
        let startable = if self.period.is_some() { 1 } else { self.limit.saturating_sub(self.in_flight) };
        let queue = self.limits.queue_max.min(self.takes_within(self.limits.longest_wait()));
        let soon = self.takes_within(self.limits.wait_max);
        soon.saturating_add(slow_part.min(self.in_flight + startable + queue))
    }

    /// The permits that it holds and, as far as is known, doesn't give back within `delivery.endpoint_wait_max`.
    #[must_use]
    pub fn holds_long(&self) -> usize {
        if self.pulse == Pulse::Unknown {
            return self.in_flight;
        }
        (self.in_flight + self.waiting).saturating_sub(self.takes_within(self.limits.wait_max))
    }
}

/// How often `each` goes into `span`.
fn times(span: Duration, each: Duration) -> f64 {
    span.as_secs_f64() / each.as_secs_f64().max(f64::EPSILON)
}
