//! A live view of a delivery log. Each new attempt is a server-sent event (HTML Living Standard, section 9.2) that
//! carries a row of the page.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::deliveries::{LogQuery, row};
use super::form::Form;
use crate::admin::problem::{Problem, Refusal};
use crate::admin::sessions::{Session, cookies, now_s};
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
    session: Session,
    cookie: String,
    /// The end of this stream. The browser then opens the next one.
    until: Instant,
    /// Held until the person leaves.
    _permit: OwnedSemaphorePermit,
}

/// `GET /settings/webhooks/{id}/deliveries/live`
pub async fn deliveries(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    Extension(session): Extension<Session>,
    headers: HeaderMap,
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
    // A browser that reconnects by itself asks with the address of its page, and says what it has seen since.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let seen = last.or(query.seen()).or(newest).unwrap_or_default();
    let mut cookie = String::new();
    for candidate in cookies(&headers) {
        if matches!(admin.sessions.find(&admin.tokens, candidate).await, Ok(Some(_))) {
            candidate.clone_into(&mut cookie);
            break;
        }
    }
    let until = Instant::now() + admin.config.admin.stream_max;
    let viewer = Viewer { webhook, filter: query.filter()?, seen, session, cookie, until, admin, _permit: permit };
    let batches = stream::unfold(viewer, |mut viewer| async move {
        let events = viewer.next().await?;
        Some((stream::iter(events.into_iter().map(Ok)), viewer))
    });
    Ok(Sse::new(futures_util::StreamExt::flatten(batches)).keep_alive(KeepAlive::default()))
}

impl Viewer {
    /// Whether the person may still look. While Redis is away, nobody knows, and there is nothing to show.
    async fn may_look(&self) -> bool {
        let is_revoked = matches!(self.admin.sessions.find(&self.admin.tokens, &self.cookie).await, Ok(None));
        !is_revoked && now_s() < self.session.until_s && Instant::now() < self.until
    }

    /// Waits for one interval, then returns the entries that are new, oldest first. There may be none. At the end of
    /// the stream or of the session it returns None.
    async fn next(&mut self) -> Option<Vec<Event>> {
        tokio::time::sleep(INTERVAL).await;
        if !self.may_look().await {
            return None;
        }
        // While Redis is away there is nothing new to show. The next poll asks again.
        let Ok((entries, last)) = self.admin.log.since(self.webhook, self.seen, BATCH_MAX).await else {
            return Some(Vec::new());
        };
        self.seen = last;
        let matching = entries.iter().filter(|entry| self.filter.accepts(entry));
        // The standard ends a field of an event at a line break, so the data must not contain one.
        let data = |html: String| html.replace(['\n', '\r'], " ");
        let event = |entry| Event::default().event("delivery").data(data(row(entry).into_string()));
        Some(matching.map(|entry| event(entry).id(entry.id.to_string())).collect())
    }
}
