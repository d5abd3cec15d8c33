//! The trend of the lag as a line, with the same figures as a table.

use maud::{Markup, html};

use super::elements::time;
use crate::admin::trend::Sample;
use crate::clock::rfc3339;

/// The size of the line, in the units of its view box.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 60.0;
/// The most rows of the table.
const ROWS_MAX: usize = 30;

/// The line, or nothing before there are two samples.
pub fn lag(samples: &[Sample]) -> Markup {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Markup::default() };
    if first.at_ms >= last.at_ms {
        return Markup::default();
    }
    let highest = samples.iter().map(|sample| sample.lag).max().unwrap_or_default();
    let summary = format!("now {}, at most {highest} in this time", last.lag);
    let x = |sample: &Sample| (sample.at_ms - first.at_ms) as f64 / (last.at_ms - first.at_ms) as f64 * WIDTH;
    let y = |sample: &Sample| HEIGHT - sample.lag.max(0) as f64 / highest.max(1) as f64 * (HEIGHT - 2.0) - 1.0;
    let points: Vec<String> = samples.iter().map(|sample| format!("{:.1},{:.1}", x(sample), y(sample))).collect();
    // The newest rows, and of older ones as many as fit.
    let step = samples.len().div_ceil(ROWS_MAX).max(1);
    html! {
        figure .chart #lag-trend {
            figcaption { strong { "Events not settled" } " " span .hint { (summary) } }
            svg .lines viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ "Events not settled: " (summary) } preserveAspectRatio="none" {
                polyline .median points=(points.join(" ")) {}
            }
            div .axis .hint aria-hidden="true" { span { (time(&rfc3339(first.at_ms))) } span { "now" } }
            details {
                summary { "As a table" }
                div .scroll tabindex="0" role="region" aria-label="Events not settled" {
                    table {
                        thead { tr { th scope="col" { "At" } th scope="col" { "Events not settled" } } }
                        tbody {
                            @for sample in samples.iter().rev().step_by(step) {
                                tr { td data-label="At" { (time(&rfc3339(sample.at_ms))) } td data-label="Events not settled" { (sample.lag) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_needs_two_samples_and_spans_the_chart() {
        assert_eq!(lag(&[]).into_string(), "");
        assert_eq!(lag(&[Sample { at_ms: 1, lag: 5 }]).into_string(), "");
        let shown =
            lag(&[Sample { at_ms: 0, lag: 0 }, Sample { at_ms: 60_000, lag: 8 }, Sample { at_ms: 120_000, lag: 4 }]);
        let shown = shown.into_string();
        assert!(shown.contains("now 4, at most 8"), "{shown}");
        assert!(shown.contains(r#"points="0.0,59.0 360.0,1.0 720.0,30.0""#), "{shown}");
    }
}
