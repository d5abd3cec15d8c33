//! A TCP proxy in front of Redis that simulates network faults: frozen, slow and closed connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The largest number of bytes that are forwarded at once.
const CHUNK: usize = 16 << 10;

#[derive(Clone)]
pub struct Proxy {
    /// The address at which the proxy listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Connections with this number or a lower one are frozen.
    frozen_up_to: AtomicUsize,
    opened: AtomicUsize,
    /// The rate limit of all connections together. 0 means no limit.
    bytes_per_second: AtomicU64,
    /// The end of the last transfer that the rate limit has scheduled. All connections share it.
    busy_until: Mutex<Option<Instant>>,
    cut: Mutex<CancellationToken>,
}

impl Proxy {
    /// Starts a proxy in front of the Redis at `url`.
    pub async fn start(url: &str) -> Self {
        let target = url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), shared: Arc::default() };
        let shared = proxy.shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let number = shared.opened.fetch_add(1, Ordering::SeqCst) + 1;
                let cut = shared.cut.lock().unwrap().clone();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let forward = |from, to| forward(from, to, number, shared.clone());
                tokio::spawn(cut.clone().run_until_cancelled_owned(forward(from_client, to_server)));
                tokio::spawn(cut.run_until_cancelled_owned(forward(from_server, to_client)));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Stops forwarding on the open connections but keeps them open, as if their peer had died without a FIN.
    pub fn freeze(&self) {
        self.shared.frozen_up_to.store(self.opened(), Ordering::SeqCst);
    }

    /// Limits the rate of all connections together. 0 removes the limit.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Closes every connection.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock().unwrap()).cancel();
    }

    /// The number of connections that were ever opened.
    pub fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: usize, shared: Arc<Shared>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        if number <= shared.frozen_up_to.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let rate = shared.bytes_per_second.load(Ordering::SeqCst);
        if rate > 0 {
            let until = {
                let mut busy_until = shared.busy_until.lock().unwrap();
                let begin = busy_until.unwrap_or_else(Instant::now).max(Instant::now());
                *busy_until.insert(begin + Duration::from_secs_f64(count as f64 / rate as f64))
            };
            tokio::time::sleep_until(until).await;
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}
