//! The response time of an endpoint, and whether the endpoint has fallen silent.

use std::time::Duration;

/// A moving mean of response times, and the time since the last answer.
#[derive(Debug, Default)]
pub struct Latency {
    mean: Option<Duration>,
    /// The mean at each of the last two sweeps.
    earlier: [Option<Duration>; 2],
    /// The time for which requests have been in flight and none was answered, rounded down.
    silence: Option<Duration>,
}

/// What is known about the response time of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// It hasn't answered a request yet, and no request has been in flight for long.
    Unknown,
    /// It answers within about this time.
    Answers(Duration),
    /// It hasn't answered for much longer than its usual response time, or it has never answered.
    Silent,
}

/// An endpoint counts as silent after this many times its usual response time.
const SILENT_AFTER: u32 = 4;

/// The weight of the newest answer in the mean. A change of the response time shows within a handful of answers, and counts
/// once it has lasted for two sweeps.
const NEWEST: f64 = 0.25;

impl Latency {
    /// Notes that a request was answered or timed out after `took`.
    pub fn answered(&mut self, took: Duration) {
        let mean = self.mean.unwrap_or(took);
        self.mean = Some(mean.mul_f64(1.0 - NEWEST) + took.mul_f64(NEWEST));
        self.silence = None;
    }

    /// Notes, at each sweep, that `by` more time has passed with requests in flight.
    pub fn waited(&mut self, by: Duration) {
        self.earlier = [self.mean, self.earlier[0]];
        // The request may have begun just now, so the first call says only that it is in flight.
        self.silence = Some(self.silence.map_or(Duration::ZERO, |silence| silence + by));
    }

    /// The mean, or a lower one of the last sweeps. If this process stands still for a moment, all requests in flight seem to
    /// have taken that long, and the deliveries behind them must not be deferred for it.
    fn lasting(&self, mean: Duration) -> Duration {
        self.earlier.iter().flatten().fold(mean, |lowest, earlier| lowest.min(*earlier))
    }

    /// What is known now. `patience` is the time that any endpoint may take before it counts as silent.
    #[must_use]
    pub fn pulse(&self, patience: Duration) -> Pulse {
        let silence = self.silence.unwrap_or_default();
        let silent_after = self.mean.map_or(patience, |mean| patience.max(mean * SILENT_AFTER));
        match self.mean {
            _ if silence >= silent_after => Pulse::Silent,
            Some(mean) => Pulse::Answers(self.lasting(mean).max(silence)),
            None => Pulse::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(250);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_change_of_the_response_time_shows_within_a_few_answers() {
        let mut latency = Latency::default();
        assert_eq!(latency.pulse(PATIENCE), Pulse::Unknown);
        latency.answered(ms(10));
        assert_eq!(latency.pulse(PATIENCE), Pulse::Answers(ms(10)));
        for _ in 0..10 {
            latency.answered(ms(1_010));
        }
        assert!(matches!(latency.pulse(PATIENCE), Pulse::Answers(mean) if mean > ms(900)));
    }

    #[test]
    fn a_standstill_of_this_process_does_not_make_an_endpoint_slow() {
        let mut latency = Latency::default();
        latency.answered(ms(10));
        (0..2).for_each(|_| latency.waited(ms(100)));
        (0..50).for_each(|_| latency.answered(ms(1_000)));
        assert_eq!(latency.pulse(PATIENCE), Pulse::Answers(ms(10)));
        latency.waited(ms(100));
        assert_eq!(latency.pulse(PATIENCE), Pulse::Answers(ms(10)));
        latency.waited(ms(100));
        assert!(matches!(latency.pulse(PATIENCE), Pulse::Answers(mean) if mean > ms(900)), "it is slow for two sweeps");
        (0..50).for_each(|_| latency.answered(ms(10)));
        assert!(matches!(latency.pulse(PATIENCE), Pulse::Answers(mean) if mean < ms(20)), "it is fast again at once");
    }

    #[test]
    fn an_endpoint_is_silent_after_a_multiple_of_its_response_time() {
        let mut latencies: [Latency; 3] = Default::default();
        let [new, fast, slow] = &mut latencies;
        fast.answered(ms(10));
        slow.answered(ms(90));
        for latency in [&mut *new, fast, slow] {
            (0..3).for_each(|_| latency.waited(ms(100)));
        }
        assert_eq!(new.pulse(PATIENCE), Pulse::Unknown);
        assert_eq!(fast.pulse(PATIENCE), Pulse::Answers(ms(200)));
        for latency in [&mut *new, fast, slow] {
            latency.waited(ms(100));
        }
        assert_eq!([new, fast].map(|latency| latency.pulse(PATIENCE)), [Pulse::Silent; 2]);
        assert_eq!(slow.pulse(PATIENCE), Pulse::Answers(ms(300)));
        slow.waited(ms(100));
        assert_eq!(slow.pulse(PATIENCE), Pulse::Silent);
        slow.answered(ms(90));
        assert_eq!(slow.pulse(PATIENCE), Pulse::Answers(ms(90)), "it answers again");
    }
}
