//! `/api/dead-letters`: deliveries and records that were given up, and their replays.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::input;
use crate::admin::number::Count;
use crate::admin::problem::{Error, Problem};
use crate::admin::replays::{self, ReplayRequest};
use crate::admin::state::{Admin, BROWSERS_MAX, Shared};
use crate::config::Config;
use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::replay::browse::{self, Bounds, Cursor, DeadLetterPage};
use crate::replay::choice::Choice;
use crate::store::audit::Author;
use crate::webhook::WebhookId;

const LIMIT_DEFAULT: usize = 50;
/// The highest number of dead letters on a page.
const LIMIT_MAX: u64 = 200;
/// The number of offsets that one page looks at while it filters. A page that reaches it is short, and has a next one.
const LOOK_AT_MAX: u64 = 200_000;

/// The time after which a page ends with the dead letters found so far. The next page goes on from there.
const PAGE_MAX: Duration = Duration::from_secs(8);
/// The time after which the request fails. It is longer than [`PAGE_MAX`], because a read under way is finished first.
const BROWSE_MAX: Duration = Duration::from_secs(15);

/// The filters of the list, and the place where its page begins.
#[derive(Deserialize, Default, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadLettersQuery {
    /// Only dead letters of this webhook.
    webhook: Option<WebhookId>,
    /// Only dead letters of this event type.
    event: Option<EventType>,
    /// Only dead letters with this reason.
    reason: Option<DeadReason>,
    /// Only dead letters with this delivery id.
    delivery: Option<DeliveryId>,
    /// Only dead letters from this time on: `2026-11-24T10:00:00Z`, or how long ago: `2h`.
    since: Option<String>,
    /// Only dead letters from before this time.
    until: Option<String>,
    /// The highest number of dead letters on the page: 1 to 200; 50 by default.
    #[param(value_type = Option<usize>)]
    limit: Option<Count<1, LIMIT_MAX>>,
    /// The `next` of an earlier page.
    cursor: Option<String>,
}

/// A replay.
#[derive(Serialize, ToSchema)]
#[schema(as = One)]
pub struct ReplayAnswer {
    replay: replays::ReplayStatus,
}

impl Admin {
    /// A page of dead letters, newest first.
    ///
    /// # Errors
    /// 400: the cursor can't be read. 503: Kafka does not answer, or too many people read dead letters.
    pub async fn dead_letters(
        &self,
        choice: Choice,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DeadLetterPage, Problem> {
        let cursor = cursor.map(|text| text.parse::<Cursor>().map_err(|error| Problem::field("cursor", error)));
        let cursor = cursor.transpose()?;
        let bounds = Bounds { limit, look_at_max: LOOK_AT_MAX, until: Instant::now() + PAGE_MAX };
        self.browse(move |config, stop| browse::browse(config, &choice, cursor, bounds, stop)).await
    }

    /// The dead letter at this partition and offset.
    ///
    /// # Errors
    /// 404: the topic no longer keeps it.
    pub async fn dead_letter(&self, partition: i32, offset: i64) -> Result<browse::ListedDeadLetter, Problem> {
        let found = self.browse(move |config, stop| browse::one(config, partition, offset, stop)).await?;
        found.ok_or_else(|| {
            let sentence = format!(
                "there is no dead letter {partition}/{offset} any more: its topic keeps them for topics.dead_letter_retention"
            );
            Problem::new(StatusCode::NOT_FOUND, sentence)
        })
    }

    /// Reads a topic in a thread of its own, within bounds of time and number.
    pub(super) async fn browse<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Config, &CancellationToken) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = self.browsers.clone().try_acquire_owned().map_err(|_| {
            let sentence = format!("{BROWSERS_MAX} people already read topics; try again in a moment");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
        })?;
        // Dropping the guard stops the thread: after `BROWSE_MAX`, and when the client has gone away.
        let stop = CancellationToken::new();
        let _stop_on_drop = stop.clone().drop_guard();
        let config = self.config.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&config, &stop)
        });
        let Ok(found) = tokio::time::timeout(BROWSE_MAX, reading).await else {
            return Err(Problem::away(&anyhow::anyhow!("Kafka did not return the records in time")));
        };
        Ok(found.context("reading a topic")??)
    }
}

/// Dead letters, newest first. A page may be short, or empty, and still have a next one.
#[utoipa::path(get,
    operation_id = "listDeadLetters", path = "/api/dead-letters", tag = "dead letters", params(DeadLettersQuery),
    responses((status = 200, body = DeadLetterPage), (status = 400, body = Error)))]
pub async fn list(
    State(admin): State<Shared>,
    input::Query(query): input::Query<DeadLettersQuery>,
) -> Result<Json<DeadLetterPage>, Problem> {
    let limit = query.limit.map_or(LIMIT_DEFAULT, |limit| limit.get() as usize);
    let choice = Choice {
        at: None,
        webhooks: query.webhook.into_iter().collect(),
        events: query.event.into_iter().collect(),
        reasons: query.reason.into_iter().collect(),
        deliveries: query.delivery.into_iter().collect(),
        since_ms: replays::moment("since", query.since.as_deref())?,
        until_ms: replays::moment("until", query.until.as_deref())?,
    };
    Ok(Json(admin.dead_letters(choice, query.cursor.as_deref(), limit).await?))
}

/// Replays dead letters. The same request can be made again at any time, and nothing is replayed twice.
#[utoipa::path(post,
    operation_id = "replayDeadLetters", path = "/api/dead-letters/replay", tag = "dead letters", request_body = ReplayRequest,
    responses((status = 202, body = ReplayAnswer), (status = 400, body = Error), (status = 409, body = Error)))]
pub async fn replay(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    input::Json(request): input::Json<ReplayRequest>,
) -> Result<(StatusCode, Json<ReplayAnswer>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(ReplayAnswer { replay: admin.replay(request, &who).await? })))
}

/// Stops a replay after its current batch. The same request later goes on from there.
#[utoipa::path(post,
    operation_id = "stopReplay", path = "/api/dead-letters/replays/{id}/stop", tag = "dead letters", params(("id" = String, Path)),
    responses((status = 200, body = ReplayAnswer), (status = 404, body = Error)))]
pub async fn stop(
    State(admin): State<Shared>,
    Extension(who): Extension<Author>,
    Path(id): Path<String>,
) -> Result<Json<ReplayAnswer>, Problem> {
    admin.stop_replay(&id, &who).await?;
    Ok(Json(ReplayAnswer { replay: admin.replays.get(&id)? }))
}

/// The progress of a replay.
#[utoipa::path(get,
    operation_id = "showReplay", path = "/api/dead-letters/replays/{id}", tag = "dead letters", params(("id" = String, Path)),
    responses((status = 200, body = ReplayAnswer), (status = 404, body = Error)))]
pub async fn progress(State(admin): State<Shared>, Path(id): Path<String>) -> Result<Json<ReplayAnswer>, Problem> {
    Ok(Json(ReplayAnswer { replay: admin.replays.get(&id)? }))
}
