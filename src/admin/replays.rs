//! The replays of dead letters that this process runs on request, and the progress of each.

mod request;

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::store::connection::Connection;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::number::Count;
use super::problem::Problem;
use crate::clock::now_ms;
use crate::clock::rfc3339;
use crate::config::Config;
use crate::replay::choice::Choice;
use crate::replay::summary::Summary;
use crate::replay::{Manner, Progress, Watch, dead_letters, missed, session};
use crate::store::Keys;
use crate::store::lease::{Lease, LeaseAnswer};
use crate::store::missed::{Missed, MissedEvents};
use crate::store::webhooks::WebhookStore;
use crate::webhook::{Webhook, WebhookId};
pub use request::{ReplayRequest, moment, place};

/// The number of replays that are remembered.
const REMEMBERED_MAX: usize = 20;

/// The time that the end of the process waits for running replays.
const END_MAX: Duration = Duration::from_secs(10);
/// The time between two checks whether they have ended.
const END_STEP: Duration = Duration::from_millis(20);

/// The state of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = State)]
pub enum ReplayState {
    /// It runs.
    Running,
    /// It has replayed everything that was chosen.
    Done,
    /// It was stopped, or it failed. The same request again replays the rest.
    Interrupted,
}

/// A replay, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Replay)]
pub struct ReplayStatus {
    /// The id of the replay.
    pub id: Uuid,
    /// The request that started it.
    pub request: ReplayRequest,
    /// Whether it runs, is done or was interrupted.
    pub state: ReplayState,
    /// The number of records looked at so far.
    pub looked_at: u64,
    /// The number of records to look at.
    pub total: u64,
    /// The number of dead letters replayed; of a dry run, the number that would be.
    pub replayed: u64,
    /// The number skipped because they were replayed before.
    pub replayed_before: u64,
    /// The number skipped because their webhook is deleted or inactive.
    pub webhook_gone: u64,
    /// Why it failed.
    pub error: Option<String>,
    /// The time at which it began.
    pub started_at: String,
}

/// The work of a replay.
enum Work {
    DeadLetters { choice: Choice, active: HashSet<WebhookId> },
    Missed { webhook: Box<Webhook>, missed: Missed },
}

impl Work {
    fn missed(&self) -> Option<(WebhookId, Missed)> {
        match self {
            Self::DeadLetters { .. } => None,
            Self::Missed { webhook, missed } => Some((webhook.id, missed.clone())),
        }
    }

    fn run(&self, config: &Config, manner: &Manner, watch: &mut Watch<'_>) -> anyhow::Result<Summary> {
        match self {
            Self::DeadLetters { choice, active } => dead_letters::replay(config, choice, manner, active, watch),
            Self::Missed { webhook, missed } => missed::send(config, webhook, missed, manner, watch),
        }
    }
}

/// The replays of this process.
pub struct Replays {
    config: Config,
    redis: Connection,
    keys: Keys,
    known: Arc<Mutex<VecDeque<(ReplayStatus, CancellationToken)>>>,
}

impl Replays {
    pub fn new(config: Config, redis: Connection, keys: Keys) -> Self {
        Self { config, redis, keys, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<(ReplayStatus, CancellationToken)>> {
        self.known.lock().expect("nothing panics while it holds the replays")
    }

    /// The remembered replays, newest first.
    pub fn all(&self) -> Vec<ReplayStatus> {
        self.known().iter().rev().map(|(status, _)| status.clone()).collect()
    }

    /// The replay with this id.
    ///
    /// # Errors
    /// 404: this process does not remember such a replay.
    pub fn get(&self, id: &str) -> Result<ReplayStatus, Problem> {
        let found = id.parse().ok().and_then(|id: Uuid| self.all().into_iter().find(|replay| replay.id == id));
        found.ok_or_else(|| {
            Problem::new(
                axum::http::StatusCode::NOT_FOUND,
                format!("there is no replay {id} here; each admin server remembers its last {REMEMBERED_MAX}"),
            )
        })
    }

    /// Ends a replay after its current batch.
    pub fn stop(&self, id: Uuid) {
        for (status, stop) in &*self.known() {
            if status.id == id {
                stop.cancel();
            }
        }
    }

    /// Ends all replays, each after its current batch, and waits until they have ended or [`END_MAX`] is over.
    pub async fn end(&self) {
        let all_ended = || self.known().iter().all(|(status, _)| status.state != ReplayState::Running);
        for (_, stop) in &*self.known() {
            stop.cancel();
        }
        let ended = async {
            while !all_ended() {
                tokio::time::sleep(END_STEP).await;
            }
        };
        if tokio::time::timeout(END_MAX, ended).await.is_err() {
            tracing::warn!("a replay doesn't end in time: a part of its batch may be replayed");
        }
    }

    /// Begins a replay. It runs on after this returns.
    ///
    /// # Errors
    /// 400: nothing is chosen, or a field can't be read. 409: another replay runs. 503: Redis is away.
    pub async fn begin(&self, request: ReplayRequest) -> Result<ReplayStatus, Problem> {
        // A request that can't be carried out is refused before it waits for anybody.
        let mut work = self.work(&request, true).await?;
        let who = format!("the admin server on {}", crate::worker::hostname());
        let lease = (!request.dry_run).then(|| Lease::new(self.redis.clone(), &self.keys, &who));
        if let Some(lease) = &lease
            && let LeaseAnswer::Theirs(who) = lease.ask().await?
        {
            return Err(Problem::conflict(format!("another replay runs ({who}); try again when it has ended")));
        }
        let held = session::Held::new(lease);
        if held.is_some() {
            // What was read before the lease was held may have been sent by the replay that held it.
            work = match self.work(&request, false).await {
                Ok(work) => work,
                Err(problem) => {
                    session::release(held.take().as_ref()).await;
                    return Err(problem);
                }
            };
        }
        let rate = request.rate.and_then(|rate| NonZeroU32::new(rate.get() as u32));
        let manner =
            Manner { limit: request.limit.map(Count::get), rate, again: request.again, dry_run: request.dry_run };
        let (status, stop) = self.remember(request);
        let (known, config, id) = (self.known.clone(), self.config.clone(), status.id);
        let missed_events = MissedEvents::new(self.redis.clone(), self.keys.clone());
        tokio::spawn(async move {
            let progress = known.clone();
            let sent = work.missed().filter(|_| !manner.dry_run);
            let replay = {
                let stop = stop.clone();
                move |still_ours: session::StillOurs<'_>| {
                    let mut report = |now: Progress| update(&progress, id, |status| status.set_progress(now));
                    let mut watch = Watch { progress: &mut report, stop: &stop, still_ours };
                    work.run(&config, &manner, &mut watch)
                }
            };
            let finish = async |summary: &Summary| {
                if let Some((webhook, sent)) = sent.filter(|_| !summary.interrupted)
                    && let Err(error) = missed_events.clear(webhook, &sent).await
                {
                    tracing::warn!(%webhook, %error, "what was sent is still counted as missed");
                }
                Ok(())
            };
            let outcome = session::run(held.take(), stop, replay, finish).await;
            update(&known, id, |status| status.set_outcome(outcome));
        });
        Ok(status)
    }

    /// What a request asks for. Writes nothing if `dry_run`.
    async fn work(&self, request: &ReplayRequest, dry_run: bool) -> Result<Work, Problem> {
        let missed = request.missed()?;
        let choice = request.choice()?;
        if choice.is_everything() && !request.all && request.limit.is_none() {
            return Err(Problem::new(
                axum::http::StatusCode::BAD_REQUEST,
                "nothing is chosen: give webhook, event, reason, delivery, letter, since, until or limit, or set all to true",
            ));
        }
        let store = WebhookStore::open(&self.config, self.redis.clone()).map_err(anyhow::Error::new)?;
        let Some(id) = missed else {
            let (_, webhooks) = store.all().await?;
            let active = webhooks.iter().filter(|webhook| webhook.active).map(|webhook| webhook.id).collect();
            return Ok(Work::DeadLetters { choice, active });
        };
        let webhook = store.get(id).await?.ok_or_else(|| Problem::no_webhook(id.to_string()))?;
        if !webhook.active {
            return Err(Problem::conflict("the webhook is inactive and gets nothing; resume it first".to_owned()));
        }
        let missed = MissedEvents::new(self.redis.clone(), self.keys.clone()).begin(id, now_ms(), dry_run).await?;
        Ok(Work::Missed { webhook: Box::new(webhook), missed })
    }

    fn remember(&self, request: ReplayRequest) -> (ReplayStatus, CancellationToken) {
        let stop = CancellationToken::new();
        let status = ReplayStatus {
            id: Uuid::now_v7(),
            request,
            state: ReplayState::Running,
            looked_at: 0,
            total: 0,
            replayed: 0,
            replayed_before: 0,
            webhook_gone: 0,
            error: None,
            started_at: rfc3339(now_ms()),
        };
        let mut known = self.known();
        known.push_back((status.clone(), stop.clone()));
        // Dry runs may run at the same time. A replay that still runs is kept, however old it is.
        if known.len() > REMEMBERED_MAX
            && let Some(at) = known.iter().position(|(status, _)| status.state != ReplayState::Running)
        {
            known.remove(at);
        }
        (status, stop)
    }
}

impl ReplayStatus {
    fn set_progress(&mut self, now: Progress) {
        if !now.reading_marks {
            (self.looked_at, self.total, self.replayed) = (now.read, now.total, now.replayed);
        }
    }

    fn set_outcome(&mut self, outcome: anyhow::Result<Summary>) {
        match outcome {
            Ok(summary) => {
                self.state = if summary.interrupted { ReplayState::Interrupted } else { ReplayState::Done };
                self.replayed = summary.total();
                self.replayed_before = summary.before;
                self.webhook_gone = summary.gone.values().sum();
            }
            Err(error) => {
                self.state = ReplayState::Interrupted;
                self.error = Some(format!("{error:#}"));
            }
        }
    }
}

fn update(
    known: &Mutex<VecDeque<(ReplayStatus, CancellationToken)>>,
    id: Uuid,
    change: impl FnOnce(&mut ReplayStatus),
) {
    let mut known = known.lock().expect("nothing panics while it holds the replays");
    if let Some((status, _)) = known.iter_mut().find(|(status, _)| status.id == id) {
        change(status);
    }
}
