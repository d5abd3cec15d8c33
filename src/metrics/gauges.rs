//! Every gauge whose value is read at the moment of a scrape. A series that is no longer there, such as one of a
//! partition that another worker has now, is left out.

use std::fmt::Write as _;

/// The name and the help text of a gauge.
#[derive(Debug)]
pub struct Gauge {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

macro_rules! gauges {
    ($($(#[$doc:meta])* $static:ident = $name:literal, $help:literal;)*) => {
        $($(#[$doc])* pub static $static: Gauge = Gauge { name: concat!("optio_webhooks_", $name), help: $help };)*
        #[cfg(test)]
        pub(super) static GAUGES: &[&Gauge] = &[$(&$static),*];
    };
}

gauges! {
    /// The version of this process.
    BUILD_INFO = "build_info", "1, with the version of this process.";
    /// Whether a dependency answers.
    UP = "up", "1 while the dependency answers this process, else 0.";
    /// Open deliveries.
    IN_FLIGHT = "in_flight", "Deliveries that are open in this process.";
    /// The limit of open deliveries.
    IN_FLIGHT_MAX = "in_flight_max", "worker.in_flight_max: the most deliveries that may be open in this process.";
    /// Requests in flight.
    REQUESTS_IN_FLIGHT = "requests_in_flight", "Requests to endpoints that are in flight.";
    /// Deliveries that wait for their endpoint.
    WAITING = "waiting", "Deliveries in this process that wait for their endpoint.";
    /// Circuits by state.
    CIRCUITS = "circuits", "Endpoints whose circuit is open or half open, as this process sees them.";
    /// Webhooks.
    WEBHOOKS = "webhooks", "Webhooks when this process last confirmed them.";
    /// Records that were not read.
    LAG = "lag", "Records of the partition that were not read yet.";
    /// Records that are not settled.
    UNSETTLED = "unsettled_records", "Records of the partition that are not settled, whether they were read or not.";
    /// Records from the watermark to the last one that was read.
    OPEN_OFFSETS = "open_offsets", "Records from the watermark to the last one that was read, settled ones included.";
    /// The age of the oldest record that is not settled.
    OLDEST_UNSETTLED_AGE = "oldest_unsettled_age_seconds", "Age of the oldest record that is not settled; 0 without one.";
    /// How long the watermark has been blocked.
    WATERMARK_BLOCKED = "watermark_blocked_seconds", "Time for which the same record has blocked the watermark, with its stage.";
    /// How long a retry has been due.
    PAST_DUE = "past_due_seconds", "Time for which the next delivery of a retry tier has been due; 0 if it is not due yet.";
    /// Whether a partition is paused.
    PAUSED = "paused", "1 while the partition is not read, because its records find no room, else 0.";
}

/// The text of gauges in Prometheus's exposition format.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Adds a gauge with a series for each of `series`: its labels and its value. Without any series, nothing is added.
    pub fn add<'a>(&mut self, gauge: &Gauge, series: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, f64)>) {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return;
        }
        let Gauge { name, help } = gauge;
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in series {
            self.0.push_str(name);
            for (at, (label, text)) in labels.iter().enumerate() {
                let _ = write!(self.0, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(text));
            }
            let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
        }
        self.0.push('\n');
    }

    /// Adds a gauge with a single series without labels.
    pub fn one(&mut self, gauge: &Gauge, value: f64) {
        self.add(gauge, [(Vec::new(), value)]);
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

/// The value of a label as the format wants it: a backslash, a quote and a line feed are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_follows_the_exposition_format() {
        let mut page = Page::default();
        page.one(&IN_FLIGHT, 3.0);
        page.add(&PAUSED, [(vec![("topic", "a\"b\\c\n"), ("partition", "0")], 1.0)]);
        page.add(&LAG, []);
        let text = page.into_text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE optio_webhooks_in_flight gauge",
                "optio_webhooks_in_flight 3",
                "",
                "# TYPE optio_webhooks_paused gauge",
                r#"optio_webhooks_paused{topic="a\"b\\c\n",partition="0"} 1"#,
                "",
            ]
        );
    }
}
