//! Every metric of this program: its name, its help text, and its labels. No other module names a metric.
//!
//! The help text of a counter says what it counts. `docs/reference.md`, section "Metrics", lists the same metrics.

pub mod attempts;
mod counters;
pub mod exporter;
pub mod gauges;
mod histograms;
mod kinds;
mod labels;

pub use counters::*;
pub use histograms::{COMMIT_DURATION, HAND_OFF_DURATION, SETTLE_DURATION};
pub use labels::{ConnectionClosed, NameFailure, PauseReason, Pool, Rebalance};

/// Describes every metric and starts every known series at 0. Call it once, after the recorder is installed.
fn begin() {
    for counter in COUNTERS {
        ::metrics::describe_counter!(counter.name, counter.help);
        ::metrics::counter!(counter.name).increment(0);
    }
    for counter in COUNTERS_BY {
        counter.begin();
    }
    ::metrics::describe_gauge!(CONDITION.name, CONDITION.help);
    for histogram in histograms::HISTOGRAMS {
        histogram.begin();
    }
    attempts::begin();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_metric_is_described_and_documented_once() {
        let mut names: Vec<&str> = COUNTERS.iter().map(|counter| counter.name).collect();
        names.extend(COUNTERS_BY.iter().map(|counter| counter.name));
        let statics =
            include_str!("metrics/counters.rs").lines().filter(|line| line.starts_with("pub static ")).count();
        assert_eq!(statics, names.len() + 1, "every counter is listed, and the gauge stands alone");
        let histograms = histograms::HISTOGRAMS;
        let statics =
            include_str!("metrics/histograms.rs").lines().filter(|line| line.starts_with("pub static ")).count();
        assert_eq!(statics, histograms.len(), "every histogram is listed");
        names.extend(histograms.iter().map(|histogram| histogram.name));
        names.extend(gauges::GAUGES.iter().map(|gauge| gauge.name));
        names.extend([CONDITION.name, attempts::NAME]);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
        let reference = std::fs::read_to_string(reference).unwrap();
        for name in names {
            assert!(reference.contains(&format!("| `{name}` |")), "{name} is missing in docs/reference.md");
        }
    }
}
