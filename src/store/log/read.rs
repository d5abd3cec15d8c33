//! Reading delivery logs: by page, or the entries after a given one.

use crate::store::connection::Connection;
use redis::RedisError;
use redis::streams::{StreamId, StreamRangeReply};

use super::{EntryId, LogEntry, Logged, packed};
use crate::delivery::DeliveryId;
use crate::event::EventType;
use crate::store::{Keys, is_away};
use crate::webhook::WebhookId;

/// The number of entries that one command reads while a filter applies.
const CHUNK: usize = 200;

/// A filter for log entries. The default accepts all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// If set, only attempts that succeeded (true) or failed (false).
    pub success: Option<bool>,
    /// If set, only attempts for events of this type.
    pub event: Option<EventType>,
    /// If set, only attempts whose task, event or delivery has this id, or whose answer has this status.
    pub search: Option<String>,
    /// If set, only attempts that ended at or after this time, in Unix milliseconds.
    pub since_ms: Option<i64>,
    /// If set, only attempts that ended before this time, in Unix milliseconds.
    pub until_ms: Option<i64>,
}

impl Filter {
    /// Whether the filter accepts an attempt.
    #[must_use]
    pub fn accepts(&self, entry: &LogEntry<'_>) -> bool {
        let logged = &entry.logged;
        let at_ms = entry.id.at_ms();
        self.success.is_none_or(|success| success == logged.success)
            && self.event.is_none_or(|event| event == logged.event)
            && self.since_ms.is_none_or(|since| at_ms >= since)
            && self.until_ms.is_none_or(|until| at_ms < until)
            && self.search.as_deref().is_none_or(|text| is_found(text, logged))
    }
}

/// Whether `text` names the task, the event, the delivery or the status of an attempt.
fn is_found(text: &str, logged: &Logged<'_>) -> bool {
    text == logged.task_id
        || text == logged.event_id
        || text.parse::<DeliveryId>().is_ok_and(|id| id == logged.delivery_id)
        || text.parse::<u16>().is_ok_and(|status| Some(status) == logged.status_code)
}

/// A page of log entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// The entries, newest first.
    pub entries: Vec<LogEntry<'static>>,
    /// The id before which the next page begins. None at the end of the log.
    pub next: Option<EntryId>,
}

/// Read access to the delivery logs.
#[derive(Clone)]
pub struct DeliveryLog {
    connection: Connection,
    keys: Keys,
}

impl DeliveryLog {
    /// Uses `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys }
    }

    /// Up to `limit` entries that `filter` accepts, newest first, older than `before`. A filter may make it read the
    /// whole log, which is bounded.
    ///
    /// # Errors
    /// Errors of Redis if it is unavailable.
    pub async fn page(
        &self,
        webhook: WebhookId,
        filter: Filter,
        before: Option<EntryId>,
        limit: usize,
    ) -> redis::RedisResult<LogPage> {
        let mut page = LogPage::default();
        let mut end = before;
        if before == Some(EntryId::default()) {
            // No entry is older than the smallest id, and Redis rejects a range that ends before it.
            return Ok(page);
        }
        loop {
            let newest = end.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
            let chunk = if filter == Filter::default() { limit + 1 } else { CHUNK };
            let reply: StreamRangeReply = redis::cmd("XREVRANGE")
                .arg(self.keys.log(webhook))
                .arg(newest)
                .arg("-")
                .arg("COUNT")
                .arg(chunk)
                .query_async(&mut self.connection.clone())
                .await
                .or_else(empty_if_unreadable)?;
            let is_last = reply.ids.len() < chunk;
            for stream_id in reply.ids {
                // Skip entries that cannot be read, because another version may have written them.
                end = stream_id.id.parse().ok().or(end);
                let Some(entry) = read(webhook, &stream_id) else { continue };
                if filter.since_ms.is_some_and(|since| entry.id.at_ms() < since) {
                    return Ok(page);
                }
                if !filter.accepts(&entry) {
                    continue;
                }
                if page.entries.len() == limit {
                    page.next = page.entries.last().map(|last| last.id);
                    return Ok(page);
                }
                page.entries.push(entry);
            }
            if is_last || end.is_none() {
                return Ok(page);
            }
        }
    }

    /// Up to `limit` entries newer than `after`, oldest first, and the id of the last entry that was read.
    ///
    /// # Errors
    /// Errors of Redis if it is unavailable.
    pub async fn since(
        &self,
        webhook: WebhookId,
        after: EntryId,
        limit: usize,
    ) -> redis::RedisResult<(Vec<LogEntry<'static>>, EntryId)> {
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(self.keys.log(webhook))
            .arg(format!("({after}"))
            .arg("+")
            .arg("COUNT")
            .arg(limit)
            .query_async(&mut self.connection.clone())
            .await
            .or_else(empty_if_unreadable)?;
        let last = reply.ids.last().and_then(|stream_id| stream_id.id.parse().ok()).unwrap_or(after);
        Ok((reply.ids.iter().filter_map(|stream_id| read(webhook, stream_id)).collect(), last))
    }

    /// The entry with this id. None if it does not exist.
    ///
    /// # Errors
    /// Errors of Redis if it is unavailable.
    pub async fn entry(&self, webhook: WebhookId, id: EntryId) -> redis::RedisResult<Option<LogEntry<'static>>> {
        let id = id.to_string();
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(self.keys.log(webhook))
            .arg(&id)
            .arg(&id)
            .query_async(&mut self.connection.clone())
            .await
            .or_else(empty_if_unreadable)?;
        Ok(reply.ids.first().and_then(|stream_id| read(webhook, stream_id)))
    }

    /// The newest attempt of a delivery. None if the log has none.
    ///
    /// # Errors
    /// Errors of Redis if it is unavailable.
    pub async fn newest_of(
        &self,
        webhook: WebhookId,
        delivery: DeliveryId,
    ) -> redis::RedisResult<Option<LogEntry<'static>>> {
        let mut before = None;
        loop {
            let page = self.page(webhook, Filter::default(), before, CHUNK).await?;
            if let Some(found) = page.entries.into_iter().find(|entry| entry.logged.delivery_id == delivery) {
                return Ok(Some(found));
            }
            let Some(next) = page.next else { return Ok(None) };
            before = Some(next);
        }
    }
}

/// Treats a log that cannot be read, such as a key of another type, as empty, so that the other logs are still shown.
fn empty_if_unreadable(error: RedisError) -> redis::RedisResult<StreamRangeReply> {
    if is_away(&error) {
        return Err(error);
    }
    tracing::warn!(%error, "a delivery log cannot be read");
    Ok(StreamRangeReply::default())
}

fn read(webhook_id: WebhookId, stream_id: &StreamId) -> Option<LogEntry<'static>> {
    let (meta, payload) = match stream_id.get::<Vec<u8>>("packed") {
        Some(packed) => packed::unpack(&packed)?,
        // Version 0.1 stored two fields, and its entries may be there for `log.age_max`.
        None => (stream_id.get::<Vec<u8>>("meta")?, stream_id.get::<Vec<u8>>("payload")?),
    };
    let logged: Logged<'static> = serde_json::from_slice(&meta)
        .inspect_err(|error| tracing::debug!(%error, webhook = %webhook_id, "a log entry cannot be read"))
        .ok()?;
    let payload = String::from_utf8_lossy(&payload).into_owned();
    Some(LogEntry { id: stream_id.id.parse().ok()?, webhook_id, logged, payload: payload.into() })
}
