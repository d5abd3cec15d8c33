//! The words of `top`: the rows of its tables, and the status as plain text.

use crate::admin::status::{EndpointStatus, PartitionStatus, Status};
use crate::printable::escaped;
use crate::report::BreakerState;

/// A length of time in its largest unit, such as `3m`.
pub(super) fn short(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match seconds {
        0 => format!("{}ms", ms.max(0)),
        1..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The age of the oldest event.
pub(super) fn oldest(status: &Status) -> String {
    match status.oldest_undelivered_age_ms {
        Some(age) => short(age),
        None if status.lag == 0 => "none waits".to_owned(),
        None => "unknown".to_owned(),
    }
}

/// The partitions whose watermark something blocks, and those that nobody reads although they have records.
pub(super) fn blocked(status: &Status) -> Vec<&PartitionStatus> {
    status.partitions.iter().filter(|one| one.holding.is_some() || (one.worker.is_none() && one.lag > 0)).collect()
}

/// The columns of [`partition`].
pub(super) const PARTITION: [&str; 6] = ["PARTITION", "UNSETTLED", "OPEN", "AT OFFSET", "STAGE", "WEBHOOK"];

/// The row of a partition.
pub(super) fn partition(one: &PartitionStatus) -> [String; 6] {
    let name = format!("{}/{}", escaped(&one.topic), one.partition);
    let (offset, stage, webhook) = match &one.holding {
        Some(holding) => (
            holding.offset.to_string(),
            holding.stage.as_str().to_owned(),
            holding.webhook_id.map_or(String::new(), |id| id.to_string()),
        ),
        None => (
            one.committed.map_or(String::new(), |offset| offset.to_string()),
            "no worker reads it".to_owned(),
            String::new(),
        ),
    };
    let paused = if one.paused { ", paused" } else { "" };
    [name, one.lag.to_string(), one.open_offsets.to_string(), offset, format!("{stage}{paused}"), webhook]
}

/// The columns of [`endpoint`].
pub(super) const ENDPOINT: [&str; 6] = ["WEBHOOK", "CIRCUIT", "BACKS OFF", "IN FLIGHT", "WAITING", "WORKER"];

/// The row of an endpoint.
pub(super) fn endpoint(one: &EndpointStatus) -> [String; 6] {
    let endpoint = &one.endpoint;
    [
        endpoint.webhook_id.to_string(),
        circuit(endpoint.breaker).to_owned(),
        endpoint.backs_off_ms.map_or(String::new(), |ms| short(i64::try_from(ms).unwrap_or(i64::MAX))),
        format!("{}/{}", endpoint.in_flight, endpoint.limit),
        endpoint.waiting.to_string(),
        escaped(&one.worker).into_owned(),
    ]
}

fn circuit(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half open",
        BreakerState::Closed => "closed",
    }
}

/// The whole status as lines of text.
pub(super) fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![format!("unsettled events: {}, oldest: {}", status.lag, oldest(status))];
    for worker in &status.workers {
        lines.push(format!(
            "worker {} {}: {}/{} in flight, {} partitions",
            worker.worker, worker.version, worker.in_flight, worker.in_flight_max, worker.partitions
        ));
    }
    if status.workers.is_empty() {
        lines.push("no worker runs".to_owned());
    }
    table(&mut lines, &PARTITION, blocked(status).into_iter().map(partition));
    table(&mut lines, &ENDPOINT, status.endpoints.iter().map(endpoint));
    lines
}

/// Adds a table, if it has rows.
fn table<const N: usize>(lines: &mut Vec<String>, columns: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
    let rows: Vec<[String; N]> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let width =
        |at: usize| rows.iter().map(|row| row[at].chars().count()).chain([columns[at].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    lines.push(line(columns.to_vec()));
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn status() -> Status {
        let webhook = "01a21c48-a2f0-7451-b0a1-b028d95ba40c";
        serde_json::from_value(serde_json::json!({
            "lag": 1200, "oldestUndeliveredAgeMs": 61_000,
            "workers": [{"worker": "a\u{1b}[2J:1", "version": "0.1.0", "inFlight": 5, "inFlightMax": 256, "partitions": 9}],
            "partitions": [
                {"topic": "task-events", "partition": 0, "committed": 5, "end": 1205, "lag": 1200, "worker": "a:1",
                 "openOffsets": 40, "paused": true,
                 "holding": {"offset": 5, "writtenAt": "2026-01-01T00:00:00Z", "stage": "sending", "webhookId": webhook}},
                {"topic": "task-events.retry.1", "partition": 0, "committed": null, "end": 7, "lag": 7, "worker": null,
                 "openOffsets": 0, "paused": false, "holding": null},
                {"topic": "task-events.retry.2", "partition": 0, "committed": 3, "end": 3, "lag": 0, "worker": "a:1",
                 "openOffsets": 0, "paused": false, "holding": null}],
            "endpoints": [{"worker": "a:1", "webhookId": webhook, "breaker": "open", "leftAloneMs": 8_000,
                           "inFlight": 0, "limit": 1, "waiting": 31}],
            "aFieldOfALaterVersion": 1
        }))
        .unwrap()
    }

    #[test]
    fn the_text_names_what_is_blocked_and_what_backs_off() {
        let text = lines(&status()).join("\n");
        for part in [
            "unsettled events: 1200, oldest: 61s",
            "5/256 in flight",
            "task-events/0          1200       40    5          sending, paused",
            "no worker reads it",
            "open     8s         0/1        31",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("retry.2"), "{text}");
    }
}
