//! A TCP proxy in front of a server that simulates network faults: slow, frozen, half closed, closed and reset connections.

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
    /// Connections with this number or a lower one get no more of the server's answers.
    half_closed_up_to: AtomicUsize,
    opened: AtomicUsize,
    /// How long each chunk is held back, in milliseconds.
    latency_ms: AtomicU64,
    /// The rate limit of all connections together. 0 means no limit.
    bytes_per_second: AtomicU64,
    /// The end of the last transfer that the rate limit has scheduled. All connections share it.
    busy_until: Mutex<Option<Instant>>,
    ends: Mutex<Ends>,
}

/// What ends the open connections.
#[derive(Default, Clone)]
struct Ends {
    cut: CancellationToken,
    reset: CancellationToken,
}

impl Proxy {
    /// Starts a proxy in front of the Redis at `url`.
    pub async fn start(url: &str) -> Self {
        Self::to(url.trim_start_matches("redis://").trim_end_matches('/')).await
    }

    /// Starts a proxy in front of the server at `target`, which need not be there yet.
    pub async fn to(target: &str) -> Self {
        let target = target.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), shared: Arc::default() };
        let shared = proxy.shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let number = shared.opened.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(connection(client, server, number, shared.clone()));
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

    /// Ends the server's side of the open connections, each when it would answer next. The client can still send.
    pub fn half_close(&self) {
        self.shared.half_closed_up_to.store(self.opened(), Ordering::SeqCst);
    }

    /// Holds back everything for this long. Zero removes the delay.
    pub fn delay(&self, latency: Duration) {
        self.shared.latency_ms.store(latency.as_millis() as u64, Ordering::SeqCst);
    }

    /// Limits the rate of all connections together. 0 removes the limit.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Closes every connection.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.ends.lock().unwrap()).cut.cancel();
    }

    /// Ends every connection with a reset.
    pub fn reset(&self) {
        std::mem::take(&mut *self.shared.ends.lock().unwrap()).reset.cancel();
    }

    /// The number of connections that were ever opened.
    pub fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }
}

async fn connection(client: TcpStream, server: TcpStream, number: usize, shared: Arc<Shared>) {
    let ends = shared.ends.lock().unwrap().clone();
    let (client_socket, server_socket) = (socket2::SockRef::from(&client), socket2::SockRef::from(&server));
    // A socket that lingers for no time is reset when it is closed.
    let resets = [&client_socket, &server_socket].map(|socket| socket.try_clone().unwrap());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let forwarding = async {
        tokio::join!(
            forward(from_client, to_server, number, false, &shared),
            forward(from_server, to_client, number, true, &shared)
        );
    };
    tokio::select! {
        () = forwarding => {}
        () = ends.cut.cancelled() => {}
        () = ends.reset.cancelled() => resets.iter().for_each(|socket| socket.set_linger(Some(Duration::ZERO)).unwrap()),
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: usize, is_answer: bool, shared: &Shared) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        if number <= shared.frozen_up_to.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if is_answer && number <= shared.half_closed_up_to.load(Ordering::SeqCst) {
            break;
        }
        let latency = shared.latency_ms.load(Ordering::SeqCst);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
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
    // The other direction goes on until it ends itself.
    let _ = to.shutdown().await;
}
