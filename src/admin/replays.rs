//! Replays of dead letters that this process runs for whoever asked, and how far each is.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::store::connection::Connection;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Problem;
use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{DeadReason, DeliveryId};
use crate::event::{EventType, rfc3339};
use crate::replay::choice::Choice;
use crate::replay::dead_letters::{self, Summary};
use crate::replay::moment::Moment;
use crate::replay::{Manner, Progress, Watch, session};
use crate::store::Keys;
use crate::store::lease::{Asked, Lease};
use crate::store::webhooks::WebhookStore;
use crate::webhook::WebhookId;

/// Replays that are remembered.
const REMEMBERED_MAX: usize = 20;

/// How long the process's end waits for them, and how often it looks.
const END_MAX: Duration = Duration::from_secs(10);
const END_STEP: Duration = Duration::from_millis(20);

/// Which dead letters, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Request {
    /// Of this webhook.
    pub webhook: Option<WebhookId>,
    /// Of this event type.
    pub event: Option<EventType>,
    /// That died of this.
    pub reason: Option<DeadReason>,
    /// With this delivery id.
    pub delivery: Option<DeliveryId>,
    /// Only the one with this `id` (partition/offset).
    pub letter: Option<String>,
    /// That died then or later: `2026-11-24T10:00:00Z`, or how long ago: `2h`.
    pub since: Option<String>,
    /// That died before.
    pub until: Option<String>,
    /// No more than this many.
    pub limit: Option<u64>,
    /// No more than this many a second.
    #[schema(value_type = Option<u32>)]
    pub rate: Option<NonZeroU32>,
    /// All of them: without a filter nothing goes, unless this is true.
    pub all: bool,
    /// Also what was replayed before.
    pub again: bool,
    /// Only count what would go.
    pub dry_run: bool,
}

impl Request {
    /// What it chooses.
    pub fn choice(&self) -> Result<Choice, Problem> {
        let at = self.letter.as_deref().map(|letter| {
            let (partition, offset) = letter.split_once('/')?;
            Some((partition.parse().ok()?, offset.parse().ok()?))
        });
        let at = match at {
            Some(None) => return Err(Problem::field("letter", "isn't the id of a dead letter, like 3/1042")),
            Some(at) => at,
            None => None,
        };
        Ok(Choice {
            at,
            webhooks: self.webhook.into_iter().collect(),
            events: self.event.into_iter().collect(),
            reasons: self.reason.into_iter().collect(),
            deliveries: self.delivery.into_iter().collect(),
            since_ms: moment("since", self.since.as_deref())?,
            until_ms: moment("until", self.until.as_deref())?,
        })
    }
}

/// A time that a field has; empty is none.
pub fn moment(field: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let Moment(at_ms) = text.parse().map_err(|error| Problem::field(field, error))?;
    Ok(Some(at_ms))
}

/// Where a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// At work.
    Running,
    /// At its end.
    Done,
    /// Ended before its end: asked to, or something was in the way. Asked for again, it goes on.
    Interrupted,
}

/// One replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Replay)]
pub struct Shown {
    /// Its identity.
    pub id: Uuid,
    /// What was asked for.
    pub request: Request,
    /// Where it is.
    pub state: State,
    /// Records looked at.
    pub looked_at: u64,
    /// Records to look at.
    pub total: u64,
    /// Put back into delivery, or what would be.
    pub replayed: u64,
    /// Left alone: replayed before.
    pub replayed_before: u64,
    /// Left alone: the webhook is deleted or inactive.
    pub webhook_gone: u64,
    /// What was in its way.
    pub error: Option<String>,
    /// When it began.
    pub started_at: String,
}

/// The replays of this process.
pub struct Replays {
    config: Config,
    redis: Connection,
    keys: Keys,
    known: Arc<Mutex<VecDeque<(Shown, CancellationToken)>>>,
}

impl Replays {
    /// None yet.
    pub fn new(config: Config, redis: Connection, keys: Keys) -> Self {
        Self { config, redis, keys, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<(Shown, CancellationToken)>> {
        self.known.lock().expect("nothing panics while it holds the replays")
    }

    /// The newest first.
    pub fn all(&self) -> Vec<Shown> {
        self.known().iter().rev().map(|(shown, _)| shown.clone()).collect()
    }

    /// The one with that id.
    pub fn get(&self, id: &str) -> Result<Shown, Problem> {
        let found = id.parse().ok().and_then(|id: Uuid| self.all().into_iter().find(|replay| replay.id == id));
        found.ok_or_else(|| {
            Problem::new(
                axum::http::StatusCode::NOT_FOUND,
                format!("there is no replay {id} here; each admin server remembers its last {REMEMBERED_MAX}"),
            )
        })
    }

    /// Ends one after the batch that is on its way.
    pub fn stop(&self, id: Uuid) {
        for (shown, stop) in &*self.known() {
            if shown.id == id {
                stop.cancel();
            }
        }
    }

    /// Ends all, and waits until they are.
    pub async fn end(&self) {
        let are_over = || self.known().iter().all(|(shown, _)| shown.state != State::Running);
        for (_, stop) in &*self.known() {
            stop.cancel();
        }
        let ended = async {
            while !are_over() {
                tokio::time::sleep(END_STEP).await;
            }
        };
        if tokio::time::timeout(END_MAX, ended).await.is_err() {
            tracing::warn!("a replay doesn't end: of its batch some may be replayed");
        }
    }

    /// Begins one.
    ///
    /// # Errors
    /// 400 where nothing is chosen or a field can't be read, 409 while another replay runs.
    pub async fn begin(&self, request: Request) -> Result<Shown, Problem> {
        let choice = request.choice()?;
        if request.limit == Some(0) {
            return Err(Problem::field("limit", "0 is not allowed; allowed is 1 or more"));
        }
        if choice.is_everything() && !request.all && request.limit.is_none() {
            return Err(Problem::new(
                axum::http::StatusCode::BAD_REQUEST,
                "nothing is chosen: give webhook, event, reason, delivery, letter, since, until or limit, or all = true",
            ));
        }
        let store = WebhookStore::new(self.redis.clone(), self.keys.clone());
        let (_, webhooks) = store.all().await?;
        let active = webhooks.iter().filter(|webhook| webhook.active).map(|webhook| webhook.id).collect();
        let who = format!("the admin server on {}", crate::worker::hostname());
        let lease = (!request.dry_run).then(|| Lease::new(self.redis.clone(), &self.keys, &who));
        if let Some(lease) = &lease
            && let Asked::Theirs(who) = lease.ask().await?
        {
            return Err(Problem::conflict(format!("another replay runs ({who}); wait for its end, then ask again")));
        }
        let manner =
            Manner { limit: request.limit, rate: request.rate, again: request.again, dry_run: request.dry_run };
        let (shown, stop) = self.remember(request);
        let (known, config, id) = (self.known.clone(), self.config.clone(), shown.id);
        tokio::spawn(async move {
            let progress = known.clone();
            let outcome = session::run(lease, stop.clone(), move |still_ours| {
                let mut tell = |now: Progress| update(&progress, id, |shown| shown.is_at(now));
                let mut watch = Watch { progress: &mut tell, stop: &stop, still_ours };
                dead_letters::replay(&config, &choice, &manner, &active, &mut watch)
            });
            let outcome = outcome.await;
            update(&known, id, |shown| shown.came_to(outcome));
        });
        Ok(shown)
    }

    fn remember(&self, request: Request) -> (Shown, CancellationToken) {
        let stop = CancellationToken::new();
        let shown = Shown {
            id: Uuid::now_v7(),
            request,
            state: State::Running,
            looked_at: 0,
            total: 0,
            replayed: 0,
            replayed_before: 0,
            webhook_gone: 0,
            error: None,
            started_at: rfc3339(now_ms()),
        };
        let mut known = self.known();
        known.push_back((shown.clone(), stop.clone()));
        // Dry runs may run beside each other: what still runs is kept, however old.
        if known.len() > REMEMBERED_MAX
            && let Some(at) = known.iter().position(|(shown, _)| shown.state != State::Running)
        {
            known.remove(at);
        }
        (shown, stop)
    }
}

impl Shown {
    fn is_at(&mut self, now: Progress) {
        if !now.reading_marks {
            (self.looked_at, self.total, self.replayed) = (now.read, now.total, now.replayed);
        }
    }

    fn came_to(&mut self, outcome: anyhow::Result<Summary>) {
        match outcome {
            Ok(summary) => {
                self.state = if summary.interrupted { State::Interrupted } else { State::Done };
                self.replayed = summary.total();
                self.replayed_before = summary.before;
                self.webhook_gone = summary.gone.values().sum();
            }
            Err(error) => {
                self.state = State::Interrupted;
                self.error = Some(format!("{error:#}"));
            }
        }
    }
}

fn update(known: &Mutex<VecDeque<(Shown, CancellationToken)>>, id: Uuid, change: impl FnOnce(&mut Shown)) {
    let mut known = known.lock().expect("nothing panics while it holds the replays");
    if let Some((shown, _)) = known.iter_mut().find(|(shown, _)| shown.id == id) {
        change(shown);
    }
}
