//! `replay`: dead letters back into delivery, and the past to one webhook.

mod progress;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead as _, IsTerminal as _};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::run::Signals;
use super::{Failure, say, say_json};
use crate::config::Config;
use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::replay::choice::Choice;
use crate::replay::from_log::{self, Past};
use crate::replay::moment::Moment;
use crate::replay::{Manner, Watch, dead_letters, session};
use crate::store::lease::{Lease, LeaseAnswer};
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::webhook::{Webhook, WebhookId};

const EXAMPLES: &str = "Examples:
  optio-webhooks replay --all --dry-run                                what is there, by webhook and reason
  optio-webhooks replay --webhook 0190… --since 2h                     those of one webhook since its outage
  optio-webhooks replay --reason exhausted --event task.failed --rate 50
  optio-webhooks replay --delivery 5f0c…                               one
  optio-webhooks replay --all                                          every one of them
  optio-webhooks replay --from-log --webhook 0190… --since 2026-11-01  the past, to a webhook that is new

Filters narrow each other; several values of one filter, with commas, widen it. It can be interrupted at any time and run
again: what was replayed is not replayed twice (see --again).";

/// `optio-webhooks replay`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    /// Dead letters of these webhooks.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    webhook: Vec<WebhookId>,
    /// Of these event types.
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    event: Vec<EventType>,
    /// That died of these.
    #[arg(long, value_delimiter = ',')]
    reason: Vec<DeadReason>,
    /// With these delivery ids.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    delivery: Vec<DeliveryId>,
    /// That died then or later: 2026-11-24, 2026-11-24T10:00:00Z, or how long ago: 90m, 2h, 3days.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// That died before.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// No more than this many: the first that are found, the oldest of each partition first.
    #[arg(long, value_name = "COUNT")]
    limit: Option<NonZeroU64>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["webhook", "event", "reason", "delivery", "since", "until", "limit", "from_log"])]
    all: bool,
    /// Put back no more than this many a second.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<NonZeroU32>,
    /// Only count what would go.
    #[arg(long)]
    dry_run: bool,
    /// Also what was replayed before.
    #[arg(long)]
    again: bool,
    /// Don't ask before --all.
    #[arg(long)]
    yes: bool,
    /// Tell one webhook the past events of the events' topic instead, even those from before it existed.
    #[arg(long, requires = "webhook", requires = "since", conflicts_with_all = ["reason", "delivery"])]
    from_log: bool,
    /// The summary as JSON.
    #[arg(long)]
    json: bool,
}

/// How often a replay that another one holds up asks again.
const WAIT_STEP: Duration = Duration::from_millis(500);

impl Replay {
    /// Until everything chosen is back in delivery, or a signal.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        if !self.all && !self.from_log && self.limit.is_none() && self.choice().is_everything() {
            return Err(Failure::Usage(format!("nothing is chosen, and nothing was replayed.\n\n{EXAMPLES}")));
        }
        if self.all && !self.dry_run && !self.yes {
            confirm()?;
        }
        let (_, redis) = connection::open(&config.redis)?;
        let keys = Keys::new(&config.redis.prefix);
        let (_, webhooks) = WebhookStore::new(redis.clone(), keys.clone()).all().await?;
        let webhooks: HashMap<WebhookId, Webhook> = webhooks.into_iter().map(|webhook| (webhook.id, webhook)).collect();
        let work = self.work(&webhooks)?;
        let mut signals = Signals::new()?;
        let lease = if self.dry_run { None } else { Some(Lease::new(redis, &keys, &who())) };
        if let Some(lease) = &lease {
            tokio::select! {
                taken = take(lease) => taken?,
                () = signals.next() => return Err(interrupted()),
            }
        }
        let (outcome, was_interrupted) = self.work_under(config, work, lease, &mut signals).await?;
        self.tell(&outcome, &webhooks)?;
        if was_interrupted { Err(interrupted()) } else { Ok(()) }
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

    fn work(&self, webhooks: &HashMap<WebhookId, Webhook>) -> Result<Work, Failure> {
        if !self.from_log {
            let active = webhooks.values().filter(|webhook| webhook.active).map(|webhook| webhook.id).collect();
            return Ok(Work::DeadLetters { choice: self.choice(), active });
        }
        let [id] = self.webhook[..] else {
            return Err(Failure::Usage("--from-log tells one webhook: --webhook takes one id with it".to_owned()));
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
        let past = Past {
            since_ms: self.since.expect("clap requires it").0,
            until_ms: self.until.map(|moment| moment.0),
            events: self.event.clone(),
        };
        Ok(Work::Past { webhook: Box::new(webhook.clone()), past })
    }

    /// Runs on a thread of its own, since reading and writing block; signals end it after its batch.
    async fn work_under(
        &self,
        config: &Config,
        work: Work,
        lease: Option<Lease>,
        signals: &mut Signals,
    ) -> Result<(Outcome, bool), Failure> {
        let manner = Manner {
            limit: self.limit.map(NonZeroU64::get),
            rate: self.rate,
            again: self.again,
            dry_run: self.dry_run,
        };
        let stop = CancellationToken::new();
        let mut progress = progress::Progress::new(self.dry_run);
        let replay = session::run(lease, stop.clone(), {
            let (config, stop) = (config.clone(), stop.clone());
            move |still_ours| {
                let mut watch = Watch { progress: &mut |now| progress.tell(now), stop: &stop, still_ours };
                let outcome = work.run(&config, &manner, &mut watch);
                progress.end();
                outcome
            }
        });
        let stopping = async {
            signals.next().await;
            eprintln!("stopping after the batch that is on its way; a second signal stops at once");
            stop.cancel();
            signals.next().await;
        };
        tokio::select! {
            outcome = replay => Ok((outcome?, stop.is_cancelled())),
            () = stopping => Err(anyhow::anyhow!(
                "stopped at once: of the batch that was on its way some may be replayed. Run again with the same choice to go on"
            )
            .into()),
        }
    }

    fn tell(&self, outcome: &Outcome, webhooks: &HashMap<WebhookId, Webhook>) -> Result<(), Failure> {
        match outcome {
            Outcome::DeadLetters(summary) => self.tell_dead_letters(summary, webhooks),
            Outcome::Past(summary) => self.tell_past(summary),
        }
    }

    fn tell_dead_letters(
        &self,
        summary: &dead_letters::Summary,
        webhooks: &HashMap<WebhookId, Webhook>,
    ) -> Result<(), Failure> {
        let gone: u64 = summary.gone.values().sum();
        if self.json {
            let rows: Vec<_> = summary
                .replayed
                .iter()
                .map(|((webhook, reason), count)| json!({ "webhookId": webhook, "reason": reason, "count": count }))
                .collect();
            return say_json(&json!({
                "dryRun": self.dry_run, "interrupted": summary.interrupted, "lookedAt": summary.looked_at,
                "replayed": summary.total(), "byWebhookAndReason": rows, "replayedBefore": summary.before,
                "webhookGone": summary.gone, "shortened": summary.shortened, "notDeadLetters": summary.foreign,
            }));
        }
        for ((webhook, reason), count) in &summary.replayed {
            let whom = match webhook {
                Some(id) => {
                    let url = webhooks.get(id).map_or(String::new(), |webhook| format!("  {}", webhook.url));
                    format!("{id}{url}")
                }
                None => "(records that couldn't be read)".to_owned(),
            };
            say(&format!("{count:>9}  {:<10} {whom}", reason.as_str()));
        }
        for (id, count) in &summary.gone {
            let state = if webhooks.contains_key(id) { "inactive" } else { "deleted" };
            say(&format!("{count:>9}  left alone: webhook {id} is {state}"));
        }
        if summary.before > 0 {
            say(&format!("{:>9}  left alone: replayed before (--again replays them)", summary.before));
        }
        if summary.shortened > 0 {
            let where_to = "cut to what the topic took; the original stands where the dead letter says";
            say(&format!("{:>9}  left alone: {where_to}", summary.shortened));
        }
        if summary.foreign > 0 {
            say(&format!("{:>9}  left alone: not dead letters of ours", summary.foreign));
        }
        let verb = if self.dry_run { "would be replayed" } else { "replayed" };
        say(&format!(
            "{} {verb}, of {} chosen and {} looked at",
            summary.total(),
            summary.total() + summary.before + summary.shortened + gone,
            summary.looked_at
        ));
        Ok(())
    }

    fn tell_past(&self, summary: &from_log::Summary) -> Result<(), Failure> {
        if self.json {
            let by_event: BTreeMap<&str, u64> =
                summary.replayed.iter().map(|(event, count)| (event.as_str(), *count)).collect();
            return say_json(&json!({
                "dryRun": self.dry_run, "interrupted": summary.interrupted, "lookedAt": summary.looked_at,
                "replayed": summary.total(), "byEvent": by_event, "replayedBefore": summary.before,
                "unreadable": summary.unreadable,
            }));
        }
        for (event, count) in &summary.replayed {
            say(&format!("{count:>9}  {}", event.as_str()));
        }
        if summary.before > 0 {
            say(&format!("{:>9}  left alone: told by an earlier rewind (--again tells them again)", summary.before));
        }
        if summary.unreadable > 0 {
            say(&format!("{:>9}  left alone: can't be read as transitions", summary.unreadable));
        }
        let verb = if self.dry_run { "would be told" } else { "told" };
        say(&format!("{} {verb}, of {} records looked at", summary.total(), summary.looked_at));
        Ok(())
    }
}

/// What is replayed.
enum Work {
    DeadLetters { choice: Choice, active: HashSet<WebhookId> },
    Past { webhook: Box<Webhook>, past: Past },
}

enum Outcome {
    DeadLetters(dead_letters::Summary),
    Past(from_log::Summary),
}

impl Work {
    fn run(self, config: &Config, manner: &Manner, watch: &mut Watch<'_>) -> anyhow::Result<Outcome> {
        match self {
            Self::DeadLetters { choice, active } => {
                dead_letters::replay(config, &choice, manner, &active, watch).map(Outcome::DeadLetters)
            }
            Self::Past { webhook, past } => from_log::rewind(config, &webhook, &past, manner, watch).map(Outcome::Past),
        }
    }
}

fn interrupted() -> Failure {
    anyhow::anyhow!("interrupted; run again with the same choice to go on: nothing is replayed twice").into()
}

/// For whoever waits for us.
fn who() -> String {
    format!("process {} on {}", std::process::id(), crate::worker::hostname())
}

/// Waits until no other replay runs. Cancel safe.
async fn take(lease: &Lease) -> Result<(), Failure> {
    let mut told = false;
    loop {
        match lease.ask().await? {
            LeaseAnswer::Ours => return Ok(()),
            LeaseAnswer::Theirs(who) if !told => {
                eprintln!("another replay runs ({who}); waiting for its end");
                told = true;
            }
            LeaseAnswer::Theirs(_) => {}
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

/// On a terminal a question; elsewhere `--yes` is the answer.
fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "--all replays every dead letter: say --yes where nobody can be asked; nothing was replayed".to_owned(),
        ));
    }
    eprint!("Replay every dead letter of every webhook? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("no answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(anyhow::anyhow!("nothing was replayed").into())
}
