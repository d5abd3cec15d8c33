//! One endpoint as the pipeline sees it: its lane, and whether and how fast it may be asked.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::breaker::{Breaker, Change, Verdict};
use super::defer::Deferral;
use super::lane::{Lane, Queued};
use super::latency::{Latency, Pulse};
use super::pace::Pace;
use crate::config;
use crate::delivery::{FailureCode, Outcome};
use crate::report::EndpointReport;
use crate::webhook::WebhookId;

/// An endpoint's deliveries and what is known of its health.
#[derive(Debug)]
pub struct Endpoint<T> {
    lane: Lane<T>,
    /// What a person asked for, with the time since when it waits. It goes first, and is never put off because the
    /// endpoint is left alone: it is the probe.
    by_hand: VecDeque<(Instant, T)>,
    pace: Pace,
    latency: Latency,
    breaker: Breaker,
    rate: Option<Rate>,
    /// It asked to be left alone until then (`Retry-After`).
    cooling_until: Option<Instant>,
    /// Raised when it moves: what comes of requests to where it was says nothing of where it is.
    moves: u32,
}

#[derive(Debug)]
struct Rate {
    /// From one request to the next.
    period: Duration,
    limiter: DefaultDirectRateLimiter,
    /// Until then a new limiter would allow more than this one.
    free_at: Instant,
}

/// What to do at an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Send it; then [`Endpoint::finished`].
    Start(T, Started),
    /// Put them off.
    Defer(Vec<T>, Deferral),
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
    moves: u32,
}

impl<T: Queued> Endpoint<T> {
    /// Of which nothing is known yet.
    #[must_use]
    pub fn new(settings: &config::Delivery, now: Instant) -> Self {
        Self {
            lane: Lane::default(),
            by_hand: VecDeque::new(),
            pace: Pace::new(settings.endpoint_in_flight_max),
            latency: Latency::default(),
            breaker: Breaker::new(now),
            rate: None,
            cooling_until: None,
            moves: 0,
        }
    }

    /// Of which a worker before this one knew that it is to be left alone for `wait`.
    #[must_use]
    pub fn backing_off(wait: Duration, settings: &config::Delivery, now: Instant) -> Self {
        Self { breaker: Breaker::opened(wait, now, &settings.breaker), ..Self::new(settings, now) }
    }

    /// Its webhook has another URL: what was known of the old one counts no more. What waits for it goes to the new one.
    pub fn moved(&mut self, settings: &config::Delivery, now: Instant) {
        self.pace = Pace::new(settings.endpoint_in_flight_max);
        self.latency = Latency::default();
        self.breaker = Breaker::new(now);
        self.cooling_until = None;
        self.moves += 1;
    }

    /// Its webhook's `ratePerSecond`, as it is now, kept by so many `workers` together.
    pub fn set_rate(&mut self, per_second: Option<NonZeroU32>, workers: u32, now: Instant) {
        let period = per_second.map(|per_second| Duration::from_secs(workers.into()) / per_second.get());
        if self.rate.as_ref().map(|rate| rate.period) != period {
            let free_at = self.rate.take().map_or(now, |rate| rate.free_at);
            self.rate = period.and_then(|period| {
                let quota = Quota::with_period(period)?.allow_burst(BURST);
                Some(Rate { period, limiter: RateLimiter::direct(quota), free_at })
            });
        }
    }

    /// Queues a delivery.
    pub fn admit(&mut self, item: T, now: Instant) {
        if item.is_by_hand() && self.by_hand.len() < BY_HAND_MAX {
            self.by_hand.push_back((now, item));
        } else {
            self.lane.admit(item, now);
        }
    }

    /// It is known to work, by a test or by another worker's probe: its circuit closes, and what it asked for with a
    /// `Retry-After` is over. Whether it was left alone until now.
    pub fn works(&mut self, now: Instant) -> bool {
        let was_cooling = self.cools_for(now).is_some();
        self.cooling_until = None;
        let was_open = self.breaker.close(now);
        if was_open {
            // What waited for it comes back at its pace, not at ours.
            self.pace.restart();
        }
        was_cooling || was_open
    }

    /// A person asks for it to be tried: an open circuit lets one request through now. A `Retry-After` is kept to by
    /// all but the delivery that the person asked for.
    pub fn try_now(&mut self, settings: &config::Delivery) {
        self.breaker.try_now(false, &settings.breaker);
    }

    /// What to do with what a person asked for; None where it waits, or where there is none.
    fn next_by_hand(&mut self, now: Instant, settings: &config::Delivery) -> Option<Next<T>> {
        if self.by_hand.is_empty() || self.breaker.is_probing() {
            return None;
        }
        let is_unsupported = self.cools_for(now).is_some();
        let is_backing_off = is_unsupported || !self.breaker.is_closed();
        // A probe needn't wait for requests that are under way since before.
        if !is_backing_off && self.lane.in_flight() >= self.limit(settings) {
            return None;
        }
        if let Some(at) = self.rate_allows_at(now) {
            return Some(Next::Later(at));
        }
        self.breaker.try_now(is_unsupported, &settings.breaker);
        let is_probe = self.breaker.ask(now) == Verdict::Probe;
        let (_, item) = self.by_hand.pop_front()?;
        self.lane.start_by_hand();
        Some(Next::Start(item, Started { at: now, is_probe, moves: self.moves }))
    }

    /// Takes one request from the rate; where it has none left, when it has one again.
    fn rate_allows_at(&mut self, now: Instant) -> Option<Instant> {
        let rate = self.rate.as_mut()?;
        if rate.free_at > now {
            return Some(rate.free_at);
        }
        if let Err(not_until) = rate.limiter.check() {
            return Some(now + not_until.wait_time_from(DefaultClock::default().now()));
        }
        rate.free_at = now + rate.period;
        None
    }

    /// What to do now, where it may hold `slow_part` of the places that endpoints may hold for long. Called again until it
    /// gives [`Next::Later`] or [`Next::Nothing`].
    pub fn next(&mut self, now: Instant, slow_part: usize, settings: &config::Delivery) -> Next<T> {
        if let Some(next) = self.next_by_hand(now, settings) {
            return next;
        }
        if self.lane.waiting() == 0 {
            return Next::Nothing;
        }
        let cooling = self.cools_for(now);
        let refused = self.breaker.refuses_for(now);
        if refused.is_some() {
            let backs_off_for = refused.max(cooling);
            return Next::Defer(self.lane.evict(0), Deferral { why: FailureCode::CircuitOpen, backs_off_for });
        }
        if cooling.is_some_and(|wait| wait > settings.endpoint_wait_max) {
            return Next::Defer(self.lane.evict(0), Deferral { why: FailureCode::Saturated, backs_off_for: cooling });
        }
        let may_hold = self.may_hold(slow_part, settings);
        let may_wait = may_hold.saturating_sub(self.lane.in_flight());
        if self.lane.waiting() > may_wait {
            return Next::Defer(self.lane.evict(may_wait), Deferral::SATURATED);
        }
        if let Some(wait) = cooling {
            return Next::Later(now + wait);
        }
        // Of an endpoint that hasn't answered yet any request may take long: one is tried in any case.
        let at_once = if self.pulse(settings) == Pulse::Unknown { slow_part.max(1) } else { may_hold };
        let limit = self.limit(settings).min(at_once);
        if !self.lane.has_next(limit) || self.breaker.is_probing() {
            return Next::Nothing;
        }
        if let Some(at) = self.rate_allows_at(now) {
            return Next::Later(at);
        }
        let is_probe = self.breaker.ask(now) == Verdict::Probe;
        let item = self.lane.next(limit).expect("there is one, as was just seen");
        Next::Start(item, Started { at: now, is_probe, moves: self.moves })
    }

    fn pulse(&self, settings: &config::Delivery) -> Pulse {
        self.latency.pulse(settings.endpoint_wait_max / 2)
    }

    /// Requests at once.
    fn limit(&self, settings: &config::Delivery) -> usize {
        self.pace.limit().min(settings.endpoint_in_flight_max)
    }

    /// How many deliveries it will take within `span`, as far as is known of it.
    fn takes_within(&self, span: Duration, settings: &config::Delivery) -> usize {
        let limit = if self.breaker.is_probing() { 1 } else { self.limit(settings) };
        let by_latency = match self.pulse(settings) {
            Pulse::Unknown => usize::MAX,
            Pulse::Answers(latency) => (times(span, latency) * limit as f64) as usize,
            // What is under way ends within the time that it may take; before, nothing does.
            Pulse::Silent if span < settings.timeout => 0,
            Pulse::Silent => limit,
        };
        let by_rate = self.rate.as_ref().map_or(usize::MAX, |rate| times(span, rate.period).ceil() as usize);
        by_latency.min(by_rate)
    }

    /// Places that it may hold: those that it gives back soon, and for long no more than its part, nor than what can go now
    /// and a short queue behind it, which it will have taken within the time that a single attempt may take.
    fn may_hold(&self, slow_part: usize, settings: &config::Delivery) -> usize {
        let in_flight = self.lane.in_flight();
        let startable = if self.rate.is_some() { 1 } else { self.limit(settings).saturating_sub(in_flight) };
        let queue = settings.endpoint_queue_max.min(self.takes_within(longest_wait(settings), settings));
        let soon = self.takes_within(settings.endpoint_wait_max, settings);
        soon.saturating_add(slow_part.min(in_flight + startable + queue))
    }

    /// Places that it holds and doesn't give back within `endpoint_wait_max`, or may not, for all that is known of it.
    #[must_use]
    pub fn holds_long(&self, settings: &config::Delivery) -> usize {
        if self.pulse(settings) == Pulse::Unknown {
            return self.lane.in_flight();
        }
        let held = self.lane.in_flight() + self.lane.waiting();
        held.saturating_sub(self.takes_within(settings.endpoint_wait_max, settings))
    }

    /// Another `by` has passed.
    pub fn waited(&mut self, by: Duration) {
        if self.lane.in_flight() > 0 {
            self.latency.waited(by);
        }
    }

    /// How long it asked to be left alone yet.
    fn cools_for(&self, now: Instant) -> Option<Duration> {
        self.cooling_until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// What has waited for so long that it must not hold up the commit of its partition any more.
    pub fn overdue(&mut self, now: Instant, settings: &config::Delivery) -> Vec<T> {
        let Some(before) = now.checked_sub(longest_wait(settings)) else { return Vec::new() };
        let mut overdue = self.lane.evict_older(before);
        while self.by_hand.front().is_some_and(|(since, _)| *since <= before) {
            overdue.extend(self.by_hand.pop_front().map(|(_, item)| item));
        }
        overdue
    }

    /// How long it is left alone yet.
    #[must_use]
    pub fn backs_off_for(&self, now: Instant) -> Option<Duration> {
        self.breaker.refuses_for(now).max(self.cools_for(now))
    }

    /// As it is now.
    #[must_use]
    pub fn report(&self, webhook_id: WebhookId, now: Instant) -> EndpointReport {
        EndpointReport {
            webhook_id,
            breaker: self.breaker.state(now),
            backs_off_ms: self.backs_off_for(now).map(|left| left.as_millis() as u64),
            in_flight: self.lane.in_flight(),
            limit: self.pace.limit(),
            waiting: self.lane.waiting() + self.by_hand.len(),
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
        if started.moves != self.moves {
            return None;
        }
        let Some(outcome) = outcome else {
            if started.is_probe {
                self.breaker.abandon();
            }
            return None;
        };
        self.latency.answered(now.saturating_duration_since(started.at));
        let succeeded = outcome.failure.is_none();
        if succeeded {
            self.pace.succeeded(settings.endpoint_in_flight_max);
        } else if is_overload(outcome) {
            self.pace.overloaded(started.at, now);
        }
        if let Some(asked) = outcome.retry_after.filter(|_| !succeeded) {
            let until = now + asked.min(settings.retry_after_max);
            self.cooling_until = Some(self.cooling_until.map_or(until, |held| held.max(until)));
        }
        let change = self.breaker.record(succeeded, started.is_probe, started.at, now, &settings.breaker);
        if change == Some(Change::Closed) {
            // A probe that a person asked for may succeed before the time that the endpoint asked for is over.
            self.cooling_until = None;
            // What waited for it comes back at its pace, not at ours.
            self.pace.restart();
        }
        change
    }

    /// Nothing waits and nothing is known against it: it can be forgotten.
    #[must_use]
    pub fn is_forgettable(&self, now: Instant, settings: &config::Delivery) -> bool {
        self.is_idle()
            && self.pace.limit() >= settings.endpoint_in_flight_max
            && self.cooling_until.is_none_or(|until| until <= now)
            && self.rate.as_ref().is_none_or(|rate| rate.free_at <= now)
            && self.breaker.is_spotless(now, &settings.breaker)
    }

    /// Nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lane.is_idle() && self.by_hand.is_empty()
    }
}

/// What waits in a lane holds up the commit of its partition: it may wait no longer than the attempt it waits for may take.
fn longest_wait(settings: &config::Delivery) -> Duration {
    settings.timeout.max(settings.endpoint_wait_max)
}

/// How often `each` goes into `span`.
fn times(span: Duration, each: Duration) -> f64 {
    span.as_secs_f64() / each.as_secs_f64().max(f64::EPSILON)
}

/// Deliveries that people asked for and that wait at one endpoint; more of them are treated like all others.
const BY_HAND_MAX: usize = 16;

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

    /// Of the places that endpoints may hold for long.
    const SLOW_PART: usize = 100;
    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Debug, PartialEq, Eq)]
    struct Item(usize);
    impl Queued for Item {
        fn order_key(&self) -> Option<u64> {
            None
        }

        fn is_by_hand(&self) -> bool {
            self.0 >= BY_HAND
        }
    }

    /// Items from this number on are what a person asked for.
    const BY_HAND: usize = 1_000_000;

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
        match endpoint.next(Instant::now(), SLOW_PART, settings) {
            Next::Start(_, started) => started,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_go_at_once_than_the_limit_and_overload_lowers_it() {
        let (mut endpoint, settings) = endpoint(10);
        let started: Vec<Started> = (0..4).map(|_| start(&mut endpoint, &settings)).collect();
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART, &settings), Next::Nothing);
        endpoint.finished(None, started[0], Some(answered(503)), Instant::now(), &settings);
        assert_eq!(
            endpoint.next(Instant::now(), SLOW_PART, &settings),
            Next::Nothing,
            "three are in flight, two are allowed"
        );
        endpoint.finished(None, started[1], None, Instant::now(), &settings);
        endpoint.finished(None, started[2], None, Instant::now(), &settings);
        start(&mut endpoint, &settings);
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART, &settings), Next::Nothing);
    }

    /// Everything that is put off now; what may start does.
    fn defer(endpoint: &mut Endpoint<Item>, part: usize, settings: &config::Delivery) -> Vec<usize> {
        let mut all = Vec::new();
        loop {
            match endpoint.next(Instant::now(), part, settings) {
                Next::Defer(items, deferral) => {
                    assert_eq!(deferral, Deferral::SATURATED);
                    all.extend(items.into_iter().map(|item| item.0));
                }
                Next::Start(..) => {}
                Next::Later(_) | Next::Nothing => return all,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_falls_silent_keeps_a_short_queue_and_no_more_than_its_part() {
        let (mut endpoint, settings) = endpoint(1_000);
        assert!(defer(&mut endpoint, 2, &settings).is_empty(), "nothing is known of it yet");
        assert_eq!(endpoint.lane.in_flight(), 2, "and it gets no more than its part");
        assert_eq!(endpoint.holds_long(&settings), 2);
        assert!(defer(&mut endpoint, SLOW_PART, &settings).is_empty());
        for _ in 0..4 {
            endpoint.waited(SECOND / 10);
        }
        let left = defer(&mut endpoint, SLOW_PART, &settings).len();
        assert_eq!((left, endpoint.lane.in_flight(), endpoint.lane.waiting()), (994, 4, 2));
        assert_eq!(endpoint.holds_long(&settings), 6);
        assert_eq!(defer(&mut endpoint, 3, &settings).len(), 2, "none may wait where its part is in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_nothing_is_known_of_is_tried_in_any_case() {
        let (mut endpoint, settings) = endpoint(2);
        assert!(defer(&mut endpoint, 0, &settings).is_empty());
        assert_eq!((endpoint.lane.in_flight(), endpoint.lane.waiting()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_slow_starts_no_more_than_its_part() {
        let (mut endpoint, settings) = endpoint(1);
        let started = start(&mut endpoint, &settings);
        tokio::time::advance(9 * SECOND).await;
        endpoint.finished(None, started, Some(answered(200)), Instant::now(), &settings);
        for item in 1..=8 {
            endpoint.admit(Item(item), Instant::now());
        }
        assert_eq!(defer(&mut endpoint, 3, &settings).len(), 5);
        assert_eq!(endpoint.lane.in_flight() + endpoint.lane.waiting(), 3);
        assert_eq!(endpoint.holds_long(&settings), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_fast_keeps_what_it_takes_soon() {
        let (mut endpoint, settings) = endpoint(1);
        let started = start(&mut endpoint, &settings);
        tokio::time::advance(SECOND / 100).await;
        endpoint.finished(None, started, Some(answered(200)), Instant::now(), &settings);
        for item in 1..=300 {
            endpoint.admit(Item(item), Instant::now());
        }
        // Four at once, each 10 ms: 200 within half a second; beside them four that go now, and two behind those.
        assert_eq!(defer(&mut endpoint, SLOW_PART, &settings).len(), 300 - 206);
        assert_eq!(endpoint.holds_long(&settings), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_low_rate_no_more_wait_than_it_lets_through() {
        let (mut endpoint, mut settings) = endpoint(50);
        settings.endpoint_queue_max = 30;
        endpoint.set_rate(NonZeroU32::new(2), 1, Instant::now());
        // At two a second: 1 within half a second; beside it one that goes now, and 20 within the time of an attempt.
        assert_eq!(defer(&mut endpoint, SLOW_PART, &settings).len(), 50 - 22);
        endpoint.set_rate(NonZeroU32::new(2), 4, Instant::now());
        assert_eq!(defer(&mut endpoint, SLOW_PART, &settings).len(), 21 - 7, "four workers share it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_for_as_long_as_an_attempt_may_take_leaves() {
        let (mut endpoint, settings) = endpoint(6);
        for _ in 0..4 {
            start(&mut endpoint, &settings);
        }
        tokio::time::advance(settings.timeout - SECOND).await;
        endpoint.admit(Item(6), Instant::now());
        assert_eq!(endpoint.overdue(Instant::now(), &settings), []);
        tokio::time::advance(SECOND).await;
        assert_eq!(endpoint.overdue(Instant::now(), &settings), [Item(4), Item(5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_that_moves_is_tried_at_once_and_what_comes_from_where_it_was_says_nothing() {
        let (mut endpoint, settings) = endpoint(4);
        let started: Vec<Started> = (0..4).map(|_| start(&mut endpoint, &settings)).collect();
        for started in &started[..3] {
            endpoint.finished(None, *started, Some(answered(500)), Instant::now(), &settings);
        }
        assert!(endpoint.backs_off_for(Instant::now()).is_some());
        endpoint.moved(&settings, Instant::now());
        endpoint.admit(Item(4), Instant::now());
        start(&mut endpoint, &settings);
        let asked = Outcome { retry_after: Some(SECOND * 60), ..answered(503) };
        endpoint.finished(None, started[3], Some(asked), Instant::now(), &settings);
        assert_eq!((endpoint.backs_off_for(Instant::now()), endpoint.limit(&settings)), (None, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_worker_before_knew_is_kept_to() {
        let (_, settings) = endpoint(0);
        let mut endpoint = Endpoint::backing_off(SECOND * 60, &settings, Instant::now());
        endpoint.admit(Item(0), Instant::now());
        let deferral = Deferral { why: FailureCode::CircuitOpen, backs_off_for: Some(SECOND * 60) };
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART, &settings), Next::Defer(vec![Item(0)], deferral));
        tokio::time::advance(SECOND * 60).await;
        endpoint.admit(Item(1), Instant::now());
        assert!(start(&mut endpoint, &settings).is_probe);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_puts_all_off_and_a_probe_that_succeeds_lets_them_in_one_by_one() {
        let (mut endpoint, settings) = endpoint(5);
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint, &settings)).collect();
        for started in started {
            endpoint.finished(None, started, Some(answered(500)), Instant::now(), &settings);
        }
        let open = settings.breaker.open_initial;
        let deferral = Deferral { why: FailureCode::CircuitOpen, backs_off_for: Some(open) };
        assert!(
            matches!(endpoint.next(Instant::now(), SLOW_PART, &settings), Next::Defer(items, why) if items.len() == 2 && why == deferral)
        );
        tokio::time::advance(open).await;
        endpoint.admit(Item(5), Instant::now());
        endpoint.admit(Item(6), Instant::now());
        let probe = start(&mut endpoint, &settings);
        assert_eq!(
            endpoint.next(Instant::now(), SLOW_PART, &settings),
            Next::Nothing,
            "one probe at a time; the other waits for it"
        );
        assert_eq!(
            endpoint.finished(None, probe, Some(answered(200)), Instant::now(), &settings),
            Some(Change::Closed)
        );
        endpoint.admit(Item(7), Instant::now());
        start(&mut endpoint, &settings);
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART, &settings), Next::Nothing, "at its own pace");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_person_asks_for_goes_at_once_as_the_probe_of_an_open_circuit() {
        let (mut endpoint, settings) = endpoint(5);
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint, &settings)).collect();
        for started in started {
            endpoint.finished(None, started, Some(answered(500)), Instant::now(), &settings);
        }
        endpoint.admit(Item(BY_HAND), Instant::now());
        endpoint.admit(Item(BY_HAND + 1), Instant::now());
        let Next::Start(Item(BY_HAND), probe) = endpoint.next(Instant::now(), SLOW_PART, &settings) else {
            panic!("it goes first")
        };
        assert!(probe.is_probe);
        assert_eq!(
            endpoint.next(Instant::now(), SLOW_PART, &settings),
            Next::Nothing,
            "all others wait for its answer"
        );
        let opened = endpoint.finished(None, probe, Some(answered(500)), Instant::now(), &settings);
        assert_eq!(opened, Some(Change::Opened(settings.breaker.open_initial * 2)));
        let Next::Start(Item(next), probe) = endpoint.next(Instant::now(), SLOW_PART, &settings) else {
            panic!("the circuit is open, and the next that a person asked for is a probe as well")
        };
        assert_eq!((next, probe.is_probe), (BY_HAND + 1, true));
        let closed = endpoint.finished(None, probe, Some(answered(200)), Instant::now(), &settings);
        assert_eq!((closed, endpoint.backs_off_for(Instant::now())), (Some(Change::Closed), None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_person_asks_for_does_not_wait_for_a_retry_after_and_its_success_ends_that() {
        let (mut endpoint, settings) = endpoint(1);
        let started = start(&mut endpoint, &settings);
        let asked = Outcome { retry_after: Some(SECOND * 3_600), ..answered(429) };
        endpoint.finished(None, started, Some(asked), Instant::now(), &settings);
        endpoint.try_now(&settings);
        endpoint.admit(Item(1), Instant::now());
        endpoint.admit(Item(BY_HAND), Instant::now());
        let probe = start(&mut endpoint, &settings);
        assert!(probe.is_probe);
        assert!(
            matches!(endpoint.next(Instant::now(), SLOW_PART, &settings), Next::Defer(..)),
            "others keep to what it asked for"
        );
        endpoint.finished(None, probe, Some(answered(200)), Instant::now(), &settings);
        assert_eq!(endpoint.backs_off_for(Instant::now()), None);
        endpoint.admit(Item(2), Instant::now());
        start(&mut endpoint, &settings);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_known_to_work_is_left_alone_no_more() {
        let (mut endpoint, settings) = endpoint(3);
        let asked = Outcome { retry_after: Some(SECOND * 3_600), ..answered(503) };
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint, &settings)).collect();
        for started in started {
            endpoint.finished(None, started, Some(asked), Instant::now(), &settings);
        }
        assert!(endpoint.works(Instant::now()));
        assert_eq!(endpoint.backs_off_for(Instant::now()), None);
        assert!(!endpoint.works(Instant::now()), "now it is no news");
        endpoint.admit(Item(3), Instant::now());
        start(&mut endpoint, &settings);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_holds_the_endpoints_other_deliveries() {
        let (mut endpoint, settings) = endpoint(2);
        let started = start(&mut endpoint, &settings);
        let minute = Duration::from_secs(60);
        let asked = Outcome { retry_after: Some(minute), ..answered(429) };
        endpoint.finished(None, started, Some(asked), Instant::now(), &settings);
        let deferral = Deferral { why: FailureCode::Saturated, backs_off_for: Some(minute) };
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART, &settings), Next::Defer(vec![Item(1)], deferral));
        tokio::time::advance(minute).await;
        endpoint.admit(Item(2), Instant::now());
        start(&mut endpoint, &settings);
    }

    #[tokio::test]
    async fn a_rate_limit_spaces_requests_out() {
        let (mut endpoint, settings) = endpoint(2);
        endpoint.set_rate(NonZeroU32::new(10), 1, Instant::now());
        start(&mut endpoint, &settings);
        let Next::Later(at) = endpoint.next(Instant::now(), SLOW_PART, &settings) else {
            panic!("the second may not go yet")
        };
        assert!(at <= Instant::now() + Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_endpoint_with_a_rate_is_not_forgotten_before_its_next_request_may_go() {
        let (mut endpoint, settings) = endpoint(1);
        endpoint.set_rate(NonZeroU32::new(10), 1, Instant::now());
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
        let deferral = Deferral { why: FailureCode::CircuitOpen, backs_off_for: Some(hold) };
        assert!(matches!(endpoint.next(Instant::now(), SLOW_PART, &settings), Next::Defer(_, why) if why == deferral));
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
