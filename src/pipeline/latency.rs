//! How long an endpoint holds on to a request, as far as it has shown.

use std::time::Duration;

/// A moving mean of what requests took, and how long nothing has come back.
#[derive(Debug, Default)]
pub struct Latency {
    mean: Option<Duration>,
    /// For so long at least requests have been under way and none was answered.
    quiet: Option<Duration>,
}

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// It has answered nothing yet, and had little time to.
    Unknown,
    /// It answers within about so long.
    Answers(Duration),
    /// It has answered nothing for much longer than it used to take, or ever.
    Silent,
}

/// Silence for so many times what a request used to take isn't chance.
const SILENT_AFTER: u32 = 4;

/// What the newest answer counts in the mean: a change shows within a handful of answers.
const NEWEST: f64 = 0.25;

impl Latency {
    /// A request was answered, or given up on, after `took`.
    pub fn answered(&mut self, took: Duration) {
        let mean = self.mean.unwrap_or(took);
        self.mean = Some(mean.mul_f64(1.0 - NEWEST) + took.mul_f64(NEWEST));
        self.quiet = None;
    }

    /// Another `by` has passed with requests under way.
    pub fn waited(&mut self, by: Duration) {
        // A request may have begun right before: the first time says that it is under way, no more.
        self.quiet = Some(self.quiet.map_or(Duration::ZERO, |quiet| quiet + by));
    }

    /// What is known. `patience` is how long any endpoint may take before its silence says something.
    #[must_use]
    pub fn pulse(&self, patience: Duration) -> Pulse {
        let quiet = self.quiet.unwrap_or_default();
        let silent_after = self.mean.map_or(patience, |mean| patience.max(mean * SILENT_AFTER));
        match self.mean {
            _ if quiet >= silent_after => Pulse::Silent,
            Some(mean) => Pulse::Answers(mean.max(quiet)),
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
    fn what_requests_took_shows_and_a_change_of_it_soon() {
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
    fn silence_shows_by_what_requests_used_to_take() {
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
        assert_eq!(slow.pulse(PATIENCE), Pulse::Answers(ms(90)), "it is back");
    }
}
