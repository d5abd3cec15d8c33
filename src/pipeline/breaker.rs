//! Whether an endpoint is worth trying: closed while it works, open while it doesn't, then one probe at a time.
//!
//! **Trip conditions.** The circuit opens on a failed attempt, never on a successful one, when `failure_ratio` of at
//! least `attempts_min` attempts within `window` failed.
//!
//! **Recovery conditions.** A run of successes that an endpoint which fails at the ratio would hardly have is a
//! recovery: what failed before it is forgotten, so that a single failure after it doesn't open the circuit. While the
//! circuit is open, a successful probe closes it, and so does a person's successful test.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::report::BreakerState;

/// The circuit breaker of one endpoint.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    window: Window,
    /// What was asked before this says nothing of the endpoint as it is now.
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
        lasts: Duration,
    },
    /// The time is over: the next request is a probe, and nothing else goes until it is answered.
    HalfOpen {
        lasted: Duration,
        probing: bool,
    },
}

/// Whether a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may, as the only one: what it comes to decides.
    Probe,
    /// Not before that long.
    Refused(Duration),
    /// Not before the probe is answered: within one request's time.
    Probing,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It opened, for that long.
    Opened(Duration),
    /// It closed: the endpoint is back.
    Closed,
}

/// Requests of the last one to two half windows.
#[derive(Debug)]
struct Window {
    began: Instant,
    now: Counts,
    before: Counts,
    /// How many of the last attempts succeeded one after another.
    successes_in_a_row: u32,
}

/// An endpoint that fails at the ratio has a run of successes that is taken for a recovery less often than this.
const CHANCE_OF_A_RUN: f64 = 0.05;

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    failures: u32,
    all: u32,
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { state: State::Closed, window: Window::new(now), since: now }
    }

    /// Open for `wait`, as another worker had it. How long it lasted at first isn't told: what is left is taken for it.
    #[must_use]
    pub fn opened(wait: Duration, now: Instant, settings: &config::Breaker) -> Self {
        let lasts = wait.clamp(settings.open_initial, settings.open_max);
        Self { state: State::Open { until: now + wait, lasts }, ..Self::new(now) }
    }

    /// Whether a request may go now. A [`Verdict::Probe`] must be followed by [`Breaker::record`] or [`Breaker::abandon`].
    pub fn ask(&mut self, now: Instant) -> Verdict {
        if let State::Open { until, lasts } = self.state {
            match until.checked_duration_since(now).filter(|left| !left.is_zero()) {
                Some(left) => return Verdict::Refused(left),
                None => self.state = State::HalfOpen { lasted: lasts, probing: false },
            }
        }
        match &mut self.state {
            State::Closed => Verdict::Allowed,
            State::HalfOpen { probing: probing @ false, .. } => {
                *probing = true;
                Verdict::Probe
            }
            State::HalfOpen { .. } => Verdict::Probing,
            State::Open { .. } => unreachable!("an open one was looked at above"),
        }
    }

    /// How long requests are refused for; None while they may go.
    #[must_use]
    pub fn refuses_for(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => until.checked_duration_since(now).filter(|left| !left.is_zero()),
            State::HalfOpen { .. } | State::Closed => None,
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until, .. } if until > now => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether requests may go as they come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a probe is under way.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        matches!(self.state, State::HalfOpen { probing: true, .. })
    }

    /// The outcome of a request that began at `started`.
    pub fn record(
        &mut self,
        success: bool,
        was_probe: bool,
        started: Instant,
        now: Instant,
        settings: &config::Breaker,
    ) -> Option<Change> {
        match self.state {
            State::HalfOpen { lasted, .. } if was_probe => {
                if success {
                    *self = Self::new(now);
                    return Some(Change::Closed);
                }
                Some(self.open(lasted.saturating_mul(2).clamp(settings.open_initial, settings.open_max), now))
            }
            // It was under way when the endpoint recovered, and failed of what was before that.
            State::Closed if !success && started < self.since => None,
            State::Closed => {
                let counts = self.window.add(success, now, settings);
                let ratio = f64::from(counts.failures) / f64::from(counts.all);
                (!success && counts.all >= settings.attempts_min && ratio >= settings.failure_ratio)
                    .then(|| self.open(settings.open_initial, now))
            }
            // Started before it opened: it says nothing new.
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// The endpoint is known to work: its circuit closes, whatever was before. Whether it wasn't closed.
    pub fn close(&mut self, now: Instant) -> bool {
        let was_closed = self.state == State::Closed;
        *self = Self::new(now);
        !was_closed
    }

    /// A person asks for the endpoint to be tried: the next request is a probe, whatever is left of an open circuit.
    /// Where it is closed and `is_held`, it is half open as well, so that a single request goes.
    pub fn try_now(&mut self, is_held: bool, settings: &config::Breaker) {
        match self.state {
            State::Open { lasts, .. } => self.state = State::HalfOpen { lasted: lasts, probing: false },
            State::Closed if is_held => {
                self.state = State::HalfOpen { lasted: settings.open_initial / 2, probing: false };
            }
            State::Closed | State::HalfOpen { .. } => {}
        }
    }

    /// A probe ended without a result: the next request is one.
    pub fn abandon(&mut self) {
        if let State::HalfOpen { probing, .. } = &mut self.state {
            *probing = false;
        }
    }

    /// Nothing is held against the endpoint: its breaker can be forgotten.
    #[must_use]
    pub fn is_spotless(&self, now: Instant, settings: &config::Breaker) -> bool {
        let forgotten = now.saturating_duration_since(self.window.began) >= settings.window;
        self.state == State::Closed
            && (forgotten || (self.window.now.failures == 0 && self.window.before.failures == 0))
    }

    fn open(&mut self, lasts: Duration, now: Instant) -> Change {
        self.state = State::Open { until: now + lasts, lasts };
        Change::Opened(lasts)
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, now: Counts::default(), before: Counts::default(), successes_in_a_row: 0 }
    }

    fn add(&mut self, success: bool, now: Instant, settings: &config::Breaker) -> Counts {
        let half = settings.window / 2;
        let age = now.saturating_duration_since(self.began);
        if age >= half {
            self.before = if age >= settings.window { Counts::default() } else { self.now };
            self.now = Counts::default();
            self.began = now;
        }
        self.successes_in_a_row = if success { self.successes_in_a_row.saturating_add(1) } else { 0 };
        if self.successes_in_a_row == recovery(settings) {
            // All that is left of what was before are the successes that the recovery is made of.
            (self.now, self.before) = (Counts { failures: 0, all: self.successes_in_a_row - 1 }, Counts::default());
        }
        self.now.all += 1;
        self.now.failures += u32::from(!success);
        Counts { failures: self.now.failures + self.before.failures, all: self.now.all + self.before.all }
    }
}

/// How many successes in a row are a recovery: so many that an endpoint which fails at the ratio would have them by
/// chance in one of twenty cases at the most, and no more than such an endpoint has among `attempts_min` attempts.
fn recovery(settings: &config::Breaker) -> u32 {
    let succeeds = 1.0 - settings.failure_ratio;
    let by_chance = if succeeds <= 0.0 { 1.0 } else { (CHANCE_OF_A_RUN.ln() / succeeds.ln()).ceil() };
    let among = (f64::from(settings.attempts_min) * succeeds).ceil();
    by_chance.min(among).max(1.0) as u32
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
    async fn it_opens_at_the_ratio_once_there_are_enough_attempts() {
        let mut breaker = Breaker::new(Instant::now());
        assert_eq!(fail(&mut breaker, 4), [None, None, None, Some(Change::Opened(30 * SECOND))]);
        assert_eq!(breaker.ask(Instant::now()), Verdict::Refused(30 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_below_the_ratio_or_long_ago_do_not_open_it() {
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
    async fn after_its_time_one_probe_goes_and_each_failed_one_doubles_the_time_up_to_its_cap() {
        let mut breaker = Breaker::new(Instant::now());
        fail(&mut breaker, 4);
        for lasts in [60, 100, 100] {
            tokio::time::advance(100 * SECOND).await;
            assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
            assert_eq!(breaker.ask(Instant::now()), Verdict::Probing, "one at a time");
            // A late answer from before says nothing.
            assert_eq!(breaker.record(true, false, Instant::now(), Instant::now(), &settings()), None);
            let opened = breaker.record(false, true, Instant::now(), Instant::now(), &settings());
            assert_eq!(opened, Some(Change::Opened(lasts * SECOND)));
        }
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
        assert_eq!(breaker.record(true, true, Instant::now(), Instant::now(), &settings()), Some(Change::Closed));
        assert_eq!(breaker.ask(Instant::now()), Verdict::Allowed);
        assert!(breaker.is_spotless(Instant::now(), &settings()));
    }

    /// The defaults: 20 attempts, half of them.
    fn defaults() -> config::Breaker {
        Config::built_in().delivery.breaker
    }

    /// Whether it opened at the last of `outcomes`, `S` or `F`; at an earlier one is a mistake of the test.
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
    async fn a_circuit_never_opens_on_a_success_nor_on_the_next_failure_of_what_has_recovered() {
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
            "one in fifteen is too many for it"
        );
        let patient = config::Breaker { failure_ratio: 1.0, ..defaults() };
        assert!(!opened_at_last(&(f(19) + "S" + &f(19)), &patient), "a single success counts where all must fail");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_under_way_when_the_endpoint_recovered_does_not_open_its_circuit_again() {
        let mut breaker = Breaker::new(Instant::now());
        let before = Instant::now();
        fail(&mut breaker, 4);
        tokio::time::advance(SECOND).await;
        assert!(breaker.close(Instant::now()));
        for _ in 0..50 {
            assert_eq!(breaker.record(false, false, before, Instant::now(), &settings()), None);
        }
        assert!(breaker.is_spotless(Instant::now(), &settings()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_person_asks_for_is_a_probe_at_once_and_a_failed_one_opens_for_longer() {
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
        assert_eq!(breaker.ask(Instant::now()), Verdict::Allowed, "one that works is left as it is");
        breaker.try_now(true, &settings());
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe, "one that asked to be left alone gets one request");
        let opened = breaker.record(false, true, Instant::now(), Instant::now(), &settings());
        assert_eq!(opened, Some(Change::Opened(30 * SECOND)));
    }

    proptest! {
        #[test]
        fn a_circuit_opens_on_failures_alone_and_on_every_endpoint_that_keeps_failing_at_the_ratio(
            outcomes in prop::collection::vec(any::<bool>(), 0..200),
            attempts_min in 1_u32..40,
            ratio in 0.05_f64..=0.95,
        ) {
            let settings = config::Breaker { attempts_min, failure_ratio: ratio, ..settings() };
            let now = Instant::now();
            let mut breaker = Breaker::new(now);
            for success in outcomes {
                let before = breaker.window.now.all + breaker.window.before.all;
                let change = breaker.record(success, false, now, now, &settings);
                prop_assert!(change.is_none() || (!success && before + 1 >= attempts_min));
                if change.is_some() {
                    breaker.close(now);
                }
            }
            // However it was before, so many failures in a row are enough.
            let mut opened = false;
            let limit = 200 + attempts_min;
            for _ in 0..limit.saturating_mul(20) {
                opened |= breaker.record(false, false, now, now, &settings).is_some();
            }
            prop_assert!(opened);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_abandoned_leaves_its_place_to_the_next() {
        let mut breaker = Breaker::new(Instant::now());
        fail(&mut breaker, 4);
        tokio::time::advance(30 * SECOND).await;
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
        breaker.abandon();
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
    }
}
