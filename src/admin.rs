//! The admin server: the page, the API, health and metrics.

mod actions;
mod activity;
mod api;
mod base_path;
mod client;
mod connections;
mod document;
mod entrance;
mod hosts;
mod lag;
mod number;
mod pages;
mod paths;
mod problem;
mod replays;
mod search;
mod server;
pub(crate) mod sessions;
mod state;
pub(crate) mod status;
mod throttle;
mod tokens;
mod trend;
pub(crate) mod unreadable;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::store::audit::Author;
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
        tokio::spawn(trend::keep(Arc::downgrade(admin)));
        let guarded = api::routes(admin).merge(pages::routes(admin));
        // Probes call /healthz, /readyz and /metrics by the address of a container, so those take any host.
        let guarded = guarded.layer(middleware::from_fn(paths::check));
        let guarded = guarded.layer(middleware::from_fn_with_state(admin.clone(), hosts::check));
        routes = routes.merge(base_path::below(&config.admin.base_path, guarded));
    }
    let routes = routes.layer(DefaultBodyLimit::max(config.admin.body_max)).layer(middleware::map_response(harden));
    let address = listener.local_addr()?;
    tokio::spawn(server::run(listener, routes, config.admin.clone()));
    Ok(Serving { address, admin })
}

/// The API in this process, for calls by `who`.
///
/// # Errors
/// A client can't be made.
pub fn in_process(config: &Config, who: Author) -> anyhow::Result<axum::Router> {
    let readiness = Arc::new(Readiness::new(false));
    Ok(api::routes_of(&Arc::new(Admin::new(config, readiness)?), who))
}

/// Forbids browsers to guess the type of an answer, and to keep it unless it allows that.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::CACHE_CONTROL, "no-store")] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
