//! Connections that wait for their next request.
//!
//! An HTTP/1 connection serves one request at a time and waits here between two. An HTTP/2 connection stays here while
//! it is used. A connection is not kept for longer than `delivery.idle_timeout`, which is below what servers commonly
//! close idle connections after, and all that wait for an endpoint are dropped as soon as one of its connections fails
//! without a word: most likely they would fail the same way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Http1, Http2, Stream};

/// Requests at once over one HTTP/2 connection: what servers are advised to allow at least (RFC 9113 section 6.5.2).
const STREAMS_MAX: usize = 100;
/// How often what has waited too long is dropped.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// The pool. One for all endpoints.
pub struct Pool {
    origins: Mutex<HashMap<Arc<str>, Origin>>,
    idle_timeout: Duration,
}

#[derive(Default)]
struct Origin {
    /// HTTP/1, the most recently used last.
    idle: Vec<(Http1, Instant)>,
    /// HTTP/2.
    shared: Vec<Arc<Http2>>,
    /// Someone dials what others may share.
    dialling: Option<watch::Receiver<()>>,
    /// Whether it is known to speak HTTP/1 only: then nobody waits for another's connection.
    is_http1: bool,
}

/// What a request gets.
pub enum Taken {
    /// A connection that was used before.
    Idle(Arc<str>, Http1),
    /// A part in one.
    Shared(Arc<str>, Stream),
    /// Nothing: the caller dials. Others wait for as long as the second part isn't dropped.
    Dial(Arc<str>, Option<watch::Sender<()>>),
    /// Someone else dials what may be shared: ask again when that is over.
    Wait(watch::Receiver<()>),
}

/// Which connections a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Any that works.
    Any,
    /// A connection made after this moment: one made before failed.
    MadeAfter(Instant),
}

impl Pool {
    /// An empty one.
    #[must_use]
    pub fn new(idle_timeout: Duration) -> Self {
        Self { origins: Mutex::default(), idle_timeout }
    }

    /// How long a connection is kept for the next request.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<Arc<str>, Origin>> {
        self.origins.lock().expect("nothing panics while it holds the pool")
    }

    /// A connection to `origin`. Where `may_share`, the connection may turn out to be HTTP/2; then one caller dials at
    /// a time, unless the others were told to wait once already (`has_waited`).
    #[must_use]
    pub fn take(&self, origin: &str, wish: Wish, may_share: bool, has_waited: bool) -> Taken {
        let mut origins = self.origins();
        let (key, found) = match origins.get_key_value(origin) {
            Some((key, _)) => (key.clone(), true),
            None => (Arc::from(origin), false),
        };
        if !found {
            origins.insert(key.clone(), Origin::default());
        }
        let origin = origins.get_mut(&key).expect("it was just there");
        let shared = origin.shared.iter().find(|shared| {
            let fits = wish_allows(wish, shared.made());
            fits && !shared.is_closed() && shared.streams() < STREAMS_MAX && shared.idle() < self.idle_timeout
        });
        if let Some(shared) = shared {
            return Taken::Shared(key, shared.join());
        }
        if wish == Wish::Any {
            while let Some((connection, since)) = origin.idle.pop() {
                if connection.is_ready() && since.elapsed() < self.idle_timeout {
                    return Taken::Idle(key, connection);
                }
            }
        }
        if !may_share || origin.is_http1 {
            return Taken::Dial(key, None);
        }
        match &origin.dialling {
            Some(dialling) if !has_waited && dialling.has_changed().is_ok() => Taken::Wait(dialling.clone()),
            _ => {
                let (done, dialling) = watch::channel(());
                origin.dialling = Some(dialling);
                Taken::Dial(key, Some(done))
            }
        }
    }

    /// An HTTP/1 connection is free for the next request.
    pub fn put(&self, origin: &Arc<str>, connection: Http1) {
        let mut origins = self.origins();
        let origin = origins.entry(origin.clone()).or_default();
        origin.idle.push((connection, Instant::now()));
    }

    /// An endpoint turned out to speak HTTP/1.
    pub fn is_http1(&self, origin: &Arc<str>) {
        let mut origins = self.origins();
        let origin = origins.entry(origin.clone()).or_default();
        (origin.is_http1, origin.dialling) = (true, None);
    }

    /// An HTTP/2 connection is there for all.
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

    /// No request begins on this connection any more; those that are under way may end.
    pub fn retire(&self, origin: &Arc<str>, connection: &Arc<Http2>) {
        if let Some(origin) = self.origins().get_mut(origin) {
            origin.shared.retain(|shared| !Arc::ptr_eq(shared, connection));
        }
    }

    /// Drops all connections that wait for `origin`.
    pub fn drop_idle(&self, origin: &Arc<str>) {
        let dropped = self.origins().get_mut(origin).map(|origin| std::mem::take(&mut origin.idle));
        // Outside of the lock.
        drop(dropped);
    }

    /// Drops what has waited for too long, until the pool is gone.
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
    /// Drops what is over; whether anything is left.
    fn keep(&mut self, idle_timeout: Duration) -> bool {
        self.idle.retain(|(connection, since)| connection.is_ready() && since.elapsed() < idle_timeout);
        self.shared.retain(|shared| !shared.is_closed() && shared.idle() < idle_timeout);
        let is_dialled = self.dialling.as_ref().is_some_and(|dialling| dialling.has_changed().is_ok());
        is_dialled || !self.idle.is_empty() || !self.shared.is_empty()
    }
}

fn wish_allows(wish: Wish, made: Instant) -> bool {
    match wish {
        Wish::Any => true,
        Wish::MadeAfter(moment) => made > moment,
    }
}
