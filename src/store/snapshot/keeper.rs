//! Keeps the snapshot current: asks Redis again and again, judges what it says, and tries whether it takes writes.

use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands as _;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Confirmed, Snapshot, Snapshots, listener};
use crate::conditions::{Conditions, Severity};
use crate::kafka::group::Commits;
use crate::schedule::Reconnect;
use crate::store::connection::Connection;
use crate::store::reading::{Known, Peek, REMEDY, Unconfirmed, Verdict, judge};
use crate::store::webhooks::{Listing, WebhookStore};
use crate::store::{Keys, is_away, refuses_writes};

/// How often a write is tried while they are taken.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a store that isn't confirmed is read whole although it says the same of itself.
const JUDGED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What the write leaves is gone after this, in milliseconds.
const PROBE_LASTS_MS: u64 = 60_000;
/// Webhooks that a condition names.
const NAMED_MAX: usize = 5;

/// What a keeper needs.
#[allow(missing_docs, reason = "each is what its type says")]
pub struct Setup {
    pub client: redis::Client,
    /// Of its own: what it asks doesn't queue behind anything.
    pub connection: Connection,
    pub keys: Keys,
    pub staleness_max: Duration,
    /// `redis.timeout`
    pub timeout: Duration,
    /// Whether something was ever delivered here: that tells a fresh installation from a store that is lost.
    pub commits: Commits,
    pub conditions: Conditions,
    /// How much a store that can't be used matters to this process.
    pub severity: Severity,
}

/// The names of its conditions.
const UNCONFIRMED: &str = "redis: the webhooks are not confirmed";
const REFUSED: &str = "redis: writes are refused";
const UNSUPPORTED: &str = "webhooks that can't be read by this version";

/// Keeps the snapshot current until `stop`.
#[must_use]
pub fn keep(setup: Setup, stop: CancellationToken) -> Snapshots {
    let snapshots = Snapshots::new(setup.staleness_max);
    let store = WebhookStore::new(setup.connection.clone(), setup.keys.clone());
    let keeper = Keeper {
        store,
        snapshots: snapshots.clone(),
        known: None,
        peek: None,
        refused: None,
        committed: None,
        probed: None,
        setup,
    };
    tokio::spawn(stop.run_until_cancelled_owned(keeper.run()));
    snapshots
}

struct Keeper {
    setup: Setup,
    store: WebhookStore,
    snapshots: Snapshots,
    /// What was confirmed, to judge the next reading by.
    known: Option<Known>,
    /// What the store said when it was last read and confirmed; None where it is to be read whole.
    peek: Option<Peek>,
    /// What the store said when it was last judged to have lost webhooks, and when.
    refused: Option<(Peek, Unconfirmed, Instant)>,
    /// A consumer group that has commits.
    committed: Option<String>,
    probed: Option<Instant>,
}

/// Why a confirmation failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

impl Keeper {
    async fn run(mut self) {
        let anew = Arc::new(Notify::new());
        let Setup { client, keys, timeout, .. } = &self.setup;
        let mut announced = listener::spawn(client.clone(), keys.webhooks_version(), *timeout, anew.clone());
        let interval = self.setup.staleness_max / 4;
        let mut outage = self.setup.conditions.outage("redis: reading the webhooks", self.setup.severity);
        let mut reconnect = Reconnect::default();
        let mut is_away = false;
        loop {
            match self.round().await {
                Ok(()) => {
                    outage.over();
                    if std::mem::take(&mut is_away) {
                        tracing::info!("redis is back");
                    }
                    reconnect = Reconnect::default();
                    tokio::select! {
                        () = tokio::time::sleep(interval) => {}
                        _ = announced.changed() => {}
                    }
                }
                Err(error) => {
                    outage.failed(&error);
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(%error, "redis is away: nothing is sent until it is back");
                    }
                    if error.is_timeout() {
                        // A connection that died without FIN never answers again; the next question tells.
                        self.setup.connection.renew();
                        anew.notify_one();
                    }
                    // It may come back with other data: the next reading is whole.
                    self.peek = None;
                    reconnect.wait().await;
                }
            }
        }
    }

    /// Confirms the snapshot, and tries a write where that is due.
    async fn round(&mut self) -> redis::RedisResult<()> {
        // First: once the snapshot is confirmed, it may be sent by.
        self.probe().await?;
        match self.confirm().await {
            Ok(()) => {
                self.unconfirmed(None);
                Ok(())
            }
            Err(Failure::Unconfirmed(why)) => {
                self.unconfirmed(Some(why.to_string()));
                Ok(())
            }
            Err(Failure::Redis(error)) if is_away(&error) => Err(error),
            // It answers, and what stands there can't be read: a key of another type, a command that it refuses.
            Err(Failure::Redis(error)) => {
                self.unconfirmed(Some(format!("{} can't be read: {error}", self.setup.keys.webhooks())));
                Ok(())
            }
        }
    }

    async fn confirm(&mut self) -> Result<(), Failure> {
        let asked_at = Instant::now();
        let peek = self.store.peek().await?;
        if self.peek.as_ref() == Some(&peek) {
            self.snapshots.confirmed.send_modify(|confirmed| confirmed.at = Some(asked_at));
            return Ok(());
        }
        self.peek = None;
        // Judged a moment ago: a store that isn't confirmed isn't read whole again and again.
        if let Some((refused, why, at)) = &self.refused
            && *refused == peek
            && at.elapsed() < JUDGED_AGAIN_AFTER
        {
            return Err(why.clone().into());
        }
        let (version, peek, listing) = match self.read().await {
            Err(Failure::Unconfirmed(why)) => {
                self.refused = Some((peek, why.clone(), asked_at));
                return Err(why.into());
            }
            read => read?,
        };
        self.refused = None;
        let replaced = match self.store.replaced().await {
            Ok(replaced) => replaced,
            Err(error) if is_away(&error) => return Err(error.into()),
            Err(error) => {
                let key = self.setup.keys.replaced();
                tracing::warn!(%error, key, "redeliveries can't be read: retries that they replace may be sent as well");
                std::collections::HashMap::new()
            }
        };
        tracing::debug!(version, webhooks = listing.webhooks.len(), "webhooks read");
        self.tell_of_held(&listing);
        self.known = Some(Known { version, names: listing.names });
        let seen = Some((version, peek.found));
        self.peek = Some(peek);
        let snapshot = Arc::new(Snapshot::of(listing.webhooks, listing.unsupported, replaced));
        self.snapshots.confirmed.send_modify(|confirmed| {
            *confirmed = Confirmed { snapshot, at: Some(asked_at), seen, trouble: confirmed.trouble.clone() };
        });
        Ok(())
    }

    /// The webhooks, if they can be taken for what people put there.
    async fn read(&mut self) -> Result<(u64, Peek, Listing), Failure> {
        let (peek, listing) = self.store.read().await?;
        if let Verdict::Confirmed(version) = judge(self.known.as_ref(), &peek, &listing.names)? {
            return Ok((version, peek, listing));
        }
        self.begin().await?;
        let (peek, listing) = self.store.read().await?;
        match judge(self.known.as_ref(), &peek, &listing.names)? {
            Verdict::Confirmed(version) => Ok((version, peek, listing)),
            Verdict::Blank => Err(Unconfirmed("what was written to Redis a moment ago is gone".to_owned()).into()),
        }
    }

    /// Nothing was ever written to this store, or all of it is gone: what was delivered before tells.
    async fn begin(&mut self) -> Result<(), Failure> {
        if self.committed.is_none() {
            let asked = self.setup.commits.of_any_group().await;
            self.committed = asked.map_err(|error| {
                Unconfirmed(format!(
                    "there are no webhooks in Redis, and whether that is a fresh installation can't be asked of Kafka: {error:#}"
                ))
            })?;
        }
        match &self.committed {
            None => Ok(self.store.begin().await?),
            Some(group) => Err(Unconfirmed(format!(
                "there are no webhooks in Redis (prefix {:?}), and the consumer group {group} has commits, so there were some: nothing is sent until one is added; {REMEDY}",
                self.setup.keys.prefix()
            ))
            .into()),
        }
    }

    /// Writes, where that is due: a server that answers reads may refuse writes.
    async fn probe(&mut self) -> redis::RedisResult<()> {
        let is_refused = self.snapshots.confirmed.borrow().trouble.probe.is_some();
        if !is_refused && self.probed.is_some_and(|at| at.elapsed() < PROBE_INTERVAL) {
            return Ok(());
        }
        self.probed = Some(Instant::now());
        let mut connection = self.setup.connection.clone();
        let written =
            connection.pset_ex::<_, _, ()>(self.setup.keys.probe(), crate::clock::now_ms(), PROBE_LASTS_MS).await;
        match written {
            Ok(()) => self.refused(None),
            Err(error) => match refuses_writes(&error) {
                Some(why) => self.refused(Some(format!("reads but refuses writes: {why}"))),
                None if is_away(&error) => return Err(error),
                // This key or command alone: it says nothing of the others.
                None => {
                    tracing::debug!(%error, "whether writes are taken can't be tried");
                    self.refused(None);
                }
            },
        }
        Ok(())
    }

    fn refused(&self, trouble: Option<String>) {
        self.condition(REFUSED, trouble.as_deref());
        self.snapshots.note(|known| &mut known.probe, trouble);
    }

    fn unconfirmed(&self, trouble: Option<String>) {
        self.condition(UNCONFIRMED, trouble.as_deref());
        self.snapshots.note(|known| &mut known.unconfirmed, trouble);
    }

    fn condition(&self, name: &str, trouble: Option<&str>) {
        match trouble {
            Some(reason) => self.setup.conditions.set(name, self.setup.severity, reason),
            None => self.setup.conditions.clear(name),
        }
    }

    fn tell_of_held(&self, listing: &Listing) {
        let unsupported =
            listing.unsupported.iter().map(|unsupported| format!("{} ({})", unsupported.id, unsupported.problem));
        let foreign = listing.foreign.iter().map(|name| format!("{name:?} (not a webhook's id)"));
        let named: Vec<String> = unsupported.chain(foreign).collect();
        if named.is_empty() {
            return self.setup.conditions.clear(UNSUPPORTED);
        }
        let more = match named.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = named[..named.len().min(NAMED_MAX)].join(", ");
        self.setup.conditions.set(
            UNSUPPORTED,
            Severity::Warning,
            format!("what is for them waits, others go on: {named}{more}"),
        );
    }
}
