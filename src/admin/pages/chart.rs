//! Charts of attempts by outcome, drawn as SVG on the server. Each has the same figures as a table.

use std::time::Duration;

use maud::{Markup, html};

use super::elements::time;
use crate::admin::activity::Hour;
use crate::admin::state::Shared;
use crate::clock::rfc3339;
use crate::store::latencies::{self, Histogram, quantile};
use crate::store::success::Counts;
use crate::webhook::Webhook;

/// The size of a chart, in the units of its view box.
const WIDTH: usize = 720;
const HEIGHT: usize = 120;
/// The height of the lines of durations.
const LINES_HEIGHT: usize = 60;
/// The size of the chart in a row of a list.
const SPARK_WIDTH: usize = 96;
const SPARK_HEIGHT: usize = 20;

/// The attempts of one bar.
struct Bar {
    /// The beginning of its time, in Unix milliseconds.
    from_ms: i64,
    counts: Counts,
    latencies: Histogram,
}

/// The charts of a webhook's attempts. There are none if Redis doesn't answer.
pub async fn of_webhook(admin: &Shared, webhook: &Webhook) -> Markup {
    admin.activity(webhook.id).await.map_or_else(|_| Markup::default(), |hours| activity(&hours))
}

/// The attempts of the last 24 hours by the hour, and of the last 7 days by 6 hours. `hours` has the attempts of each
/// hour, the newest last.
fn activity(hours: &[Hour]) -> Markup {
    let day = &hours[hours.len().saturating_sub(24)..];
    html! {
        section .card #activity {
            h2 { "Attempts" }
            (chart("The last 24 hours", &bars(day, 1)))
            (chart("The last 7 days", &bars(hours, 6)))
        }
    }
}

/// A small chart without figures, for a row that has them as text.
pub fn spark(hours: &[Counts]) -> Markup {
    html! {
        svg .spark viewBox={ "0 0 " (SPARK_WIDTH) " " (SPARK_HEIGHT) } width=(SPARK_WIDTH) height=(SPARK_HEIGHT) aria-hidden="true" {
            @let hours: Vec<Hour> = hours.iter().map(|counts| Hour { from_ms: 0, counts: *counts, latencies: [0; latencies::BUCKETS] }).collect();
            (rects(&bars(&hours, 1), SPARK_WIDTH, SPARK_HEIGHT))
        }
    }
}

/// Puts the hours together, `each` in a bar. The newest hour is not over yet.
fn bars(hours: &[Hour], each: usize) -> Vec<Bar> {
    let bar = |hours: &[Hour]| Bar {
        from_ms: hours.first().map_or(0, |hour| hour.from_ms),
        counts: hours.iter().map(|hour| &hour.counts).sum(),
        latencies: latencies::sum(hours.iter().map(|hour| &hour.latencies)),
    };
    hours.chunks(each).map(bar).collect()
}

fn chart(title: &str, bars: &[Bar]) -> Markup {
    let sum: Counts = bars.iter().map(|bar| &bar.counts).sum();
    let summary = match sum.percent() {
        None => "no attempts".to_owned(),
        Some(percent) => format!("{} delivered, {} failed ({percent} % delivered)", sum.succeeded, sum.failed),
    };
    html! {
        figure .chart {
            figcaption { strong { (title) } " " span .hint { (summary) } }
            @if sum != Counts::default() {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (title) ": " (summary) } preserveAspectRatio="none" {
                    (rects(bars, WIDTH, HEIGHT))
                }
                (durations(title, bars))
                div .axis .hint aria-hidden="true" { span { (time(&rfc3339(bars[0].from_ms))) } span { "now" } }
                details {
                    summary { "As a table" }
                    div .scroll tabindex="0" role="region" aria-label=(title) {
                        table {
                            thead { tr { th scope="col" { "From" } th scope="col" { "Delivered" } th scope="col" { "Failed" } th scope="col" { "Half below" } th scope="col" { "95 % below" } } }
                            tbody {
                                @for bar in bars.iter().rev().filter(|bar| bar.counts != Counts::default()) {
                                    tr {
                                        td data-label="From" { (time(&rfc3339(bar.from_ms))) }
                                        td data-label="Delivered" { (bar.counts.succeeded) }
                                        td data-label="Failed" { (bar.counts.failed) }
                                        td data-label="Half below" { (shown(quantile(&bar.latencies, 0.5))) }
                                        td data-label="95 % below" { (shown(quantile(&bar.latencies, 0.95))) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How long the attempts took: the median, and the time below which 95 % ended, as two lines on a logarithmic scale.
fn durations(title: &str, bars: &[Bar]) -> Markup {
    let all = latencies::sum(bars.iter().map(|bar| &bar.latencies));
    let (Some(median), Some(tail)) = (quantile(&all, 0.5), quantile(&all, 0.95)) else { return Markup::default() };
    let summary =
        format!("Half of the attempts took less than about {}, and 95 % less than {}", short(median), short(tail));
    let each = WIDTH as f64 / bars.len().max(1) as f64;
    // From half a millisecond at the bottom to 100 s at the top.
    let height = |time: Duration| (time.as_secs_f64() * 2_000.0).max(1.0).log10() / 5.3 * LINES_HEIGHT as f64;
    let points = |share: f64| {
        let at = |(number, bar): (usize, &Bar)| {
            let y = LINES_HEIGHT as f64 - height(quantile(&bar.latencies, share)?);
            Some(format!("{:.1},{y:.1}", (number as f64 + 0.5) * each))
        };
        bars.iter().enumerate().filter_map(at).collect::<Vec<_>>()
    };
    html! {
        p .hint { (summary) "." }
        svg .lines viewBox={ "0 0 " (WIDTH) " " (LINES_HEIGHT) } role="img" aria-label={ (title) ": " (summary) } preserveAspectRatio="none" {
            @for (class, share) in [("median", 0.5), ("tail", 0.95)] {
                @let points = points(share);
                @if let [point] = &points[..] {
                    // One point makes no line.
                    @let (x, y) = point.split_once(',').unwrap_or_default();
                    circle class=(class) cx=(x) cy=(y) r="2" {}
                } @else {
                    polyline class=(class) points=(points.join(" ")) {}
                }
            }
        }
    }
}

/// A duration in two digits.
fn short(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1_000.0;
    match ms {
        ..1.0 => "1 ms".to_owned(),
        ..10.0 => format!("{ms:.1} ms"),
        ..1_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1_000.0),
    }
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "–".to_owned(), short)
}

/// The bars, each with its failures on top of its deliveries. A bar that has any attempts can be seen.
fn rects(bars: &[Bar], width: usize, height: usize) -> Markup {
    let total = |counts: Counts| counts.succeeded.saturating_add(counts.failed);
    let highest = bars.iter().map(|bar| total(bar.counts)).max().unwrap_or_default().max(1);
    let scaled = |count: u64| match count {
        0 => 0.0,
        count => (count as f64 / highest as f64 * height as f64).max(1.0),
    };
    let each = width as f64 / bars.len().max(1) as f64;
    let gap = (each * 0.15).min(3.0);
    html! {
        @for (number, bar) in bars.iter().enumerate() {
            @let (delivered, failed) = (scaled(bar.counts.succeeded), scaled(bar.counts.failed));
            @let x = format!("{:.1}", number as f64 * each + gap / 2.0);
            @let bar_width = format!("{:.1}", each - gap);
            @if delivered > 0.0 {
                rect .delivered x=(x) y=(format!("{:.1}", height as f64 - delivered)) width=(bar_width) height=(format!("{delivered:.1}")) {}
            }
            @if failed > 0.0 {
                rect .failed x=(x) y=(format!("{:.1}", (height as f64 - delivered - failed).max(0.0))) width=(bar_width) height=(format!("{failed:.1}")) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A week without attempts, whose hours begin at their numbers.
    fn week() -> Vec<Hour> {
        let hour = |from_ms| Hour { from_ms, counts: Counts::default(), latencies: [0; latencies::BUCKETS] };
        (0..168).map(hour).collect()
    }

    #[test]
    fn the_hours_of_a_week_become_bars_that_fit_the_chart() {
        let mut hours = week();
        hours[167].counts = Counts { succeeded: 90, failed: 10 };
        hours[167].latencies[latencies::bucket(Duration::from_millis(20))] = 100;
        hours[0].counts = Counts { succeeded: 0, failed: 1 };
        let by_six = bars(&hours, 6);
        assert_eq!((by_six.len(), by_six[0].from_ms, by_six[27].from_ms), (28, 0, 162));
        assert_eq!((by_six[27].counts, by_six[0].counts.failed), (hours[167].counts, 1));
        let shown = activity(&hours).into_string();
        assert!(
            shown.contains("90 delivered, 10 failed (90 % delivered)") && shown.contains("90 delivered, 11 failed")
        );
        assert!(shown.contains(r#"height="108.0""#) && shown.contains(r#"height="12.0""#), "{shown}");
        assert!(shown.contains("Half of the attempts took less than about 19 ms"), "{shown}");
        assert!(shown.contains(r#"height="1.2""#), "a bar with one attempt can be seen: {shown}");
    }

    #[test]
    fn a_webhook_without_attempts_has_no_chart() {
        let shown = activity(&week()).into_string();
        assert!(shown.contains("no attempts") && !shown.contains("<svg"));
    }
}
