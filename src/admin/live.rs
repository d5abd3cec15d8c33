//! The delivery log as it grows: server-sent events (HTML Living Standard, section 9.2), a row of the page each.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pages::deliveries::{Query, row};
use super::pages::{Form, Refusal};
use super::{Problem, Shared};
use crate::store::log::{EntryId, Filter};
use crate::webhook::WebhookId;

/// How often the log is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// Entries that are told at once; what is more comes a moment later.
const BATCH_MAX: usize = 50;
/// People that look at once.
const VIEWERS_MAX: usize = 64;

/// Places for those who look.
pub struct Viewers(Arc<Semaphore>);

impl Default for Viewers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(VIEWERS_MAX)))
    }
}

struct Viewer {
    admin: Shared,
    webhook: WebhookId,
    filter: Filter,
    seen: EntryId,
    _place: OwnedSemaphorePermit,
}

/// `GET /settings/webhooks/{id}/deliveries/live`
pub async fn deliveries(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    query: axum::extract::RawQuery,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let query: Query = Form::<Query>::of_query(query.0.as_deref())?;
    let webhook = admin.find(&id).await?.id;
    let place = admin.viewers.0.clone().try_acquire_owned().map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{VIEWERS_MAX} people look at logs live already"))
    })?;
    let newest = admin.log.page(webhook, Filter::default(), None, 1).await?.entries.first().map(|entry| entry.id);
    let seen = query.seen().or(newest).unwrap_or_default();
    let viewer = Viewer { webhook, filter: query.filter()?, seen, admin, _place: place };
    let batches = stream::unfold(viewer, |mut viewer| async move {
        let events = viewer.next().await;
        Some((stream::iter(events.into_iter().map(Ok)), viewer))
    });
    Ok(Sse::new(futures_util::StreamExt::flatten(batches)).keep_alive(KeepAlive::default()))
}

impl Viewer {
    /// What came since, oldest first; perhaps nothing.
    async fn next(&mut self) -> Vec<Event> {
        tokio::time::sleep(INTERVAL).await;
        // Redis that is away is waited for: the viewer sees nothing new meanwhile.
        let Ok((entries, last)) = self.admin.log.since(self.webhook, self.seen, BATCH_MAX).await else {
            return Vec::new();
        };
        self.seen = last;
        let meant = entries.iter().filter(|entry| self.filter.takes(&entry.logged));
        // A line of data must not contain a line's end.
        let data = |html: String| html.replace(['\n', '\r'], " ");
        meant.map(|entry| Event::default().event("delivery").data(data(row(entry).into_string()))).collect()
    }
}
