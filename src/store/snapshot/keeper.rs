//! The keeper of the snapshot: reads the webhooks regularly, judges each reading, and tests whether Redis accepts
//! writes.

mod reports;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use redis::AsyncCommands as _;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Asked, Confirmed, Snapshot, Snapshots, listener};
use crate::conditions::{Conditions, Severity};
use crate::kafka::group::Commits;
use crate::schedule::Reconnect;
use crate::store::connection::Connection;
use crate::store::reading::{LastConfirmed, REMEDY, StoreSummary, Unconfirmed, Verdict, judge};
use crate::store::webhooks::{Listing, WebhookStore};
use crate::store::{Keys, is_away, refuses_writes};
use crate::webhook::stored::Sealing;

/// The interval between test writes while Redis accepts writes. While it refuses them, each round makes a test write.
const TEST_WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two readings of all webhooks while they are unconfirmed and the metadata of the store is
/// unchanged.
const REREAD_INTERVAL: Duration = Duration::from_secs(1);
/// The time until the key of the test write expires, in milliseconds.
const TEST_WRITE_TTL_MS: u64 = 60_000;

/// The parts that a keeper needs.
#[allow(missing_docs, reason = "the types explain the fields")]
pub struct Setup {
    /// A connection for the keeper alone, so that its commands do not queue behind others.
    pub connection: Connection,
    pub keys: Keys,
    /// Opens the secrets of the webhooks.
    pub sealing: Sealing,
    pub staleness_max: Duration,
    /// The value of `redis.timeout`.
    pub timeout: Duration,
    /// The commits of the consumer groups. They show whether an empty store is new or has lost its webhooks.
    pub commits: Commits,
    pub conditions: Conditions,
    /// The severity of the conditions while the store cannot be used.
    pub severity: Severity,
}

// The names of the conditions. `docs/reference.md`, section "Conditions", lists them.
const UNCONFIRMED: &str = "redis: the webhooks are not confirmed";
const REFUSED: &str = "redis: writes are refused";

/// Starts a task that keeps the snapshot current until `stop` is cancelled. If it panics, `died` is called: nothing is sent
/// any more, because the snapshot stays as it is.
#[must_use]
pub fn keep(setup: Setup, stop: CancellationToken, died: impl FnOnce() + Send + 'static) -> Snapshots {
    let snapshots = Snapshots::new(setup.staleness_max);
    let store = WebhookStore::new(setup.connection.clone(), setup.keys.clone(), setup.sealing.clone());
    let keeper = Keeper {
        store,
        snapshots: snapshots.clone(),
        known: None,
        confirmed_summary: None,
        last_unconfirmed: None,
        group_with_commits: None,
        last_test_write: None,
        has_reported_plaintext: false,
        setup,
    };
    let work = AssertUnwindSafe(stop.run_until_cancelled_owned(keeper.run())).catch_unwind();
    tokio::spawn(async move {
        if work.await.is_err() {
            died();
        }
    });
    snapshots
}

struct Keeper {
    setup: Setup,
    store: WebhookStore,
    snapshots: Snapshots,
    /// The last confirmed reading, with which the next one is compared.
    known: Option<LastConfirmed>,
    /// The metadata of the store at the last confirmation. None if all webhooks must be read again.
    confirmed_summary: Option<StoreSummary>,
    /// The metadata at which the store was last judged to have lost webhooks, the reason, and the time.
    last_unconfirmed: Option<(StoreSummary, Unconfirmed, Instant)>,
    /// A consumer group that has commits, once one was found.
    group_with_commits: Option<String>,
    /// The time of the last test write.
    last_test_write: Option<Instant>,
    /// Whether secrets in plain text were reported. They are reported once.
    has_reported_plaintext: bool,
}

/// The error of a confirmation.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

impl Keeper {
    async fn run(mut self) {
        let renew_listener = Arc::new(Notify::new());
        let Setup { connection, keys, timeout, .. } = &self.setup;
        let mut announced =
            listener::spawn(connection.clone(), keys.webhooks_version(), *timeout, renew_listener.clone());
        let interval = self.setup.staleness_max / 4;
        let mut outage = self.setup.conditions.outage("redis: reading the webhooks", self.setup.severity);
        let mut reconnect = Reconnect::default();
        let mut was_away = false;
        loop {
            match self.round().await {
                Ok(()) => {
                    outage.over();
                    if std::mem::take(&mut was_away) {
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
                    if !std::mem::replace(&mut was_away, true) {
                        tracing::warn!(%error, "redis is unavailable; nothing is sent until it is back");
                    }
                    if error.is_timeout() {
                        // A connection that died without FIN never answers again, so open new ones.
                        self.setup.connection.renew();
                        renew_listener.notify_one();
                    }
                    // Redis may come back with different data, so read all webhooks next time.
                    self.confirmed_summary = None;
                    reconnect.wait().await;
                }
            }
        }
    }

    /// Makes a test write if one is due, then confirms the snapshot.
    async fn round(&mut self) -> redis::RedisResult<()> {
        // The test write comes first: deliveries may be sent as soon as the snapshot is confirmed.
        self.test_write().await?;
        match self.confirm().await {
            Ok(()) => {
                self.set_unconfirmed(None);
                Ok(())
            }
            Err(Failure::Unconfirmed(why)) => {
                self.set_unconfirmed(Some(why.to_string()));
                Ok(())
            }
            Err(Failure::Redis(error)) if is_away(&error) => Err(error),
            // Redis answers, but the webhooks cannot be read: the key has another type, or an ACL forbids the command.
            Err(Failure::Redis(error)) => {
                self.set_unconfirmed(Some(format!("{} can't be read: {error}", self.setup.keys.webhooks())));
                Ok(())
            }
        }
    }

    async fn confirm(&mut self) -> Result<(), Failure> {
        let asked = Asked::now();
        let summary = self.store.peek().await?;
        if self.confirmed_summary.as_ref() == Some(&summary) {
            self.snapshots.confirmed.send_modify(|confirmed| confirmed.at = Some(asked));
            return Ok(());
        }
        self.confirmed_summary = None;
        // Do not read all webhooks in each round while the same metadata is unconfirmed.
        if let Some((unconfirmed, why, at)) = &self.last_unconfirmed
            && *unconfirmed == summary
            && at.elapsed() < REREAD_INTERVAL
        {
            return Err(why.clone().into());
        }
        let (version, summary, listing) = match self.read().await {
            Err(Failure::Unconfirmed(why)) => {
                self.last_unconfirmed = Some((summary, why.clone(), asked.at));
                return Err(why.into());
            }
            read => read?,
        };
        self.last_unconfirmed = None;
        let replaced = match self.store.replaced().await {
            Ok(replaced) => replaced,
            Err(error) if is_away(&error) => return Err(error.into()),
            Err(error) => {
                let key = self.setup.keys.replaced();
                tracing::warn!(%error, key, "redeliveries cannot be read; retries that they replace may be sent as well");
                std::collections::HashMap::new()
            }
        };
        tracing::debug!(version, webhooks = listing.webhooks.len(), "webhooks read");
        self.report_unsupported(&listing);
        self.report_plaintext(&listing);
        self.known = Some(LastConfirmed { version, names: listing.names });
        let seen = Some((version, summary.found));
        self.confirmed_summary = Some(summary);
        let snapshot = Arc::new(Snapshot::of(listing.webhooks, listing.unsupported, replaced));
        self.snapshots.confirmed.send_modify(|confirmed| {
            *confirmed = Confirmed { snapshot, at: Some(asked), seen, trouble: confirmed.trouble.clone() };
        });
        Ok(())
    }

    /// Reads all webhooks and judges them. Initializes the store of a new installation.
    async fn read(&mut self) -> Result<(u64, StoreSummary, Listing), Failure> {
        let (summary, listing) = self.store.read().await?;
        if let Verdict::Confirmed(version) = judge(self.known.as_ref(), &summary, &listing.names)? {
            return Ok((version, summary, listing));
        }
        self.initialize().await?;
        let (summary, listing) = self.store.read().await?;
        match judge(self.known.as_ref(), &summary, &listing.names)? {
            Verdict::Confirmed(version) => Ok((version, summary, listing)),
            Verdict::NeverWritten => {
                Err(Unconfirmed("Redis has lost the version of the webhooks that was just written".to_owned()).into())
            }
        }
    }

    /// Initializes the store if no consumer group has commits. If one has, the store has lost its webhooks.
    async fn initialize(&mut self) -> Result<(), Failure> {
        if self.group_with_commits.is_none() {
            let asked = self.setup.commits.of_any_group().await;
            self.group_with_commits = asked.map_err(|error| {
                Unconfirmed(format!(
                    "there are no webhooks in Redis, and Kafka cannot be asked whether this is a new installation: {error:#}"
                ))
            })?;
        }
        match &self.group_with_commits {
            None => Ok(self.store.initialize().await?),
            Some(group) => Err(Unconfirmed(format!(
                "there are no webhooks in Redis (prefix {:?}), but the consumer group {group} has commits, so there were webhooks before: nothing is sent; {REMEDY}, or after a webhook is added",
                self.setup.keys.prefix()
            ))
            .into()),
        }
    }

    /// Makes a test write if one is due, because a server that answers reads may still refuse writes.
    async fn test_write(&mut self) -> redis::RedisResult<()> {
        let is_refused = self.snapshots.confirmed.borrow().trouble.test_write.is_some();
        if !is_refused && self.last_test_write.is_some_and(|at| at.elapsed() < TEST_WRITE_INTERVAL) {
            return Ok(());
        }
        self.last_test_write = Some(Instant::now());
        let mut connection = self.setup.connection.clone();
        let written =
            connection.pset_ex::<_, _, ()>(self.setup.keys.probe(), crate::clock::now_ms(), TEST_WRITE_TTL_MS).await;
        match written {
            Ok(()) => self.set_refused(None),
            Err(error) => match refuses_writes(&error) {
                Some(why) => self.set_refused(Some(format!("answers reads but refuses writes: {why}"))),
                None if is_away(&error) => return Err(error),
                // Only this key or command is refused, which says nothing about other writes.
                None => {
                    tracing::debug!(%error, "the test write is refused, so it is unknown whether redis accepts writes");
                    self.set_refused(None);
                }
            },
        }
        Ok(())
    }

    fn set_refused(&self, trouble: Option<String>) {
        self.set_condition(REFUSED, trouble.as_deref());
        self.snapshots.note(|current| &mut current.test_write, trouble);
    }

    fn set_unconfirmed(&self, trouble: Option<String>) {
        self.set_condition(UNCONFIRMED, trouble.as_deref());
        self.snapshots.note(|current| &mut current.unconfirmed, trouble);
    }

    fn set_condition(&self, name: &str, trouble: Option<&str>) {
        match trouble {
            Some(reason) => self.setup.conditions.set(name, self.setup.severity, reason),
            None => self.setup.conditions.clear(name),
        }
    }
}
