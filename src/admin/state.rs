//! What all handlers share: the configuration, the stores and the clients.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tokio::sync::Semaphore;

use super::hosts::Hosts;
use super::lag::Lags;
use super::replays::Replays;
use super::sessions::Sessions;
use super::throttle::Throttle;
use super::tokens::Tokens;
use super::trend::Trend;
use crate::config::Config;
use crate::http;
use crate::http::vetting::Vetting;
use crate::kafka::group::Commits;
use crate::redelivery::Redeliveries;
use crate::store::audit::AuditLog;
use crate::store::connection::Connection;
use crate::store::log::DeliveryLog;
use crate::store::missed::MissedEvents;
use crate::store::notices::Notices;
use crate::store::recoveries::Recoveries;
use crate::store::replies::Replies;
use crate::store::webhooks::WebhookStore;
use crate::store::workers::Reports;
use crate::store::{Keys, connection};
use crate::trial::Trials;
use crate::worker::readiness::Readiness;

/// The number of dead-letter pages that are read at once. Each takes a thread, and memory for reading ahead.
pub const BROWSERS_MAX: usize = 8;
/// The number of searches across all webhooks at once. Each may read every delivery log.
pub const SEARCHES_MAX: usize = 2;
/// The number of streams of events at once. Each takes a thread and a Kafka consumer.
pub const STREAMS_MAX: usize = 16;
/// The number of people who can follow a delivery log live at once.
pub const VIEWERS_MAX: usize = 64;

/// What any handler may need.
pub struct Admin {
    pub config: Config,
    pub redis: Connection,
    pub keys: Keys,
    pub store: WebhookStore,
    pub log: DeliveryLog,
    pub reports: Reports,
    pub trials: Arc<Trials>,
    pub vetting: Vetting,
    pub redeliveries: Redeliveries,
    pub replays: Replays,
    pub lags: Lags,
    pub trend: Trend,
    /// Whether this process can read the webhooks, and whether some of them seem to be lost.
    pub readiness: Arc<Readiness>,
    pub commits: Commits,
    pub hosts: Hosts,
    pub tokens: Tokens,
    pub throttle: Throttle,
    pub sessions: Sessions,
    pub audit: AuditLog,
    pub replies: Replies,
    pub notices: Notices,
    pub missed: MissedEvents,
    /// Permits to read a page of dead letters.
    pub browsers: Arc<Semaphore>,
    /// Permits to search all delivery logs.
    pub searches: Semaphore,
    /// Permits for streams of events.
    pub streams: Arc<Semaphore>,
    /// Permits to follow a delivery log live.
    pub viewers: Arc<Semaphore>,
}

/// The state of every handler.
pub type Shared = Arc<Admin>;

impl Admin {
    /// Opens the stores and makes the clients.
    ///
    /// # Errors
    /// A URL can't be used, or a client can't be made.
    pub fn new(config: &Config, readiness: Arc<Readiness>) -> anyhow::Result<Self> {
        let redis = connection::open(&config.redis).context("redis.url")?;
        let keys = Keys::new(&config.redis.prefix);
        let store = WebhookStore::open(config, redis.clone())?;
        Ok(Self {
            log: DeliveryLog::new(redis.clone(), keys.clone()),
            reports: Reports::new(redis.clone(), &keys),
            trials: Arc::new(Trials::new(
                config,
                http::client::new(&config.delivery).context("http client")?,
                redis.clone(),
            )),
            vetting: Vetting::new(&config.delivery),
            redeliveries: Redeliveries::new(config, store.clone(), Recoveries::new(redis.clone(), keys.clone())),
            replays: Replays::new(config.clone(), redis.clone(), keys.clone()),
            lags: Lags::new(config.clone()),
            trend: Trend::default(),
            readiness,
            commits: Commits::new(Arc::new(config.clone())),
            hosts: Hosts::new(&config.admin),
            tokens: Tokens::new(&config.admin),
            throttle: Throttle::new(Instant::now()),
            sessions: Sessions::new(&redis, &keys, config.secrets.keyring()?, &config.admin),
            audit: AuditLog::new(redis.clone(), &keys, config.admin.audit_entries_max),
            replies: Replies::new(redis.clone(), keys.clone(), config.secrets.keyring()?, config.delivery.timeout),
            notices: Notices::new(redis.clone(), keys.clone()),
            missed: MissedEvents::new(redis.clone(), keys.clone()),
            browsers: Arc::new(Semaphore::new(BROWSERS_MAX)),
            searches: Semaphore::new(SEARCHES_MAX),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
            config: config.clone(),
            redis,
            keys,
            store,
        })
    }
}
