//! One endpoint: its lane, and whether and how fast it may get requests.

mod capacity;
mod limits;
mod rate;
mod step;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, Change, Verdict};
use super::lane::{Lane, Queued};
use super::latency::{Latency, Pulse};
use super::pace::Pace;
use crate::delivery::{Deferral, FailureCode, Outcome};
use crate::report::EndpointReport;
use crate::webhook::WebhookId;
use capacity::Capacity;
pub use limits::EndpointLimits;
use rate::Rate;
pub use step::{Next, Started};

/// The most redeliveries that wait at one endpoint. Further ones are treated like all other deliveries.
const REDELIVERIES_MAX: usize = 16;

/// One endpoint: its deliveries and its health.
#[derive(Debug)]
pub struct Endpoint<T> {
    limits: Arc<EndpointLimits>,
    lane: Lane<T>,
    /// Redeliveries, each with the time when it was queued. As probes they go first, even while the endpoint backs off.
    redeliveries: VecDeque<(Instant, T)>,
    pace: Pace,
    latency: Latency,
    breaker: Breaker,
    rate: Option<Rate>,
    /// The end of the pause that its `Retry-After` asked for.
    cooling_until: Option<Instant>,
    /// The number of times that the endpoint moved. Outcomes of requests to the old URL say nothing about the new one.
    moves: u32,
}

impl<T: Queued> Endpoint<T> {
    /// A newly seen endpoint, with no history.
    #[must_use]
    pub fn new(limits: &Arc<EndpointLimits>, now: Instant) -> Self {
        Self {
            lane: Lane::default(),
            redeliveries: VecDeque::new(),
            pace: Pace::new(limits.in_flight_max),
            latency: Latency::default(),
            breaker: Breaker::new(now),
            rate: None,
            cooling_until: None,
            moves: 0,
            limits: limits.clone(),
        }
    }

    /// An endpoint that backs off for `wait`, as another worker has found.
    #[must_use]
    pub fn backing_off(wait: Duration, limits: &Arc<EndpointLimits>, now: Instant) -> Self {
        Self { breaker: Breaker::opened(wait, now, &limits.breaker), ..Self::new(limits, now) }
    }

    /// Forgets the history of the old URL, because the webhook has a new one. Deliveries that wait go to the new URL.
    pub fn moved(&mut self, now: Instant) {
        self.pace = Pace::new(self.limits.in_flight_max);
        self.latency = Latency::default();
        self.breaker = Breaker::new(now);
        self.cooling_until = None;
        self.moves += 1;
    }

    /// Sets the webhook's `ratePerSecond`, which is divided among `workers` workers.
    pub fn set_rate(&mut self, per_second: Option<NonZeroU32>, workers: u32, now: Instant) {
        let period = per_second.map(|per_second| Rate::period_of(per_second, workers));
        if self.rate.as_ref().map(Rate::period) != period {
            let free_at = self.rate.take().map_or(now, |rate| rate.free_at());
            self.rate = period.and_then(|period| Rate::new(period, free_at));
        }
    }

    /// Queues a delivery.
    pub fn admit(&mut self, item: T, now: Instant) {
        if item.is_redelivery() && self.redeliveries.len() < REDELIVERIES_MAX {
            self.redeliveries.push_back((now, item));
        } else {
            self.lane.admit(item, now);
        }
    }

    /// Ends the back-off, because a test or another worker's probe has succeeded. Returns whether it was backing off.
    pub fn recovered(&mut self, now: Instant) -> bool {
        let was_cooling = self.cooling_until.take().is_some_and(|until| until > now);
        let was_open = self.breaker.close(now);
        if was_open {
            self.pace.restart();
        }
        was_cooling || was_open
    }

    /// Lets one request through an open circuit, because a person asked to try the endpoint now. While the endpoint
    /// cools down, only the redelivery that the person asked for goes.
    pub fn try_now(&mut self) {
        self.breaker.try_now(false, &self.limits.breaker);
    }

    /// The next step with a redelivery. None if there is no redelivery, or if it has to wait.
    fn next_redelivery(&mut self, now: Instant) -> Option<Next<T>> {
        if self.redeliveries.is_empty() || self.breaker.is_probing() {
            return None;
        }
        let is_cooling = self.cools_for(now).is_some();
        let is_backing_off = is_cooling || !self.breaker.is_closed();
        // A probe doesn't wait for requests that were started before.
        if !is_backing_off && self.lane.in_flight() >= self.limit() {
            return None;
        }
        if let Err(at) = self.take_from_rate(now) {
            return Some(Next::Later(at));
        }
        self.breaker.try_now(is_cooling, &self.limits.breaker);
        let is_probe = self.breaker.ask(now) == Verdict::Probe;
        let (_, item) = self.redeliveries.pop_front()?;
        self.lane.start_redelivery();
        Some(Next::Start(item, Started { at: now, is_probe, moves: self.moves }))
    }

    fn take_from_rate(&mut self, now: Instant) -> Result<(), Instant> {
        self.rate.as_mut().map_or(Ok(()), |rate| rate.take(now))
    }

    /// The next step, if the endpoint may hold `slow_part` of the permits that endpoints may hold for long. Call it
    /// again until it returns [`Next::Later`] or [`Next::Nothing`].
    pub fn next(&mut self, now: Instant, slow_part: usize) -> Next<T> {
        if let Some(next) = self.next_redelivery(now) {
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
        if cooling.is_some_and(|wait| wait > self.limits.wait_max) {
            return Next::Defer(self.lane.evict(0), Deferral { why: FailureCode::Saturated, backs_off_for: cooling });
        }
        let may_hold = self.capacity().may_hold(slow_part);
        let may_wait = may_hold.saturating_sub(self.lane.in_flight());
        if self.lane.waiting() > may_wait {
            return Next::Defer(self.lane.evict(may_wait), Deferral::SATURATED);
        }
        if let Some(wait) = cooling {
            return Next::Later(now + wait);
        }
        // Any request to an endpoint that hasn't answered yet may take long. At least one request is always tried.
        let at_once = if self.pulse() == Pulse::Unknown { slow_part.max(1) } else { may_hold };
        let limit = self.limit().min(at_once);
        if !self.lane.has_next(limit) || self.breaker.is_probing() {
            return Next::Nothing;
        }
        if let Err(at) = self.take_from_rate(now) {
            return Next::Later(at);
        }
        let is_probe = self.breaker.ask(now) == Verdict::Probe;
        let item = self.lane.next(limit).expect("has_next returned true above");
        Next::Start(item, Started { at: now, is_probe, moves: self.moves })
    }

    fn pulse(&self) -> Pulse {
        self.latency.pulse(self.limits.wait_max / 2)
    }

    /// The number of requests that it may have in flight.
    fn limit(&self) -> usize {
        self.pace.limit().min(self.limits.in_flight_max)
    }

    fn capacity(&self) -> Capacity<'_> {
        Capacity {
            limits: &self.limits,
            in_flight: self.lane.in_flight(),
            waiting: self.lane.waiting(),
            limit: self.limit(),
            pulse: self.pulse(),
            period: self.rate.as_ref().map(Rate::period),
            is_probing: self.breaker.is_probing(),
        }
    }

    /// The permits that it holds and doesn't give back soon.
    #[must_use]
    pub fn holds_long(&self) -> usize {
        self.capacity().holds_long()
    }

    /// Notes that `by` more time has passed. Requests in flight have waited for an answer for that much longer.
    pub fn waited(&mut self, by: Duration) {
        if self.lane.in_flight() > 0 {
            self.latency.waited(by);
        }
    }

    /// The rest of its cool-down, or None if it doesn't cool down.
    fn cools_for(&self, now: Instant) -> Option<Duration> {
        self.cooling_until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Takes out the deliveries that have waited so long that they must no longer block the commit of their partition.
    pub fn take_overdue(&mut self, now: Instant) -> Vec<T> {
        let Some(before) = now.checked_sub(self.limits.longest_wait()) else { return Vec::new() };
        let mut overdue = self.lane.evict_older(before);
        while self.redeliveries.front().is_some_and(|(since, _)| *since <= before) {
            overdue.extend(self.redeliveries.pop_front().map(|(_, item)| item));
        }
        overdue
    }

    /// The time for which it still backs off, or None if it doesn't back off.
    #[must_use]
    pub fn backs_off_for(&self, now: Instant) -> Option<Duration> {
        self.breaker.refuses_for(now).max(self.cools_for(now))
    }

    /// Its state, for a worker's report.
    #[must_use]
    pub fn report(&self, webhook_id: WebhookId, now: Instant) -> EndpointReport {
        EndpointReport {
            webhook_id,
            breaker: self.breaker.state(now),
            backs_off_ms: self.backs_off_for(now).map(|left| left.as_millis() as u64),
            in_flight: self.lane.in_flight(),
            limit: self.pace.limit(),
            waiting: self.lane.waiting() + self.redeliveries.len(),
        }
    }

    /// Ends a request. `outcome` is None if the request ended without a result. Returns a change of the circuit.
    pub fn finished(
        &mut self,
        order_key: Option<u64>,
        started: Started,
        outcome: Option<Outcome>,
        now: Instant,
    ) -> Option<Change> {
        self.lane.finished(order_key);
        if started.moves != self.moves {
            return None;
        }
        let Some(outcome) = outcome.filter(Outcome::is_of_endpoint) else {
            if started.is_probe {
                self.breaker.abandon();
            }
            return None;
        };
        self.latency.answered(now.saturating_duration_since(started.at));
        let succeeded = outcome.failure.is_none();
        if succeeded {
            self.pace.succeeded(self.limits.in_flight_max);
        } else if outcome.is_overload() {
            self.pace.overloaded(started.at, now);
        }
        if let Some(asked) = outcome.retry_after.filter(|_| !succeeded) {
            let until = now + asked;
            self.cooling_until = Some(self.cooling_until.map_or(until, |cooling| cooling.max(until)));
        }
        let change = self.breaker.record(succeeded, started.is_probe, started.at, now, &self.limits.breaker);
        if change == Some(Change::Closed) {
            // A redelivery may succeed as a probe before the endpoint has cooled down.
            self.cooling_until = None;
            self.pace.restart();
        }
        change
    }

    /// Whether the endpoint can be forgotten: nothing waits, and a new endpoint would be treated in the same way.
    #[must_use]
    pub fn is_forgettable(&self, now: Instant) -> bool {
        self.is_idle()
            && self.pace.limit() >= self.limits.in_flight_max
            && self.cooling_until.is_none_or(|until| until <= now)
            && self.rate.as_ref().is_none_or(|rate| rate.free_at() <= now)
            && self.breaker.is_forgettable(now, &self.limits.breaker)
    }

    /// Whether nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lane.is_idle() && self.redeliveries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The permits that the endpoint may hold for long.
    const SLOW_PART: usize = 100;
    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Debug, PartialEq, Eq)]
    struct Item(usize);
    impl Queued for Item {
        fn order_key(&self) -> Option<u64> {
            None
        }

        fn is_redelivery(&self) -> bool {
            self.0 >= REDELIVERY
        }
    }

    /// Items from this number on are redeliveries.
    const REDELIVERY: usize = 1_000_000;

    fn outcome(status: u16) -> Outcome {
        let failure = (status != 200).then_some(FailureCode::Status);
        Outcome { failure, status: Some(status), retry_after: None }
    }

    fn endpoint(items: usize) -> (Endpoint<Item>, Arc<EndpointLimits>) {
        let mut settings = Config::built_in().delivery;
        settings.endpoint_in_flight_max = 4;
        settings.endpoint_queue_max = 2;
        settings.breaker.attempts_min = 3;
        let limits = Arc::new(EndpointLimits::new(&settings));
        let mut endpoint = Endpoint::new(&limits, Instant::now());
        for item in 0..items {
            endpoint.admit(Item(item), Instant::now());
        }
        (endpoint, limits)
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_on_our_own_side_opens_no_circuit_and_frees_a_probe() {
        let (mut endpoint, limits) = endpoint(0);
        let mut fail = |code| {
            endpoint.admit(Item(0), Instant::now());
            let started = start(&mut endpoint);
            let outcome = Outcome { failure: Some(code), status: None, retry_after: None };
            endpoint.finished(None, started, Some(outcome), Instant::now())
        };
        for _ in 0..limits.breaker.attempts_min * 2 {
            assert_eq!(fail(FailureCode::Egress), None);
        }
        let mut changes = (0..limits.breaker.attempts_min).filter_map(|_| fail(FailureCode::Connect));
        assert!(matches!(changes.next(), Some(Change::Opened(_))));
    }

    fn start(endpoint: &mut Endpoint<Item>) -> Started {
        match endpoint.next(Instant::now(), SLOW_PART) {
            Next::Start(_, started) => started,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_requests_are_in_flight_than_the_limit_and_overload_lowers_it() {
        let (mut endpoint, _) = endpoint(10);
        let started: Vec<Started> = (0..4).map(|_| start(&mut endpoint)).collect();
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART), Next::Nothing);
        endpoint.finished(None, started[0], Some(outcome(503)), Instant::now());
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART), Next::Nothing, "three in flight, two allowed");
        endpoint.finished(None, started[1], None, Instant::now());
        endpoint.finished(None, started[2], None, Instant::now());
        start(&mut endpoint);
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART), Next::Nothing);
    }

    /// Takes all steps that are possible now, and returns the items that were deferred.
    fn defer(endpoint: &mut Endpoint<Item>, part: usize) -> Vec<usize> {
        let mut all = Vec::new();
        loop {
            match endpoint.next(Instant::now(), part) {
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
    async fn a_silent_endpoint_keeps_a_short_queue_within_its_part() {
        let (mut endpoint, _) = endpoint(1_000);
        assert!(defer(&mut endpoint, 2).is_empty(), "it is new");
        assert_eq!(endpoint.lane.in_flight(), 2, "it gets no more than its part");
        assert_eq!(endpoint.holds_long(), 2);
        assert!(defer(&mut endpoint, SLOW_PART).is_empty());
        for _ in 0..4 {
            endpoint.waited(SECOND / 10);
        }
        let deferred = defer(&mut endpoint, SLOW_PART).len();
        assert_eq!((deferred, endpoint.lane.in_flight(), endpoint.lane.waiting()), (994, 4, 2));
        assert_eq!(endpoint.holds_long(), 6);
        assert_eq!(defer(&mut endpoint, 3).len(), 2, "nothing may wait while its whole part is in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_endpoint_always_gets_one_request() {
        let (mut endpoint, _) = endpoint(2);
        assert!(defer(&mut endpoint, 0).is_empty());
        assert_eq!((endpoint.lane.in_flight(), endpoint.lane.waiting()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_endpoint_holds_no_more_than_its_part() {
        let (mut endpoint, _) = endpoint(1);
        let started = start(&mut endpoint);
        tokio::time::advance(9 * SECOND).await;
        endpoint.finished(None, started, Some(outcome(200)), Instant::now());
        for item in 1..=8 {
            endpoint.admit(Item(item), Instant::now());
        }
        assert_eq!(defer(&mut endpoint, 3).len(), 5);
        assert_eq!(endpoint.lane.in_flight() + endpoint.lane.waiting(), 3);
        assert_eq!(endpoint.holds_long(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_endpoint_keeps_what_it_takes_soon() {
        let (mut endpoint, _) = endpoint(1);
        let started = start(&mut endpoint);
        tokio::time::advance(SECOND / 100).await;
        endpoint.finished(None, started, Some(outcome(200)), Instant::now());
        for item in 1..=300 {
            endpoint.admit(Item(item), Instant::now());
        }
        // Four requests at a time, 10 ms each, make 200 within half a second. In addition four go now, and two wait.
        assert_eq!(defer(&mut endpoint, SLOW_PART).len(), 300 - 206);
        assert_eq!(endpoint.holds_long(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_deliveries_wait_than_a_low_rate_lets_through() {
        let (mut endpoint, _) = endpoint(50);
        Arc::make_mut(&mut endpoint.limits).queue_max = 30;
        endpoint.set_rate(NonZeroU32::new(2), 1, Instant::now());
        // At two a second one goes within half a second. In addition one goes now, and 20 go within the time of an
        // attempt.
        assert_eq!(defer(&mut endpoint, SLOW_PART).len(), 50 - 22);
        endpoint.set_rate(NonZeroU32::new(2), 4, Instant::now());
        assert_eq!(defer(&mut endpoint, SLOW_PART).len(), 21 - 7, "four workers share it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_that_has_waited_as_long_as_an_attempt_leaves() {
        let (mut endpoint, limits) = endpoint(6);
        for _ in 0..4 {
            start(&mut endpoint);
        }
        tokio::time::advance(limits.attempt_max - SECOND).await;
        endpoint.admit(Item(6), Instant::now());
        assert_eq!(endpoint.take_overdue(Instant::now()), []);
        tokio::time::advance(SECOND).await;
        assert_eq!(endpoint.take_overdue(Instant::now()), [Item(4), Item(5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_at_the_old_url_say_nothing_about_the_new_one() {
        let (mut endpoint, _) = endpoint(4);
        let started: Vec<Started> = (0..4).map(|_| start(&mut endpoint)).collect();
        for started in &started[..3] {
            endpoint.finished(None, *started, Some(outcome(500)), Instant::now());
        }
        assert!(endpoint.backs_off_for(Instant::now()).is_some());
        endpoint.moved(Instant::now());
        endpoint.admit(Item(4), Instant::now());
        start(&mut endpoint);
        let busy = Outcome { retry_after: Some(SECOND * 60), ..outcome(503) };
        endpoint.finished(None, started[3], Some(busy), Instant::now());
        assert_eq!((endpoint.backs_off_for(Instant::now()), endpoint.limit()), (None, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_back_off_that_another_worker_found_is_kept() {
        let (_, limits) = endpoint(0);
        let mut endpoint = Endpoint::backing_off(SECOND * 60, &limits, Instant::now());
        endpoint.admit(Item(0), Instant::now());
        let deferral = Deferral { why: FailureCode::CircuitOpen, backs_off_for: Some(SECOND * 60) };
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART), Next::Defer(vec![Item(0)], deferral));
        tokio::time::advance(SECOND * 60).await;
        endpoint.admit(Item(1), Instant::now());
        assert!(start(&mut endpoint).is_probe);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_defers_all_and_a_successful_probe_restarts_slowly() {
        let (mut endpoint, limits) = endpoint(5);
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint)).collect();
        for started in started {
            endpoint.finished(None, started, Some(outcome(500)), Instant::now());
        }
        let open = limits.breaker.open_initial;
        let deferral = Deferral { why: FailureCode::CircuitOpen, backs_off_for: Some(open) };
        assert!(
            matches!(endpoint.next(Instant::now(), SLOW_PART), Next::Defer(items, why) if items.len() == 2 && why == deferral)
        );
        tokio::time::advance(open).await;
        endpoint.admit(Item(5), Instant::now());
        endpoint.admit(Item(6), Instant::now());
        let probe = start(&mut endpoint);
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART), Next::Nothing, "the other delivery waits for the probe");
        assert_eq!(endpoint.finished(None, probe, Some(outcome(200)), Instant::now()), Some(Change::Closed));
        endpoint.admit(Item(7), Instant::now());
        start(&mut endpoint);
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART), Next::Nothing, "the pace starts at one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_redelivery_is_the_probe_of_an_open_circuit() {
        let (mut endpoint, limits) = endpoint(5);
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint)).collect();
        for started in started {
            endpoint.finished(None, started, Some(outcome(500)), Instant::now());
        }
        endpoint.admit(Item(REDELIVERY), Instant::now());
        endpoint.admit(Item(REDELIVERY + 1), Instant::now());
        let Next::Start(Item(REDELIVERY), probe) = endpoint.next(Instant::now(), SLOW_PART) else {
            panic!("the redelivery goes first")
        };
        assert!(probe.is_probe);
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART), Next::Nothing, "all others wait for the probe");
        let opened = endpoint.finished(None, probe, Some(outcome(500)), Instant::now());
        assert_eq!(opened, Some(Change::Opened(limits.breaker.open_initial * 2)));
        let Next::Start(Item(next), probe) = endpoint.next(Instant::now(), SLOW_PART) else {
            panic!("the next redelivery is a probe as well")
        };
        assert_eq!((next, probe.is_probe), (REDELIVERY + 1, true));
        let closed = endpoint.finished(None, probe, Some(outcome(200)), Instant::now());
        assert_eq!((closed, endpoint.backs_off_for(Instant::now())), (Some(Change::Closed), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_redelivery_goes_despite_retry_after_and_its_success_ends_it() {
        let (mut endpoint, _) = endpoint(1);
        let started = start(&mut endpoint);
        let busy = Outcome { retry_after: Some(SECOND * 3_600), ..outcome(429) };
        endpoint.finished(None, started, Some(busy), Instant::now());
        endpoint.try_now();
        endpoint.admit(Item(1), Instant::now());
        endpoint.admit(Item(REDELIVERY), Instant::now());
        let probe = start(&mut endpoint);
        assert!(probe.is_probe);
        assert!(
            matches!(endpoint.next(Instant::now(), SLOW_PART), Next::Defer(..)),
            "other deliveries respect the Retry-After"
        );
        endpoint.finished(None, probe, Some(outcome(200)), Instant::now());
        assert_eq!(endpoint.backs_off_for(Instant::now()), None);
        endpoint.admit(Item(2), Instant::now());
        start(&mut endpoint);
    }

    #[tokio::test(start_paused = true)]
    async fn a_recovery_ends_the_back_off() {
        let (mut endpoint, _) = endpoint(3);
        let busy = Outcome { retry_after: Some(SECOND * 3_600), ..outcome(503) };
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint)).collect();
        for started in started {
            endpoint.finished(None, started, Some(busy), Instant::now());
        }
        assert!(endpoint.recovered(Instant::now()));
        assert_eq!(endpoint.backs_off_for(Instant::now()), None);
        assert!(!endpoint.recovered(Instant::now()), "it is not backing off any more");
        endpoint.admit(Item(3), Instant::now());
        start(&mut endpoint);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_defers_the_endpoints_other_deliveries() {
        let (mut endpoint, _) = endpoint(2);
        let started = start(&mut endpoint);
        let minute = Duration::from_secs(60);
        let busy = Outcome { retry_after: Some(minute), ..outcome(429) };
        endpoint.finished(None, started, Some(busy), Instant::now());
        let deferral = Deferral { why: FailureCode::Saturated, backs_off_for: Some(minute) };
        assert_eq!(endpoint.next(Instant::now(), SLOW_PART), Next::Defer(vec![Item(1)], deferral));
        tokio::time::advance(minute).await;
        endpoint.admit(Item(2), Instant::now());
        start(&mut endpoint);
    }

    #[tokio::test]
    async fn a_rate_spaces_requests_evenly() {
        let (mut endpoint, _) = endpoint(2);
        endpoint.set_rate(NonZeroU32::new(10), 1, Instant::now());
        start(&mut endpoint);
        let Next::Later(at) = endpoint.next(Instant::now(), SLOW_PART) else {
            panic!("the second request may not go yet")
        };
        assert!(at <= Instant::now() + Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_remembered_until_its_rate_allows_the_next_request() {
        let (mut endpoint, _) = endpoint(1);
        endpoint.set_rate(NonZeroU32::new(10), 1, Instant::now());
        let started = start(&mut endpoint);
        endpoint.finished(None, started, Some(outcome(200)), Instant::now());
        assert!(!endpoint.is_forgettable(Instant::now()), "a new endpoint would start a request at once");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(endpoint.is_forgettable(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cool_down_that_outlasts_the_open_circuit_counts() {
        let (mut endpoint, limits) = endpoint(5);
        let cool_down = limits.breaker.open_initial * 10;
        let busy = Outcome { retry_after: Some(cool_down), ..outcome(503) };
        let started: Vec<Started> = (0..3).map(|_| start(&mut endpoint)).collect();
        for started in started {
            endpoint.finished(None, started, Some(busy), Instant::now());
        }
        let deferral = Deferral { why: FailureCode::CircuitOpen, backs_off_for: Some(cool_down) };
        assert!(matches!(endpoint.next(Instant::now(), SLOW_PART), Next::Defer(_, why) if why == deferral));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_with_recent_failures_is_not_forgotten() {
        let (mut endpoint, limits) = endpoint(1);
        assert!(!endpoint.is_forgettable(Instant::now()));
        let started = start(&mut endpoint);
        endpoint.finished(None, started, Some(outcome(500)), Instant::now());
        assert!(!endpoint.is_forgettable(Instant::now()));
        tokio::time::advance(limits.breaker.window).await;
        assert!(endpoint.is_forgettable(Instant::now()));
    }
}
