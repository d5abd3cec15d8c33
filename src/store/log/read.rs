//! Reading logs: page by page, or what came since.

use crate::store::connection::Connection;
use redis::RedisError;
use redis::streams::{StreamId, StreamRangeReply};

use super::{Entry, EntryId, Logged};
use crate::delivery::DeliveryId;
use crate::event::EventType;
use crate::store::{Keys, is_away};
use crate::webhook::WebhookId;

/// Entries that are read at once while a filter is applied.
const CHUNK: usize = 200;

/// Which entries are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that succeeded, or that failed.
    pub success: Option<bool>,
    /// Only those that told of this.
    pub event: Option<EventType>,
}

impl Filter {
    /// Whether an attempt is meant.
    #[must_use]
    pub fn takes(self, logged: &Logged<'_>) -> bool {
        self.success.is_none_or(|success| success == logged.success)
            && self.event.is_none_or(|event| event == logged.event)
    }
}

/// Entries, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Those that fit.
    pub entries: Vec<Entry<'static>>,
    /// The next page is before this one; None at the end.
    pub next: Option<EntryId>,
}

/// Reads logs.
#[derive(Clone)]
pub struct DeliveryLog {
    connection: Connection,
    keys: Keys,
}

impl DeliveryLog {
    /// Over `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys }
    }

    /// Up to `limit` entries that `filter` means, newest first, older than `before`. Reads no more than the log,
    /// which is bounded.
    ///
    /// # Errors
    /// Redis's.
    pub async fn page(
        &self,
        webhook: WebhookId,
        filter: Filter,
        before: Option<EntryId>,
        limit: usize,
    ) -> redis::RedisResult<Page> {
        let mut page = Page::default();
        let mut end = before;
        if before == Some(EntryId::default()) {
            // Nothing is older, and Redis has no way to say so.
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
                .or_else(nothing_there)?;
            let is_last = reply.ids.len() < chunk;
            for stream_id in reply.ids {
                // Also past what can't be read: another version may have written it.
                end = stream_id.id.parse().ok().or(end);
                let Some(entry) = read(webhook, &stream_id) else { continue };
                if !filter.takes(&entry.logged) {
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

    /// Up to `limit` entries younger than `after`, oldest first, and the last that was looked at.
    ///
    /// # Errors
    /// Redis's.
    pub async fn since(
        &self,
        webhook: WebhookId,
        after: EntryId,
        limit: usize,
    ) -> redis::RedisResult<(Vec<Entry<'static>>, EntryId)> {
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(self.keys.log(webhook))
            .arg(format!("({after}"))
            .arg("+")
            .arg("COUNT")
            .arg(limit)
            .query_async(&mut self.connection.clone())
            .await
            .or_else(nothing_there)?;
        let last = reply.ids.last().and_then(|stream_id| stream_id.id.parse().ok()).unwrap_or(after);
        Ok((reply.ids.iter().filter_map(|stream_id| read(webhook, stream_id)).collect(), last))
    }

    /// The entry with that id.
    ///
    /// # Errors
    /// Redis's.
    pub async fn entry(&self, webhook: WebhookId, id: EntryId) -> redis::RedisResult<Option<Entry<'static>>> {
        let id = id.to_string();
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(self.keys.log(webhook))
            .arg(&id)
            .arg(&id)
            .query_async(&mut self.connection.clone())
            .await
            .or_else(nothing_there)?;
        Ok(reply.ids.first().and_then(|stream_id| read(webhook, stream_id)))
    }

    /// The newest attempt of a delivery.
    ///
    /// # Errors
    /// Redis's.
    pub async fn newest_of(
        &self,
        webhook: WebhookId,
        delivery: DeliveryId,
    ) -> redis::RedisResult<Option<Entry<'static>>> {
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

/// A log that isn't one, by its type say, has no entries; that is no reason not to show the rest.
fn nothing_there(error: RedisError) -> redis::RedisResult<StreamRangeReply> {
    if is_away(&error) {
        return Err(error);
    }
    tracing::warn!(%error, "a delivery log can't be read");
    Ok(StreamRangeReply::default())
}

fn read(webhook_id: WebhookId, stream_id: &StreamId) -> Option<Entry<'static>> {
    let logged: Logged<'static> = serde_json::from_slice(&stream_id.get::<Vec<u8>>("meta")?)
        .inspect_err(|error| tracing::debug!(%error, webhook = %webhook_id, "an entry of the log can't be read"))
        .ok()?;
    let payload = String::from_utf8_lossy(&stream_id.get::<Vec<u8>>("payload")?).into_owned();
    Some(Entry { id: stream_id.id.parse().ok()?, webhook_id, logged, payload: payload.into() })
}
