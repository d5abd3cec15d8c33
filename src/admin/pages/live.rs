//! A live view of a delivery log. Each new attempt is a server-sent event (HTML Living Standard, section 9.2) that
//! carries a row of the page.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::deliveries::{LogQuery, row};
use super::form::Form;
use crate::admin::problem::{Problem, Refusal};
use crate::admin::state::{Shared, VIEWERS_MAX};
use crate::store::log::{EntryId, Filter};
use crate::webhook::WebhookId;

/// The time between two polls of the log.
const INTERVAL: Duration = Duration::from_millis(500);
/// The number of entries that one poll sends. Further entries follow with the next poll.
const BATCH_MAX: usize = 50;

struct Viewer {
    admin: Shared,
    webhook: WebhookId,
    filter: Filter,
    /// The newest entry that the page already shows.
    seen: EntryId,
    /// Held until the person leaves.
    _permit: OwnedSemaphorePermit,
}

/// `GET /settings/webhooks/{id}/deliveries/live`
pub async fn deliveries(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    query: axum::extract::RawQuery,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let query: LogQuery = Form::<LogQuery>::of_query(query.0.as_deref())?;
    let webhook = admin.find(&id).await?.id;
    let permit = admin.viewers.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{VIEWERS_MAX} people already follow delivery logs live; try again later"),
        )
    })?;
    let newest = admin.log.page(webhook, Filter::default(), None, 1).await?.entries.first().map(|entry| entry.id);
    let seen = query.seen().or(newest).unwrap_or_default();
    let viewer = Viewer { webhook, filter: query.filter()?, seen, admin, _permit: permit };
    let batches = stream::unfold(viewer, |mut viewer| async move {
        let events = viewer.next().await;
        Some((stream::iter(events.into_iter().map(Ok)), viewer))
    });
    Ok(Sse::new(futures_util::StreamExt::flatten(batches)).keep_alive(KeepAlive::default()))
}

impl Viewer {
    /// Waits for one interval, then returns the entries that are new, oldest first. There may be none.
    async fn next(&mut self) -> Vec<Event> {
        tokio::time::sleep(INTERVAL).await;
        // While Redis is away there is nothing new to show. The next poll asks again.
        let Ok((entries, last)) = self.admin.log.since(self.webhook, self.seen, BATCH_MAX).await else {
            return Vec::new();
        };
        self.seen = last;
        let matching = entries.iter().filter(|entry| self.filter.accepts(&entry.logged));
        // The standard ends a field of an event at a line break, so the data must not contain one.
        let data = |html: String| html.replace(['\n', '\r'], " ");
        matching.map(|entry| Event::default().event("delivery").data(data(row(entry).into_string()))).collect()
    }
}
