//! The page `/metrics`: what was counted, and the state of the process.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use super::histograms::HISTOGRAMS;

/// How often observations of histograms are moved to their buckets. Until then each takes eight bytes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Renders the page.
#[derive(Debug, Clone)]
pub struct Exporter {
    counted: PrometheusHandle,
    process: Collector,
}

impl Exporter {
    /// Installs the recorder of this process, and starts every known series. None if another recorder is installed
    /// already.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn install() -> Option<Self> {
        let mut builder = PrometheusBuilder::new();
        for histogram in HISTOGRAMS {
            let name = Matcher::Full(histogram.name.to_owned());
            builder = builder.set_buckets_for_metric(name, histogram.buckets).expect("no list of buckets is empty");
        }
        let counted = builder
            .install_recorder()
            .inspect_err(|error| tracing::warn!(%error, "the metrics exporter cannot be installed; /metrics is empty"))
            .ok()?;
        super::begin();
        let process = Collector::default();
        process.describe();
        let upkeep = counted.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                upkeep.run_upkeep();
            }
        });
        Some(Self { counted, process })
    }

    /// The page without the gauges that are read at the moment of a scrape.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        self.counted.render()
    }
}
