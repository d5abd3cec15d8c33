//! A TCP proxy before Redis that can fail as networks do: it freezes, throttles and cuts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

#[derive(Clone)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Connections up to this number are frozen.
    frozen_up_to: AtomicUsize,
    opened: AtomicUsize,
    /// 0: as fast as it goes.
    bytes_per_second: AtomicU64,
    /// Until when the link is taken, by all connections together.
    taken_until: Mutex<Option<Instant>>,
    cut: Mutex<CancellationToken>,
}

impl Proxy {
    /// Before the Redis at `url`.
    pub async fn before(url: &str) -> Self {
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
                let pass = |from, to| pass(from, to, number, shared.clone());
                tokio::spawn(cut.clone().run_until_cancelled_owned(pass(from_client, to_server)));
                tokio::spawn(cut.run_until_cancelled_owned(pass(from_server, to_client)));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// The connections that are open pass nothing on any more, and stay open: as if they had died without FIN.
    pub fn freeze(&self) {
        self.shared.frozen_up_to.store(self.opened(), Ordering::SeqCst);
    }

    /// All connections together take no more than this.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Closes every connection.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock().unwrap()).cancel();
    }

    /// How many connections were opened.
    pub fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: usize, shared: Arc<Shared>) {
    let mut piece = vec![0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        if number <= shared.frozen_up_to.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let rate = shared.bytes_per_second.load(Ordering::SeqCst);
        if rate > 0 {
            let until = {
                let mut taken = shared.taken_until.lock().unwrap();
                let begins = taken.unwrap_or_else(Instant::now).max(Instant::now());
                *taken.insert(begins + Duration::from_secs_f64(count as f64 / rate as f64))
            };
            tokio::time::sleep_until(until).await;
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
