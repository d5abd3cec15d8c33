//! One endpoint as the pipeline sees it: its lane, and whether and how fast it may be asked.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::breaker::{Breaker, Change, Verdict};
use super::lane::{Lane, Queued};
use super::pace::Pace;
use crate::config;
use crate::delivery::{FailureCode, Outcome};
use crate::report::EndpointReport;
use crate::webhook::WebhookId;

/// An endpoint's deliveries and what is known of its health.
#[derive(Debug)]
pub struct Endpoint<T> {
    lane: Lane<T>,
    pace: Pace,
    breaker: Breaker,
    rate: Option<Rate>,
    /// It asked to be left alone until then (`Retry-After`).
    held_until: Option<Instant>,
}

#[derive(Debug)]
struct Rate {
    per_second: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
    /// Until then a new limiter would allow more than this one.
    free_at: Instant,
}

/// Why deliveries are put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deferral {
    /// `saturated` or `circuit_open`.
    pub why: FailureCode,
    /// How long the endpoint will be left alone; None where it works, and has its hands full.
    pub left_alone: Option<Duration>,
}

/// What to do at an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Send it; then [`Endpoint::finished`].
    Start(T, Started),
    /// Put them off.
    PutOff(Vec<T>, Deferral),
    /// Look again then.
    Later(Instant),
    /// Nothing until something changes.
    Nothing,
}

/// A request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    at: Instant,
    is_probe: bool,
}

impl<T: Queued> Endpoint<T> {
    /// Of which nothing is known yet.
    #[must_use]
    pub fn new(settings: &config::Delivery, now: Instant) -> Self {
        Self {
            lane: Lane::default(),
            pace: Pace::new(settings.endpoint_in_flight_max),
            breaker: Breaker::new(now),
            rate: None,
            held_until: None,
        }
    }

    /// Its webhook's `ratePerSecond`, as it is now.
    pub fn set_rate(&mut self, per_second: Option<NonZeroU32>, now: Instant) {
        if self.rate.as_ref().map(|rate| rate.per_second) != per_second {
            self.rate = per_second.map(|per_second| Rate {
                per_second,
                limiter: RateLimiter::direct(Quota::per_second(per_second).allow_burst(BURST)),
                free_at: now,
            });
        }
    }

    /// Queues a delivery.
    pub fn admit(&mut self, item: T, now: Instant) {
        self.lane.admit(item, now);
    }

    /// What to do now. Called again until it gives [`Next::Later`] or [`Next::Nothing`].
    pub fn next(&mut self, now: Instant, settings: &config::Delivery) -> Next<T> {
        if self.lane.waiting() == 0 {
            return Next::Nothing;
        }
        let held = self.held(now);
        let refused = self.breaker.refuses_for(now);
        if refused.is_some() {
            let left_alone = refused.max(held);
            return Next::PutOff(self.lane.evict(0), Deferral { why: FailureCode::CircuitOpen, left_alone });
        }
        if let Some(wait) = held {
            if wait <= settings.endpoint_wait_max {
                return Next::Later(now + wait);
            }
            return Next::PutOff(self.lane.evict(0), Deferral { why: FailureCode::Saturated, left_alone: held });
        }
        let limit = self.pace.limit().min(settings.endpoint_in_flight_max);
        if !self.lane.has_next(limit) || self.breaker.is_probing() {
            return Next::Nothing;
        }
        if let Some(rate) = &self.rate
            && let Err(not_until) = rate.limiter.check()
        {
            return Next::Later(now + not_until.wait_time_from(DefaultClock::default().now()));
        }
        if let Some(rate) = &mut self.rate {
            rate.free_at = now + Duration::from_secs(1) / rate.per_second.get();
        }
        let is_probe = self.breaker.ask(now) == Verdict::Probe;
        let item = self.lane.next(limit).expect("there is one, as was just seen");
        Next::Start(item, Started { at: now, is_probe })
    }

    /// How long it asked to be left alone yet.
    fn held(&self, now: Instant) -> Option<Duration> {
        self.held_until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// What has waited so long that the endpoint is saturated: all but a short queue of it.
    pub fn overdue(&mut self, now: Instant, settings: &config::Delivery) -> Vec<T> {
        if self.lane.wait(now).is_none_or(|wait| wait <= settings.endpoint_wait_max) {
            return Vec::new();
        }
        self.lane.evict(settings.endpoint_queue_max.min(self.pace.limit()))
    }

    /// As it is now.
    #[must_use]
    pub fn report(&self, webhook_id: WebhookId, now: Instant) -> EndpointReport {
        let left_alone = self.breaker.refuses_for(now).max(self.held(now));
        EndpointReport {
            webhook_id,
            breaker: self.breaker.state(now),
            left_alone_ms: left_alone.map(|left| left.as_millis() as u64),
            in_flight: self.lane.in_flight(),
            limit: self.pace.limit(),
            waiting: self.lane.waiting(),
        }
    }

    /// A request is over; `outcome` is None if it was given up without a result.
    pub fn finished(
        &mut self,
        order_key: Option<u64>,
        started: Started,
        outcome: Option<Outcome>,
        now: Instant,
        settings: &config::Delivery,
    ) -> Option<Change> {
        self.lane.finished(order_key);
        let Some(outcome) = outcome else {
            if started.is_probe {
                self.breaker.abandon();
            }
            return None;
        };
        let succeeded = outcome.failure.is_none();
        if succeeded {
            self.pace.succeeded(settings.endpoint_in_flight_max);
        } else if is_overload(outcome) {
            self.pace.overloaded(started.at, now);
        }
        if let Some(asked) = outcome.retry_after.filter(|_| !succeeded) {
            let until = now + asked.min(settings.retry_after_max);
            self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
        }
        let change = self.breaker.record(succeeded, started.is_probe, now, &settings.breaker);
        if change == Some(Change::Closed) {
            // What waited for it comes back at its pace, not at ours.
            self.pace.restart();
        }
        change
    }

    /// Nothing waits and nothing is known against it: it can be forgotten.
    #[must_use]
    pub fn is_forgettable(&self, now: Instant, settings: &config::Delivery) -> bool {
        self.lane.is_idle()
            && self.pace.limit() >= settings.endpoint_in_flight_max
            && self.held_until.is_none_or(|until| until <= now)
            && self.rate.as_ref().is_none_or(|rate| rate.free_at <= now)
            && self.breaker.is_spotless(now, &settings.breaker)
    }

    /// Nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lane.is_idle()
    }
}

/// Requests that may go at once after a pause; the rest of a second's follow evenly.
const BURST: NonZeroU32 = NonZeroU32::MIN;

/// Signs that an endpoint has more to do than it can.
fn is_overload(outcome: Outcome) -> bool {
    outcome.failure == Some(FailureCode::Timeout) || matches!(outcome.status, Some(429 | 502 | 503 | 504))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[derive(Debug, PartialEq, Eq)]
    struct Item(usize);
    impl Queued for Item {
        fn order_key(&self) -> Option<u64> {
            None
        }
    }

    fn answered(status: u16) -> Outcome {
        let failure = (status != 200).then_some(FailureCode::Status);
        Outcome { failure, status: Some(status), retry_after: None }
    }

    fn endpoint(items: usize) -> (Endpoint<Item>, config::Delivery) {
        let mut settings = Config::built_in().delivery;
        settings.endpoint_in_flight_max = 4;
        settings.endpoint_queue_max = 2;
        settings.breaker.attempts_min = 3;
        let mut endpoint = Endpoint::new(&settings, Instant::now());
        for item in 0..items {
            endpoint.admit(Item(item), Instant::now());
        }
        (endpoint, settings)
    }

    fn start(endpoint: &mut Endpoint<Item>, settings: &config::Delivery) -> Started {
        match endpoint.next(Instant::now(), settings) {
            Next::Start(_, started) => started,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_go_at_once_than_the_limit_and_overload_lowers_it() {
        let (mut endpoint, settings) = endpoint(10);
        let started: Vec<Started> = (0..4).map(|_| start(&mut endpoint, &settings)).collect();
        assert_eq!(endpoint.next(Instant::now(), &settings), Next::Nothing);
        endpoint.finished(None, started[0], Some(answered(503)), Instant::now(), &settings);
        assert_eq!(endpoint.next(Instant::now(), &settings), Next::Nothing, "three are in flight, two are allowed");
        endpoint.finished(None, started[1], None, Instant::now(), &settings);
        endpoint.finished(None, started[2], None, Instant::now(), &settings);
        start(&mut endpoint, &settings);
        assert_eq!(endpoint.next(Instant::now(), &settings), Next::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_too_long_leaves_all_but_a_short_queue() {
        let (mut endpoint, settings) = endpoint(10);
        for _ in 0..4 {
            start(&mut endpoint, &settings);
        }
        assert!(endpoint.overdue(Instant::now(), &settings).is_empty());
        tokio::time::advance(settings.endpoint_wait_max + Duration::from_millis(1)).await;
        assert_eq!(endpoint.overdue(Instant::now(), &settings).len(), 4, "of six, two may wait");
        assert!(endpoint.overdue(Instant::now(), &settings).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_puts_all_off_and_a_probe_that_succeeds_lets_them_in_one_by_one() {
        let (mut endpoint, settings) = endpoint(5);
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint, &settings)).collect();
        for started in started {
            endpoint.finished(None, started, Some(answered(500)), Instant::now(), &settings);
        }
        let open = settings.breaker.open_initial;
        let deferral = Deferral { why: FailureCode::CircuitOpen, left_alone: Some(open) };
        assert!(
            matches!(endpoint.next(Instant::now(), &settings), Next::PutOff(items, why) if items.len() == 2 && why == deferral)
        );
        tokio::time::advance(open).await;
        endpoint.admit(Item(5), Instant::now());
        endpoint.admit(Item(6), Instant::now());
        let probe = start(&mut endpoint, &settings);
        assert_eq!(
            endpoint.next(Instant::now(), &settings),
            Next::Nothing,
            "one probe at a time; the other waits for it"
        );
        assert_eq!(
            endpoint.finished(None, probe, Some(answered(200)), Instant::now(), &settings),
            Some(Change::Closed)
        );
        endpoint.admit(Item(7), Instant::now());
        start(&mut endpoint, &settings);
        assert_eq!(endpoint.next(Instant::now(), &settings), Next::Nothing, "at its own pace");
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_holds_the_endpoints_other_deliveries() {
        let (mut endpoint, settings) = endpoint(2);
        let started = start(&mut endpoint, &settings);
        let minute = Duration::from_secs(60);
        let asked = Outcome { retry_after: Some(minute), ..answered(429) };
        endpoint.finished(None, started, Some(asked), Instant::now(), &settings);
        let deferral = Deferral { why: FailureCode::Saturated, left_alone: Some(minute) };
        assert_eq!(endpoint.next(Instant::now(), &settings), Next::PutOff(vec![Item(1)], deferral));
        tokio::time::advance(minute).await;
        endpoint.admit(Item(2), Instant::now());
        start(&mut endpoint, &settings);
    }

    #[tokio::test]
    async fn a_rate_limit_spaces_requests_out() {
        let (mut endpoint, settings) = endpoint(2);
        endpoint.set_rate(NonZeroU32::new(10), Instant::now());
        start(&mut endpoint, &settings);
        let Next::Later(at) = endpoint.next(Instant::now(), &settings) else { panic!("the second may not go yet") };
        assert!(at <= Instant::now() + Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_endpoint_with_a_rate_is_not_forgotten_before_its_next_request_may_go() {
        let (mut endpoint, settings) = endpoint(1);
        endpoint.set_rate(NonZeroU32::new(10), Instant::now());
        let started = start(&mut endpoint, &settings);
        endpoint.finished(None, started, Some(answered(200)), Instant::now(), &settings);
        assert!(!endpoint.is_forgettable(Instant::now(), &settings), "a new one would let the next go at once");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(endpoint.is_forgettable(Instant::now(), &settings));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_that_is_longer_than_the_breakers_time_counts() {
        let (mut endpoint, settings) = endpoint(5);
        let hold = settings.breaker.open_initial * 10;
        let asked = Outcome { retry_after: Some(hold), ..answered(503) };
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint, &settings)).collect();
        for started in started {
            endpoint.finished(None, started, Some(asked), Instant::now(), &settings);
        }
        let deferral = Deferral { why: FailureCode::CircuitOpen, left_alone: Some(hold) };
        assert!(matches!(endpoint.next(Instant::now(), &settings), Next::PutOff(_, why) if why == deferral));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_with_a_past_is_not_forgotten() {
        let (mut endpoint, settings) = endpoint(1);
        assert!(!endpoint.is_forgettable(Instant::now(), &settings));
        let started = start(&mut endpoint, &settings);
        endpoint.finished(None, started, Some(answered(500)), Instant::now(), &settings);
        assert!(!endpoint.is_forgettable(Instant::now(), &settings));
        tokio::time::advance(settings.breaker.window).await;
        assert!(endpoint.is_forgettable(Instant::now(), &settings));
    }
}
