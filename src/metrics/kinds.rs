//! The kinds of metrics. Each knows its name, its help text and its labels.

use std::sync::OnceLock;
use std::time::Duration;

/// A counter without labels.
#[derive(Debug)]
pub struct Counter {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        ::metrics::counter!(self.name).increment(1);
    }
}

/// A counter with one label.
#[derive(Debug)]
pub struct CounterBy {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) label: &'static str,
    /// The label's values that are known from the start. Their series start at 0.
    pub(super) known: fn() -> Vec<&'static str>,
    /// The known series, looked up once: a lookup costs more than an increment.
    pub(super) series: OnceLock<Vec<(&'static str, ::metrics::Counter)>>,
}

impl CounterBy {
    /// Adds one to the series of `value`.
    pub fn increment(&self, value: &'static str) {
        match self.series.get().and_then(|series| series.iter().find(|(known, _)| *known == value)) {
            Some((_, series)) => series.increment(1),
            None => ::metrics::counter!(self.name, self.label => value).increment(1),
        }
    }

    /// Describes the counter and starts its known series at 0.
    pub(super) fn begin(&self) {
        ::metrics::describe_counter!(self.name, self.help);
        let series = |value| (value, ::metrics::counter!(self.name, self.label => value));
        let known: Vec<_> = (self.known)().into_iter().map(series).collect();
        known.iter().for_each(|(_, series)| series.increment(0));
        let _ = self.series.set(known);
    }

    /// Adds one to the series of a `value` that is not known before the process runs.
    pub fn increment_named(&self, value: &str) {
        ::metrics::counter!(self.name, self.label => value.to_owned()).increment(1);
    }
}

/// A gauge with one label that is set when its value changes.
#[derive(Debug)]
pub struct GaugeBy {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) label: &'static str,
}

impl GaugeBy {
    /// Sets the series of `value`.
    pub fn set(&self, value: &str, to: f64) {
        ::metrics::gauge!(self.name, self.label => value.to_owned()).set(to);
    }
}

/// A histogram of durations, in seconds.
#[derive(Debug)]
pub struct Histogram {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// The upper bounds of the buckets, in seconds.
    pub(super) buckets: &'static [f64],
    /// The series, looked up once: a lookup costs more than an observation.
    series: OnceLock<::metrics::Histogram>,
}

impl Histogram {
    pub(super) const fn new(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Self {
        Self { name, help, buckets, series: OnceLock::new() }
    }

    /// Adds an observation.
    pub fn observe(&self, duration: Duration) {
        self.observe_s(duration.as_secs_f64());
    }

    /// Adds the time from `from_ms` to `to_ms`, both in Unix milliseconds. Clocks of different machines may differ, so
    /// a negative time counts as none.
    pub fn observe_between(&self, from_ms: i64, to_ms: i64) {
        self.observe(Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0)));
    }

    fn observe_s(&self, seconds: f64) {
        // Before the recorder is installed there is no series to keep.
        match self.series.get() {
            Some(series) => series.record(seconds),
            None => ::metrics::histogram!(self.name).record(seconds),
        }
    }

    /// Describes the histogram and creates its series.
    pub(super) fn begin(&self) {
        ::metrics::describe_histogram!(self.name, ::metrics::Unit::Seconds, self.help);
        let _ = self.series.set(::metrics::histogram!(self.name));
    }
}
