//! Accepts connections and serves each until it ends, takes too long, or must make room.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};

use super::client::Client;
use super::connections::watched::{Answer, Arriving, Socket};
use super::connections::{Connections, Limits, Place};
use crate::config;

/// The longest headers of a request, in bytes.
const HEADERS_MAX: usize = 64 << 10;
/// The pause after a connection couldn't be accepted, for example because the process can open no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `routes` until the process ends.
pub async fn run(listener: TcpListener, routes: Router, settings: config::Admin) {
    let files_max = rlimit::Resource::NOFILE.get().map_or(u64::MAX, |(soft, _)| soft);
    let connections = Connections::new(Limits::new(&settings, files_max));
    let trusted: Arc<[IpNet]> = settings.trusted_proxies.into();
    let mut number = 0;
    let mut fails = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !std::mem::replace(&mut fails, true) {
                    tracing::warn!(%error, "a connection to the admin server can't be accepted; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        fails = false;
        number += 1;
        if let Some(place) = connections.admit(peer.ip(), number).await {
            tokio::spawn(serve(stream, peer, place, routes.clone(), trusted.clone()));
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, place: Place, routes: Router, trusted: Arc<[IpNet]>) {
    let _ = stream.set_nodelay(true);
    let connection = place.connection.clone();
    let answer = service_fn(|request: Request<Incoming>| {
        let connection = connection.clone();
        let client = Client::of(peer, request.headers(), &trusted);
        let mut request = request.map(|body| Body::new(Arriving::new(body, connection.clone())));
        request.extensions_mut().insert(client);
        let answering = TowerToHyperService::new(routes.clone()).call(request);
        async move { answering.await.map(|answer: Response<Body>| answer.map(|body| Answer { body, connection })) }
    });
    let socket = TokioIo::new(Socket { stream, connection: connection.clone() });
    // The place knows how long the connection may take. The timer of the HTTP library is off, because it would also
    // end a connection that waits between two requests.
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(socket, answer);
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the admin server ended");
        },
        () = place.ends() => {}
    }
}
