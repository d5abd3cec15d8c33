//! The connection pool: connections that are kept for the next request.
//!
//! An HTTP/1 connection serves one request at a time and is in the pool only between two requests. An HTTP/2 connection
//! is shared and stays in the pool while it is used.
//!
//! An idle connection is kept for at most `delivery.idle_timeout`, which is shorter than the time after which servers
//! commonly close one. When a connection of an endpoint breaks, or gets no answer in time, the endpoint's idle HTTP/1
//! connections are dropped as well, because they would most likely fail the same way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Http1, Http2, Stream};

/// The most concurrent requests on one HTTP/2 connection. RFC 9113 section 6.5.2 advises servers to allow at least this
/// many. An endpoint that allows fewer gets more connections.
const STREAMS_MAX: usize = 100;
/// How often expired connections are dropped.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// The connections to all endpoints.
pub struct Pool {
    /// By origin: scheme, host and port.
    origins: Mutex<HashMap<Arc<str>, Origin>>,
    idle_timeout: Duration,
}

#[derive(Default)]
struct Origin {
    /// Idle HTTP/1 connections and the time when each became idle. The most recently used one is last.
    idle: Vec<(Http1, Instant)>,
    /// HTTP/2 connections, idle or in use.
    shared: Vec<Arc<Http2>>,
    /// Set while a caller dials a connection that others may share. The channel closes when that caller is done.
    dialling: Option<watch::Receiver<()>>,
    /// Whether the origin is known to speak HTTP/1 only. Callers then don't wait for each other's connections.
    is_http1: bool,
}

/// The result of [`Pool::checkout`]. The `Arc<str>` is the origin.
pub enum Checkout {
    /// An idle HTTP/1 connection.
    Idle(Arc<str>, Http1),
    /// A stream on a shared HTTP/2 connection.
    Shared(Arc<str>, Stream),
    /// The pool has no connection, and the caller dials one. If there is a sender, other callers wait until it drops.
    Dial(Arc<str>, Option<watch::Sender<()>>),
    /// Another caller is dialling a connection that may be shared. When the channel closes, ask again.
    Wait(watch::Receiver<()>),
}

/// Which connections a request accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Any working connection.
    Any,
    /// Only a connection that was made after this moment, because an older one failed.
    MadeAfter(Instant),
}

impl Pool {
    /// Creates an empty pool.
    #[must_use]
    pub fn new(idle_timeout: Duration) -> Self {
        Self { origins: Mutex::default(), idle_timeout }
    }

    /// How long an idle connection is kept.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<Arc<str>, Origin>> {
        self.origins.lock().expect("no code panics while it holds this lock")
    }

    /// Hands out a connection to `origin`, or says that the caller has to dial or to wait.
    ///
    /// `may_share` says that a new connection may turn out to be HTTP/2. Only one caller then dials at a time and the
    /// others wait for its connection. A caller that has waited once (`has_waited`) dials without waiting again.
    #[must_use]
    pub fn checkout(&self, origin: &str, freshness: Freshness, may_share: bool, has_waited: bool) -> Checkout {
        let mut origins = self.origins();
        let (key, found) = match origins.get_key_value(origin) {
            Some((key, _)) => (key.clone(), true),
            None => (Arc::from(origin), false),
        };
        if !found {
            origins.insert(key.clone(), Origin::default());
        }
        let origin = origins.get_mut(&key).expect("the origin was found or inserted above");
        let shared = origin.shared.iter().find(|shared| {
            let is_fresh = freshness.accepts(shared.made());
            is_fresh && !shared.is_closed() && shared.has_room(STREAMS_MAX) && shared.idle() < self.idle_timeout
        });
        if let Some(shared) = shared {
            return Checkout::Shared(key, shared.join());
        }
        if freshness == Freshness::Any {
            while let Some((connection, since)) = origin.idle.pop() {
                if connection.is_ready() && since.elapsed() < self.idle_timeout {
                    return Checkout::Idle(key, connection);
                }
            }
        }
        if !may_share || origin.is_http1 {
            return Checkout::Dial(key, None);
        }
        match &origin.dialling {
            Some(dialling) if !has_waited && dialling.has_changed().is_ok() => Checkout::Wait(dialling.clone()),
            _ => {
                let (done, dialling) = watch::channel(());
                origin.dialling = Some(dialling);
                Checkout::Dial(key, Some(done))
            }
        }
    }

    /// Returns an HTTP/1 connection that is ready for the next request.
    pub fn put(&self, origin: &Arc<str>, connection: Http1) {
        let mut origins = self.origins();
        let origin = origins.entry(origin.clone()).or_default();
        origin.idle.push((connection, Instant::now()));
    }

    /// Remembers that `origin` speaks HTTP/1, so that callers stop waiting for a shared connection.
    pub fn mark_http1(&self, origin: &Arc<str>) {
        let mut origins = self.origins();
        let origin = origins.entry(origin.clone()).or_default();
        (origin.is_http1, origin.dialling) = (true, None);
    }

    /// Adds a new HTTP/2 connection for all callers and returns a stream on it.
    #[must_use]
    pub fn share(&self, origin: &Arc<str>, connection: Http2) -> Stream {
        let connection = Arc::new(connection);
        let stream = connection.join();
        let mut origins = self.origins();
        let origin = origins.entry(origin.clone()).or_default();
        origin.shared.push(connection);
        (origin.is_http1, origin.dialling) = (false, None);
        stream
    }

    /// Takes an HTTP/2 connection out of the pool. Requests that are in flight on it may finish; no new one begins.
    pub fn retire(&self, origin: &Arc<str>, connection: &Arc<Http2>) {
        if let Some(origin) = self.origins().get_mut(origin) {
            origin.shared.retain(|shared| !Arc::ptr_eq(shared, connection));
        }
    }

    /// Drops all idle HTTP/1 connections to `origin`.
    pub fn drop_idle(&self, origin: &Arc<str>) {
        let dropped = self.origins().get_mut(origin).map(|origin| std::mem::take(&mut origin.idle));
        // The connections close here, after the lock is released.
        drop(dropped);
    }

    /// Drops expired connections at intervals. The future ends after the last handle to the pool is dropped.
    pub fn sweep(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let pool: Weak<Self> = Arc::downgrade(self);
        async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.origins().retain(|_, origin| origin.keep(pool.idle_timeout));
            }
        }
    }
}

impl Origin {
    /// Drops expired and closed connections. Returns whether the origin is still needed.
    fn keep(&mut self, idle_timeout: Duration) -> bool {
        self.idle.retain(|(connection, since)| connection.is_ready() && since.elapsed() < idle_timeout);
        self.shared.retain(|shared| !shared.is_closed() && shared.idle() < idle_timeout);
        let is_dialled = self.dialling.as_ref().is_some_and(|dialling| dialling.has_changed().is_ok());
        is_dialled || !self.idle.is_empty() || !self.shared.is_empty()
    }
}

impl Freshness {
    fn accepts(self, made: Instant) -> bool {
        match self {
            Self::Any => true,
            Self::MadeAfter(moment) => made > moment,
        }
    }
}
