//! The admin server: the page, the API, health and metrics.

mod actions;
mod api;
mod auth;
mod document;
mod lag;
mod pages;
mod problem;
mod replays;
mod state;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::DefaultBodyLimit;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::worker::readiness::{self, Readiness};

use state::{Admin, Shared};

/// A running server.
pub struct Serving {
    /// The address that it listens on.
    pub address: SocketAddr,
    admin: Option<Shared>,
}

impl Serving {
    /// Ends the replays that run in this process, each after its current batch, so that nothing is replayed twice.
    pub async fn end(&self) {
        if let Some(admin) = &self.admin {
            admin.replays.end().await;
        }
    }
}

/// Serves health and metrics until the process ends, and with `is_whole` also the page and the API.
///
/// # Errors
/// `admin.listen` can't be bound, or a client can't be made.
pub async fn serve(config: &Config, readiness: Arc<Readiness>, is_whole: bool) -> anyhow::Result<Serving> {
    let listener = TcpListener::bind(config.admin.listen)
        .await
        .with_context(|| format!("admin.listen = {} can't be listened on", config.admin.listen))?;
    let mut routes = readiness::routes(config, readiness.clone())?;
    let admin = if is_whole { Some(Arc::new(Admin::new(config, readiness)?)) } else { None };
    if let Some(admin) = &admin {
        routes = routes.merge(api::routes(admin)).merge(pages::routes(admin));
    }
    let routes = routes.layer(DefaultBodyLimit::max(config.admin.body_max));
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(Serving { address, admin })
}
