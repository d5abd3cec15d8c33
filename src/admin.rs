//! The admin server: the page, the API, health and metrics.

mod actions;
mod api;
mod auth;
mod lag;
mod live;
mod pages;
mod problem;
mod replays;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::store::connection::Connection;
use anyhow::Context as _;
use axum::extract::DefaultBodyLimit;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::http;
use crate::kafka::group::Commits;
use crate::redelivery::Redeliveries;
use crate::store::log::DeliveryLog;
use crate::store::recoveries::Recoveries;
use crate::store::reports::Reports;
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::worker::health::{self, Readiness};

use auth::Guard;
use lag::Lags;
use problem::Problem;
use replays::Replays;

/// What every handler may need.
struct Admin {
    config: Config,
    redis: Connection,
    keys: Keys,
    store: WebhookStore,
    log: DeliveryLog,
    reports: Reports,
    client: http::client::Client,
    redeliveries: Redeliveries,
    replays: Replays,
    lags: Lags,
    /// What this process knows of the store.
    readiness: Arc<Readiness>,
    commits: Commits,
    guard: Guard,
    viewers: live::Viewers,
    /// Places for those who look through dead letters.
    browsers: Arc<Semaphore>,
}

type Shared = Arc<Admin>;

impl Admin {
    fn new(config: &Config, readiness: Arc<Readiness>) -> anyhow::Result<Self> {
        let (_, redis) = connection::open(&config.redis).context("redis.url")?;
        let keys = Keys::new(&config.redis.prefix);
        let store = WebhookStore::new(redis.clone(), keys.clone());
        Ok(Self {
            log: DeliveryLog::new(redis.clone(), keys.clone()),
            reports: Reports::new(redis.clone(), &keys),
            client: http::client::new(&config.delivery).context("http client")?,
            redeliveries: Redeliveries::new(config, store.clone(), Recoveries::new(redis.clone(), keys.clone()))
                .context("kafka producer")?,
            replays: Replays::new(config.clone(), redis.clone(), keys.clone()),
            lags: Lags::new(config.clone()),
            readiness,
            commits: Commits::new(Arc::new(config.clone())),
            guard: Guard::new(&config.admin),
            viewers: live::Viewers::default(),
            browsers: Arc::new(Semaphore::new(api::BROWSERS_MAX)),
            config: config.clone(),
            redis,
            keys,
            store,
        })
    }
}

/// The server at work.
pub struct Serving {
    /// Where it listens.
    pub address: SocketAddr,
    admin: Option<Shared>,
}

impl Serving {
    /// Ends the replays that run here after the batch that is on their way, so that nothing is doubled.
    pub async fn end(&self) {
        if let Some(admin) = &self.admin {
            admin.replays.end().await;
        }
    }
}

/// Serves health and metrics, and the page and the API if `is_whole`, until the process ends.
///
/// # Errors
/// Where `admin.listen` can't be bound or a client can't be made.
pub async fn serve(config: &Config, readiness: Arc<Readiness>, is_whole: bool) -> anyhow::Result<Serving> {
    let listener = TcpListener::bind(config.admin.listen)
        .await
        .with_context(|| format!("admin.listen = {} can't be listened on", config.admin.listen))?;
    let mut routes = health::routes(config, readiness.clone())?;
    let admin = if is_whole { Some(Arc::new(Admin::new(config, readiness)?)) } else { None };
    if let Some(admin) = &admin {
        routes = routes.merge(api::routes(admin)).merge(pages::routes(admin));
    }
    let routes = routes.layer(DefaultBodyLimit::max(config.admin.body_max));
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(Serving { address, admin })
}
