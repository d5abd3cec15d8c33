//! The newest events of the topic, and which of them a webhook would get.

use rdkafka::Message as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::browse::{Bounds, Cursor, newest};
use super::scan::{Scan, Start};
use crate::clock::rfc3339;
use crate::config::Config;
use crate::event::{Decoded, EventType, Limits, decode};
use crate::position::{RecordPosition, TimestampMs};
use crate::topics::Names;
use crate::webhook::filter::{Fields, Filter};

/// The longest title and address that are shown, in characters.
const SHOWN_MAX: usize = 200;

/// One of the newest events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentEvent {
    /// The position in the topic, as partition/offset.
    pub id: String,
    /// The time at which it was written, in RFC 3339.
    pub written_at: String,
    /// The event type.
    pub event: EventType,
    /// The task.
    pub task_id: String,
    /// The title of the task, cut to 200 characters; null if it is unknown.
    pub title: Option<String>,
    /// The repository of the task; null if it is unknown.
    pub repo_url: Option<String>,
    /// The type of the agent; null if it is unknown.
    pub agent_type: Option<String>,
    /// Whether the webhook would get it.
    pub matches: bool,
}

/// The newest events that webhooks can subscribe to, newest first. `events` and `filter` are those of a webhook. Blocks.
///
/// # Errors
/// If the topic cannot be read, or `stop` is cancelled.
pub fn recent(
    config: &Config,
    events: &[EventType],
    filter: Option<&Filter>,
    bounds: Bounds,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<RecentEvent>> {
    let scan = Scan::locate(config, Names::new(config).events(), Start::Oldest)?;
    let limits = Limits::new(config);
    let (found, _) = newest(scan, &Cursor::default(), bounds, stop, |record| {
        let written_ms = record.timestamp().to_millis().unwrap_or(0);
        let (partition, offset) = (record.partition(), record.offset());
        let at = RecordPosition { topic: record.topic().into(), partition, offset };
        let Ok(Decoded::Event(event)) = decode(record.payload(), &at, TimestampMs(written_ms), limits) else {
            return None;
        };
        let fields = Fields::of(&event);
        let text = |field| {
            fields.get(field).and_then(|value| value.as_str()).map(|text| text.chars().take(SHOWN_MAX).collect())
        };
        let shown = RecentEvent {
            id: format!("{partition}/{offset}"),
            written_at: rfc3339(written_ms),
            event: event.event_type,
            title: text("task.title"),
            repo_url: text("task.repoUrl"),
            agent_type: text("task.agentType"),
            matches: events.contains(&event.event_type) && filter.is_none_or(|filter| filter.matches(&fields)),
            task_id: event.task_id.to_string(),
        };
        Some((written_ms, shown))
    })?;
    Ok(found)
}
