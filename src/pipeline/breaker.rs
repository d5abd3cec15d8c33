//! The circuit breaker of an endpoint. It is closed while the endpoint works and open while it fails. In between it is
//! half open and lets one probe through at a time.
//!
//! **Trip conditions.** The circuit opens only on a failed attempt. It opens if there were at least `attempts_min`
//! attempts within `window`, and at least the ratio `failure_ratio` of them failed.
//!
//! **Recovery conditions.** A run of successes counts as a recovery if it is so long that an endpoint that fails at
//! `failure_ratio` would hardly ever have it. Failures before it are forgotten, so that a single failure after it
//! doesn't open the circuit. While the circuit is open, a successful probe closes it, and so does a person's successful
//! test.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::report::BreakerState;

/// The circuit breaker of one endpoint.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    recent: Recent,
    /// The time when the circuit last closed. Failures of requests that started before it don't count.
    closed_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
        open_for: Duration,
    },
    /// The next request is a probe, and no other request goes until the probe is answered.
    HalfOpen {
        was_open_for: Duration,
        probing: bool,
    },
}

/// Whether a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request may go.
    Allowed,
    /// The request may go as the only one. Its outcome decides whether the circuit closes.
    Probe,
    /// No request may go for this time.
    Refused(Duration),
    /// No request may go until the probe is answered, which takes no longer than one request.
    Probing,
}

/// A change of the circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The circuit opened for this time.
    Opened(Duration),
    /// The circuit closed, because the endpoint works again.
    Closed,
}

/// The outcomes of the current half of the window and of the half before it.
#[derive(Debug)]
struct Recent {
    /// The start of the current half.
    began: Instant,
    current: Counts,
    previous: Counts,
    /// The number of successes since the last failure.
    successes_in_a_row: u32,
}

/// A run of successes is improbable if an endpoint that fails at `failure_ratio` has it with at most this probability.
const CHANCE_OF_A_RUN: f64 = 0.05;

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    failures: u32,
    all: u32,
}

impl Breaker {
    /// A closed circuit without history.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { state: State::Closed, recent: Recent::new(now), closed_at: now }
    }

    /// A circuit that is open for `wait`, as another worker announced. Only the time that is left is announced, so it
    /// also counts as the whole time for which the circuit is open.
    #[must_use]
    pub fn opened(wait: Duration, now: Instant, settings: &config::Breaker) -> Self {
        let open_for = wait.clamp(settings.open_initial, settings.open_max);
        Self { state: State::Open { until: now + wait, open_for }, ..Self::new(now) }
    }

    /// Whether a request may go now. A [`Verdict::Probe`] must be followed by [`Breaker::record`] or
    /// [`Breaker::abandon`].
    pub fn ask(&mut self, now: Instant) -> Verdict {
        if let State::Open { until, open_for } = self.state {
            match until.checked_duration_since(now).filter(|left| !left.is_zero()) {
                Some(left) => return Verdict::Refused(left),
                None => self.state = State::HalfOpen { was_open_for: open_for, probing: false },
            }
        }
        match &mut self.state {
            State::Closed => Verdict::Allowed,
            State::HalfOpen { probing: probing @ false, .. } => {
                *probing = true;
                Verdict::Probe
            }
            State::HalfOpen { .. } => Verdict::Probing,
            State::Open { .. } => unreachable!("an open circuit returned or became half open above"),
        }
    }

    /// The time for which requests are refused, or None while they may go.
    #[must_use]
    pub fn refuses_for(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => until.checked_duration_since(now).filter(|left| !left.is_zero()),
            State::HalfOpen { .. } | State::Closed => None,
        }
    }

    /// The state for reports.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until, .. } if until > now => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether the circuit is closed, so that requests may go.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a probe is under way.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        matches!(self.state, State::HalfOpen { probing: true, .. })
    }

    /// Records the outcome of a request that began at `started`.
    pub fn record(
        &mut self,
        success: bool,
        was_probe: bool,
        started: Instant,
        now: Instant,
        settings: &config::Breaker,
    ) -> Option<Change> {
        match self.state {
            State::HalfOpen { was_open_for, .. } if was_probe => {
                if success {
                    *self = Self::new(now);
                    return Some(Change::Closed);
                }
                Some(self.open(was_open_for.saturating_mul(2).clamp(settings.open_initial, settings.open_max), now))
            }
            // The request was under way when the endpoint recovered, so its failure belongs to the time before.
            State::Closed if !success && started < self.closed_at => None,
            State::Closed => {
                let counts = self.recent.add(success, now, settings);
                let ratio = f64::from(counts.failures) / f64::from(counts.all);
                (!success && counts.all >= settings.attempts_min && ratio >= settings.failure_ratio)
                    .then(|| self.open(settings.open_initial, now))
            }
            // The request started before the circuit opened, so it says nothing new.
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Closes the circuit and forgets all failures, because the endpoint is known to work. Returns whether the circuit
    /// was open or half open until now.
    pub fn close(&mut self, now: Instant) -> bool {
        let was_closed = self.state == State::Closed;
        *self = Self::new(now);
        !was_closed
    }

    /// Makes an open circuit half open, because a person asked to try the endpoint now. A closed circuit becomes half
    /// open if the endpoint `is_cooling` down, so that only a single request goes.
    pub fn try_now(&mut self, is_cooling: bool, settings: &config::Breaker) {
        match self.state {
            State::Open { open_for, .. } => self.state = State::HalfOpen { was_open_for: open_for, probing: false },
            State::Closed if is_cooling => {
                self.state = State::HalfOpen { was_open_for: settings.open_initial / 2, probing: false };
            }
            State::Closed | State::HalfOpen { .. } => {}
        }
    }

    /// Ends a probe without a result. The next request is a probe again.
    pub fn abandon(&mut self) {
        if let State::HalfOpen { probing, .. } = &mut self.state {
            *probing = false;
        }
    }

    /// Whether the circuit is closed and remembers no failure. Such a breaker can be forgotten.
    #[must_use]
    pub fn is_forgettable(&self, now: Instant, settings: &config::Breaker) -> bool {
        let is_outdated = now.saturating_duration_since(self.recent.began) >= settings.window;
        self.state == State::Closed
            && (is_outdated || (self.recent.current.failures == 0 && self.recent.previous.failures == 0))
    }

    fn open(&mut self, open_for: Duration, now: Instant) -> Change {
        self.state = State::Open { until: now + open_for, open_for };
        Change::Opened(open_for)
    }
}

impl Recent {
    fn new(now: Instant) -> Self {
        Self { began: now, current: Counts::default(), previous: Counts::default(), successes_in_a_row: 0 }
    }

    fn add(&mut self, success: bool, now: Instant, settings: &config::Breaker) -> Counts {
        let half = settings.window / 2;
        let age = now.saturating_duration_since(self.began);
        if age >= half {
            self.previous = if age >= settings.window { Counts::default() } else { self.current };
            self.current = Counts::default();
            self.began = now;
        }
        self.successes_in_a_row = if success { self.successes_in_a_row.saturating_add(1) } else { 0 };
        if self.successes_in_a_row == recovery_run(settings) {
            // Everything before the run of successes is forgotten, and only the run counts.
            self.current = Counts { failures: 0, all: self.successes_in_a_row - 1 };
            self.previous = Counts::default();
        }
        self.current.all += 1;
        self.current.failures += u32::from(!success);
        Counts { failures: self.current.failures + self.previous.failures, all: self.current.all + self.previous.all }
    }
}

/// The number of successes in a row that count as a recovery. It is the shortest improbable run ([`CHANCE_OF_A_RUN`]),
/// but no more than the successes to expect among `attempts_min` attempts of an endpoint that fails at `failure_ratio`.
fn recovery_run(settings: &config::Breaker) -> u32 {
    let success_ratio = 1.0 - settings.failure_ratio;
    let improbable_run = if success_ratio <= 0.0 { 1.0 } else { (CHANCE_OF_A_RUN.ln() / success_ratio.ln()).ceil() };
    let expected_successes = (f64::from(settings.attempts_min) * success_ratio).ceil();
    improbable_run.min(expected_successes).max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> config::Breaker {
        let mut settings = Config::built_in().delivery.breaker;
        settings.attempts_min = 4;
        settings.failure_ratio = 0.5;
        settings.window = 10 * SECOND;
        settings.open_initial = 30 * SECOND;
        settings.open_max = 100 * SECOND;
        settings
    }

    fn fail(breaker: &mut Breaker, times: usize) -> Vec<Option<Change>> {
        (0..times).map(|_| breaker.record(false, false, Instant::now(), Instant::now(), &settings())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_opens_at_the_ratio_once_there_are_enough_attempts() {
        let mut breaker = Breaker::new(Instant::now());
        assert_eq!(fail(&mut breaker, 4), [None, None, None, Some(Change::Opened(30 * SECOND))]);
        assert_eq!(breaker.ask(Instant::now()), Verdict::Refused(30 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_below_the_ratio_or_long_ago_do_not_open_a_circuit() {
        let mut breaker = Breaker::new(Instant::now());
        for _ in 0..10 {
            assert_eq!(breaker.record(true, false, Instant::now(), Instant::now(), &settings()), None);
        }
        assert!(fail(&mut breaker, 9).iter().all(Option::is_none));
        let mut breaker = Breaker::new(Instant::now());
        assert!(fail(&mut breaker, 3).iter().all(Option::is_none));
        tokio::time::advance(11 * SECOND).await;
        assert_eq!(fail(&mut breaker, 1), [None]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_goes_at_a_time_and_each_failure_doubles_the_time() {
        let mut breaker = Breaker::new(Instant::now());
        fail(&mut breaker, 4);
        for lasts in [60, 100, 100] {
            tokio::time::advance(100 * SECOND).await;
            assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
            assert_eq!(breaker.ask(Instant::now()), Verdict::Probing, "one at a time");
            // A late answer to a request from before the circuit opened changes nothing.
            assert_eq!(breaker.record(true, false, Instant::now(), Instant::now(), &settings()), None);
            let opened = breaker.record(false, true, Instant::now(), Instant::now(), &settings());
            assert_eq!(opened, Some(Change::Opened(lasts * SECOND)));
        }
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
        assert_eq!(breaker.record(true, true, Instant::now(), Instant::now(), &settings()), Some(Change::Closed));
        assert_eq!(breaker.ask(Instant::now()), Verdict::Allowed);
        assert!(breaker.is_forgettable(Instant::now(), &settings()));
    }

    /// The default settings: half of at least 20 attempts must fail.
    fn defaults() -> config::Breaker {
        Config::built_in().delivery.breaker
    }

    /// Whether the circuit opened at the last of `outcomes` (`S` or `F`). Panics if it opened at an earlier one.
    fn opened_at_last(outcomes: &str, settings: &config::Breaker) -> bool {
        let mut breaker = Breaker::new(Instant::now());
        let changes: Vec<Option<Change>> = outcomes
            .chars()
            .map(|outcome| breaker.record(outcome == 'S', false, Instant::now(), Instant::now(), settings))
            .collect();
        let opened = changes.iter().position(Option::is_some);
        assert!(opened.is_none_or(|at| at == outcomes.len() - 1), "{outcomes}: {opened:?}");
        opened.is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_never_opens_on_a_success_or_right_after_a_recovery() {
        let (f, s) = (|times| "F".repeat(times), |times| "S".repeat(times));
        for recovered in [
            f(10) + &s(10),
            f(10) + &s(10) + "F",
            f(19) + "S",
            f(15) + &s(5) + "F",
            f(10) + &s(10) + &f(9),
            s(20) + &f(5) + &s(5) + &f(10),
        ] {
            assert!(!opened_at_last(&recovered, &defaults()), "{recovered}");
        }
        for failing in [f(20), f(10) + &s(10) + &f(10), "SF".repeat(10), "SSFF".repeat(5), f(18) + "SSF"] {
            assert!(opened_at_last(&failing, &defaults()), "{failing}");
        }
        let sensitive = config::Breaker { failure_ratio: 0.05, ..defaults() };
        assert!(
            opened_at_last(&(f(1) + &s(14) + &f(1) + &s(4) + "F"), &sensitive),
            "one failure in fifteen attempts is too many"
        );
        let patient = config::Breaker { failure_ratio: 1.0, ..defaults() };
        assert!(!opened_at_last(&(f(19) + "S" + &f(19)), &patient), "a single success is a recovery if all must fail");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_from_before_a_recovery_do_not_open_the_circuit() {
        let mut breaker = Breaker::new(Instant::now());
        let before = Instant::now();
        fail(&mut breaker, 4);
        tokio::time::advance(SECOND).await;
        assert!(breaker.close(Instant::now()));
        for _ in 0..50 {
            assert_eq!(breaker.record(false, false, before, Instant::now(), &settings()), None);
        }
        assert!(breaker.is_forgettable(Instant::now(), &settings()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_to_try_now_makes_the_next_request_a_probe() {
        let mut breaker = Breaker::new(Instant::now());
        fail(&mut breaker, 4);
        breaker.try_now(false, &settings());
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probing);
        let opened = breaker.record(false, true, Instant::now(), Instant::now(), &settings());
        assert_eq!(opened, Some(Change::Opened(60 * SECOND)));
        breaker.try_now(false, &settings());
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
        assert_eq!(breaker.record(true, true, Instant::now(), Instant::now(), &settings()), Some(Change::Closed));
        breaker.try_now(false, &settings());
        assert_eq!(breaker.ask(Instant::now()), Verdict::Allowed, "a closed circuit stays closed");
        breaker.try_now(true, &settings());
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe, "an endpoint that cools down gets one request");
        let opened = breaker.record(false, true, Instant::now(), Instant::now(), &settings());
        assert_eq!(opened, Some(Change::Opened(30 * SECOND)));
    }

    proptest! {
        #[test]
        fn a_circuit_opens_only_on_failures_and_always_if_all_attempts_fail(
            outcomes in prop::collection::vec(any::<bool>(), 0..200),
            attempts_min in 1_u32..40,
            ratio in 0.05_f64..=0.95,
        ) {
            let settings = config::Breaker { attempts_min, failure_ratio: ratio, ..settings() };
            let now = Instant::now();
            let mut breaker = Breaker::new(now);
            for success in outcomes {
                let attempts_before = breaker.recent.current.all + breaker.recent.previous.all;
                let change = breaker.record(success, false, now, now, &settings);
                prop_assert!(change.is_none() || (!success && attempts_before + 1 >= attempts_min));
                if change.is_some() {
                    breaker.close(now);
                }
            }
            // This many failures in a row open the circuit, whatever the history is.
            let mut opened = false;
            let limit = 200 + attempts_min;
            for _ in 0..limit.saturating_mul(20) {
                opened |= breaker.record(false, false, now, now, &settings).is_some();
            }
            prop_assert!(opened);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_probe_is_followed_by_another_probe() {
        let mut breaker = Breaker::new(Instant::now());
        fail(&mut breaker, 4);
        tokio::time::advance(30 * SECOND).await;
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
        breaker.abandon();
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
    }
}
