//! `replay`: sends dead letters again, or with `--from-log` past events to one webhook.

mod progress;
mod summary;
mod waiting;
mod work;

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::num::{NonZeroU32, NonZeroU64};

use anyhow::Context as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::author::{audit_log, author};
use super::output::{ask, note};
use super::run::Signals;
use crate::clock::{now_ms, rfc3339};
use crate::config::Config;
use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::replay::choice::Choice;
use crate::replay::moment::Moment;
use crate::replay::rewind::Past;
use crate::replay::summary::Summary;
use crate::replay::{Manner, Watch, session};
use crate::store::audit::{Action, Record};
use crate::store::lease::Lease;
use crate::store::missed::MissedEvents;
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::webhook::{Webhook, WebhookId};
use waiting::{acquire, lease_holder};
use work::Work;

const EXAMPLES: &str = "Examples:
  optio-webhooks replay --all --dry-run                                count the dead letters by webhook and reason
  optio-webhooks replay --webhook 0190… --since 2h                     those of one webhook from the last two hours
  optio-webhooks replay --reason exhausted --event task.failed --rate 50
  optio-webhooks replay --delivery 5f0c…                               a single delivery
  optio-webhooks replay --all                                          all dead letters
  optio-webhooks replay --from-log --webhook 0190… --since 2026-11-01  past events, to a new webhook
  optio-webhooks replay --missed --webhook 0190…                       what it missed while it was paused or disabled

Only what matches every filter is replayed. A filter with several values, separated by commas, matches any of them. A
replay can be interrupted at any time and run again: nothing is replayed twice (see --again).";

/// `optio-webhooks replay`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    /// Only dead letters of these webhooks.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    webhook: Vec<WebhookId>,
    /// Only these event types.
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    event: Vec<EventType>,
    /// Only dead letters with these reasons.
    #[arg(long, value_delimiter = ',')]
    reason: Vec<DeadReason>,
    /// Only dead letters with these delivery ids.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    delivery: Vec<DeliveryId>,
    /// Only those at or after this time: 2026-11-24, 2026-11-24T10:00:00Z, or an age: 90m, 2h, 3days.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only those before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// The highest number to replay. The oldest of each partition come first.
    #[arg(long, value_name = "COUNT")]
    limit: Option<NonZeroU64>,
    /// Replay all dead letters.
    #[arg(long, conflicts_with_all = ["webhook", "event", "reason", "delivery", "since", "until", "limit", "from_log"])]
    all: bool,
    /// The highest number to replay each second.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<NonZeroU32>,
    /// Only count what would be replayed.
    #[arg(long)]
    dry_run: bool,
    /// Also replay what was replayed before.
    #[arg(long)]
    again: bool,
    /// Don't ask for confirmation of --all.
    #[arg(long)]
    yes: bool,
    /// Rewind: send past events instead of dead letters to one webhook, even events from before the webhook existed.
    #[arg(long, requires = "webhook", requires = "since", conflicts_with_all = ["reason", "delivery"])]
    from_log: bool,
    /// Send what one webhook missed: its dead letters, and the events that it did not get while it was paused or disabled.
    #[arg(long, requires = "webhook", conflicts_with_all = ["event", "reason", "delivery", "since", "until", "limit", "again", "from_log"])]
    missed: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Replays everything that was chosen, or stops at a signal.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        if !self.all && !self.from_log && self.limit.is_none() && self.choice().is_everything() {
            return Err(Failure::Usage(format!("nothing is chosen, and nothing was replayed.\n\n{EXAMPLES}")));
        }
        if self.all && !self.dry_run && !self.yes {
            confirm()?;
        }
        let redis = connection::open(&config.redis)?;
        let keys = Keys::new(&config.redis.prefix);
        let store = WebhookStore::open(config, redis.clone())?;
        let missed_events = MissedEvents::new(redis.clone(), keys.clone());
        // A command that can't be carried out is refused before it waits for another replay.
        let (mut webhooks, mut work) = self.work(&store, &missed_events, true).await?;
        let mut signals = Signals::new()?;
        let lease = if self.dry_run { None } else { Some(Lease::new(redis.clone(), &keys, &lease_holder())) };
        if let Some(lease) = &lease {
            tokio::select! {
                acquired = acquire(lease) => acquired?,
                () = signals.next() => return Err(interrupted()),
            }
            // What was read before the lease was held may have been sent by the replay that held it.
            (webhooks, work) = match self.work(&store, &missed_events, false).await {
                Ok(read) => read,
                Err(failure) => {
                    session::release(Some(lease)).await;
                    return Err(failure);
                }
            };
        }
        let audit = if self.dry_run { None } else { Some((audit_log(config, &redis), author())) };
        if let Some((log, who)) = &audit {
            log.note(&Record::new(who, Action::ReplayStarted).to(&self.shown())).await;
        }
        let (outcome, was_interrupted) = self.run_work(config, work, lease, &missed_events, &mut signals).await?;
        if let Some((log, who)) = audit.filter(|_| was_interrupted) {
            log.note(&Record::new(&who, Action::ReplayStopped).to(&self.shown())).await;
        }
        self.print_summary(&outcome, &webhooks)?;
        if was_interrupted { Err(interrupted()) } else { Ok(()) }
    }

    /// What was asked for, for the audit log.
    fn shown(&self) -> serde_json::Value {
        json!({
            "webhook": self.webhook,
            "event": self.event,
            "reason": self.reason.iter().map(|reason| reason.as_str()).collect::<Vec<_>>(),
            "delivery": self.delivery,
            "since": self.since.map(|moment| rfc3339(moment.0)),
            "until": self.until.map(|moment| rfc3339(moment.0)),
            "limit": self.limit,
            "rate": self.rate,
            "all": self.all,
            "again": self.again,
            "fromLog": self.from_log,
            "missed": self.missed,
        })
    }

    fn choice(&self) -> Choice {
        Choice {
            at: None,
            webhooks: self.webhook.clone(),
            events: self.event.clone(),
            reasons: self.reason.clone(),
            deliveries: self.delivery.clone(),
            since_ms: self.since.map(|moment| moment.0),
            until_ms: self.until.map(|moment| moment.0),
        }
    }

    /// Reads the webhooks, and what is to be done. Writes nothing if `dry_run`.
    async fn work(
        &self,
        store: &WebhookStore,
        missed: &MissedEvents,
        dry_run: bool,
    ) -> Result<(HashMap<WebhookId, Webhook>, Work), Failure> {
        let (_, webhooks) = store.all().await?;
        let webhooks: HashMap<WebhookId, Webhook> = webhooks.into_iter().map(|webhook| (webhook.id, webhook)).collect();
        let work = self.work_with(&webhooks, missed, dry_run).await?;
        Ok((webhooks, work))
    }

    async fn work_with(
        &self,
        webhooks: &HashMap<WebhookId, Webhook>,
        missed: &MissedEvents,
        dry_run: bool,
    ) -> Result<Work, Failure> {
        if !self.from_log && !self.missed {
            let active = webhooks.values().filter(|webhook| webhook.active).map(|webhook| webhook.id).collect();
            return Ok(Work::DeadLetters { choice: self.choice(), active });
        }
        let [id] = self.webhook[..] else {
            return Err(Failure::Usage(
                "--from-log and --missed send events to one webhook: give --webhook exactly one id".to_owned(),
            ));
        };
        let Some(webhook) = webhooks.get(&id) else {
            return Err(anyhow::anyhow!("there is no webhook {id}; `optio-webhooks webhooks list` shows all").into());
        };
        if !webhook.active {
            return Err(anyhow::anyhow!(
                "webhook {id} is inactive and gets nothing; `optio-webhooks webhooks update {id} --active true` changes that"
            )
            .into());
        }
        if self.missed {
            let missed = missed.begin(id, now_ms(), dry_run).await?;
            return Ok(Work::Missed { webhook: Box::new(webhook.clone()), missed });
        }
        let past = Past {
            since_ms: self.since.expect("clap requires it").0,
            until_ms: self.until.map(|moment| moment.0),
            events: self.event.clone(),
        };
        Ok(Work::Rewind { webhook: Box::new(webhook.clone()), past })
    }

    /// Runs `work` on its own thread, because reading and writing block. The first signal ends it after its current
    /// batch.
    async fn run_work(
        &self,
        config: &Config,
        work: Work,
        lease: Option<Lease>,
        missed_events: &MissedEvents,
        signals: &mut Signals,
    ) -> Result<(Summary, bool), Failure> {
        let manner = Manner {
            limit: self.limit.map(NonZeroU64::get),
            rate: self.rate,
            again: self.again,
            dry_run: self.dry_run,
        };
        let stop = CancellationToken::new();
        let mut progress = progress::Progress::new(self.dry_run);
        let sent = work.missed().filter(|_| !self.dry_run);
        let finish = async |summary: &Summary| match sent.filter(|_| !summary.interrupted) {
            Some((webhook, sent)) => Ok(missed_events.clear(webhook, &sent).await?),
            None => Ok(()),
        };
        let run = {
            let (config, stop) = (config.clone(), stop.clone());
            move |still_ours: session::StillOurs<'_>| {
                let mut watch = Watch { progress: &mut |so_far| progress.show(so_far), stop: &stop, still_ours };
                let outcome = work.run(&config, &manner, &mut watch);
                progress.end();
                outcome
            }
        };
        let replay = session::run(lease, stop.clone(), run, finish);
        let stopping = async {
            signals.next().await;
            note("stopping after the current batch; a second signal stops at once");
            stop.cancel();
            signals.next().await;
        };
        tokio::select! {
            outcome = replay => Ok((outcome?, stop.is_cancelled())),
            () = stopping => Err(anyhow::anyhow!(
                "stopped at once: a part of the current batch may have been replayed. Run it again with the same filters to go on"
            )
            .into()),
        }
    }
}

fn interrupted() -> Failure {
    anyhow::anyhow!("interrupted; run it again with the same filters to go on: nothing is replayed twice").into()
}

/// Asks for confirmation on a terminal. Where there is no terminal, `--yes` is needed.
fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "--all replays every dead letter and needs --yes where there is no terminal; nothing was replayed"
                .to_owned(),
        ));
    }
    let answer = ask("Replay every dead letter of every webhook? [y/N]").context("the answer can't be read")?;
    if matches!(answer.as_str(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(anyhow::anyhow!("nothing was replayed").into())
}
