//! `/api/dead-letters`: what won't be tried again by itself.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::input;
use crate::admin::api::Error;
use crate::admin::replays::{self, Request};
use crate::admin::{Admin, Problem, Shared};
use crate::config::Config;
use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::replay::browse::{self, Bounds, Cursor, Page};
use crate::replay::choice::Choice;
use crate::webhook::WebhookId;

const LIMIT_DEFAULT: usize = 50;
/// Dead letters of one page.
const LIMIT_MAX: usize = 200;
/// Offsets that one page looks at while it filters: it may be short, and still have a next one.
const LOOK_AT_MAX: u64 = 200_000;

/// After this a page ends with what was found, and the next one goes on.
const PAGE_MAX: Duration = Duration::from_secs(8);
/// How long reading may take in all.
const BROWSE_MAX: Duration = Duration::from_secs(15);
/// Pages that are read at once: each takes a thread, and some memory for reading ahead.
pub const BROWSERS_MAX: usize = 8;

/// Which dead letters.
#[derive(Deserialize, Default, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Of this webhook.
    webhook: Option<WebhookId>,
    /// Of this event type.
    event: Option<EventType>,
    /// That died of this.
    reason: Option<DeadReason>,
    /// With this delivery id.
    delivery: Option<DeliveryId>,
    /// That died then or later: `2026-11-24T10:00:00Z`, or how long ago: `2h`.
    since: Option<String>,
    /// That died before.
    until: Option<String>,
    /// 1 to 200; 50 by default.
    limit: Option<usize>,
    /// The `next` of an earlier page.
    cursor: Option<String>,
}

/// A replay.
#[derive(Serialize, ToSchema)]
pub struct One {
    replay: replays::Shown,
}

impl Admin {
    /// A page of dead letters.
    pub async fn dead_letters(&self, choice: Choice, cursor: Option<&str>, limit: usize) -> Result<Page, Problem> {
        let cursor = cursor.map(|text| text.parse::<Cursor>().map_err(|error| Problem::field("cursor", error)));
        let cursor = cursor.transpose()?;
        let bounds = Bounds { limit, look_at_max: LOOK_AT_MAX, until: Instant::now() + PAGE_MAX };
        self.browse(move |config, stop| browse::browse(config, &choice, cursor, bounds, stop)).await
    }

    /// One of them, by where it stands.
    pub async fn dead_letter(&self, partition: i32, offset: i64) -> Result<browse::Shown, Problem> {
        let found = self.browse(move |config, stop| browse::one(config, partition, offset, stop)).await?;
        found.ok_or_else(|| {
            let sentence = format!(
                "there is no dead letter {partition}/{offset} any more: its topic keeps them for topics.dead_letter_retention"
            );
            Problem::new(StatusCode::NOT_FOUND, sentence)
        })
    }

    async fn browse<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Config, &CancellationToken) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.browsers.clone().try_acquire_owned().map_err(|_| {
            let sentence =
                format!("{BROWSERS_MAX} people look through the dead letters already; try again in a moment");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
        })?;
        // Ended when its time is over, and when whoever asked is gone.
        let stop = CancellationToken::new();
        let _ended_with_us = stop.clone().drop_guard();
        let config = self.config.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _place = place;
            read(&config, &stop)
        });
        let Ok(found) = tokio::time::timeout(BROWSE_MAX, reading).await else {
            return Err(Problem::away(&anyhow::anyhow!("Kafka didn't bring the dead letters in time")));
        };
        Ok(found.context("reading dead letters")??)
    }
}

/// Dead letters, newest first. A page may be short, or empty, and still have a next one.
#[utoipa::path(get, path = "/api/dead-letters", tag = "dead letters", params(Asked),
    responses((status = 200, body = Page), (status = 400, body = Error)))]
pub async fn list(
    State(admin): State<Shared>,
    input::Query(asked): input::Query<Asked>,
) -> Result<Json<Page>, Problem> {
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::field("limit", format!("{limit} is not allowed; allowed is 1 to {LIMIT_MAX}")));
    }
    let choice = Choice {
        at: None,
        webhooks: asked.webhook.into_iter().collect(),
        events: asked.event.into_iter().collect(),
        reasons: asked.reason.into_iter().collect(),
        deliveries: asked.delivery.into_iter().collect(),
        since_ms: replays::moment("since", asked.since.as_deref())?,
        until_ms: replays::moment("until", asked.until.as_deref())?,
    };
    Ok(Json(admin.dead_letters(choice, asked.cursor.as_deref(), limit).await?))
}

/// Puts dead letters back into delivery. It can be asked for again at any time: nothing is replayed twice.
#[utoipa::path(post, path = "/api/dead-letters/replay", tag = "dead letters", request_body = Request,
    responses((status = 202, body = One), (status = 400, body = Error), (status = 409, body = Error)))]
pub async fn replay(
    State(admin): State<Shared>,
    input::Json(request): input::Json<Request>,
) -> Result<(StatusCode, Json<One>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(One { replay: admin.replays.begin(request).await? })))
}

/// How far a replay is.
#[utoipa::path(get, path = "/api/dead-letters/replays/{id}", tag = "dead letters", params(("id" = String, Path)),
    responses((status = 200, body = One), (status = 404, body = Error)))]
pub async fn progress(State(admin): State<Shared>, Path(id): Path<String>) -> Result<Json<One>, Problem> {
    Ok(Json(One { replay: admin.replays.get(&id)? }))
}
