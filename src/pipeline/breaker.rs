//! Whether an endpoint is worth trying: closed while it works, open while it doesn't, then one probe at a time.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::report::BreakerState;

/// The circuit breaker of one endpoint.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    window: Window,
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
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    failures: u32,
    all: u32,
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { state: State::Closed, window: Window { began: now, now: Counts::default(), before: Counts::default() } }
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

    /// Whether a probe is under way.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        matches!(self.state, State::HalfOpen { probing: true, .. })
    }

    /// What a request came to.
    pub fn record(
        &mut self,
        success: bool,
        was_probe: bool,
        now: Instant,
        settings: &config::Breaker,
    ) -> Option<Change> {
        match self.state {
            State::HalfOpen { lasted, .. } if was_probe => {
                if success {
                    *self = Self::new(now);
                    return Some(Change::Closed);
                }
                Some(self.open((lasted * 2).min(settings.open_max), now))
            }
            State::Closed => {
                let counts = self.window.add(success, now, settings.window);
                let ratio = f64::from(counts.failures) / f64::from(counts.all);
                (counts.all >= settings.attempts_min && ratio >= settings.failure_ratio)
                    .then(|| self.open(settings.open_initial, now))
            }
            // Started before it opened: it says nothing new.
            State::Open { .. } | State::HalfOpen { .. } => None,
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
    fn add(&mut self, success: bool, now: Instant, window: Duration) -> Counts {
        let half = window / 2;
        let age = now.saturating_duration_since(self.began);
        if age >= half {
            self.before = if age >= window { Counts::default() } else { self.now };
            self.now = Counts::default();
            self.began = now;
        }
        self.now.all += 1;
        self.now.failures += u32::from(!success);
        Counts { failures: self.now.failures + self.before.failures, all: self.now.all + self.before.all }
    }
}

#[cfg(test)]
mod tests {
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
        (0..times).map(|_| breaker.record(false, false, Instant::now(), &settings())).collect()
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
            assert_eq!(breaker.record(true, false, Instant::now(), &settings()), None);
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
            assert_eq!(breaker.record(true, false, Instant::now(), &settings()), None);
            let opened = breaker.record(false, true, Instant::now(), &settings());
            assert_eq!(opened, Some(Change::Opened(lasts * SECOND)));
        }
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(breaker.ask(Instant::now()), Verdict::Probe);
        assert_eq!(breaker.record(true, true, Instant::now(), &settings()), Some(Change::Closed));
        assert_eq!(breaker.ask(Instant::now()), Verdict::Allowed);
        assert!(breaker.is_spotless(Instant::now(), &settings()));
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
