//! Names and their addresses: asked for without threads, shared by all who ask, known for seconds.
//!
//! The system's `getaddrinfo` blocks a thread for as long as dead name servers let it wait, and can't be cancelled.
//! So names are looked up here: in `/etc/hosts` first, then by asking the name servers of `/etc/resolv.conf`. A lookup
//! is cancelled when the last attempt that waits for it is. Names that neither knows go to `getaddrinfo`, a few at a
//! time, where the system has further sources (`/etc/nsswitch.conf`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use lookup::Lookup;
use sources::Sources;

mod lookup;
mod sources;

/// Names that are remembered at most; beyond that, those that are over go.
const NAMES_MAX: usize = 4_096;
/// How long it is remembered that a name has no address.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// Addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 64;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The name servers say that there is none.
    #[error("no address is known for this name")]
    Unknown,
    /// Nobody answered in time.
    #[error("the name servers don't answer")]
    Silent,
    /// The lookup failed.
    #[error("the name can't be looked up: {0}")]
    Failed(String),
}

/// A name's addresses, and until when they may be used.
#[derive(Debug, Clone)]
struct Found {
    addresses: Result<Arc<[IpAddr]>, Unresolved>,
    until: Instant,
}

type Asking = Shared<BoxFuture<'static, Found>>;

enum Entry {
    Known(Found),
    /// Somebody asks; the last one who waits keeps it going.
    Asking(WeakShared<BoxFuture<'static, Found>>),
}

/// Looks names up. A clone is another handle to the same.
#[derive(Clone)]
pub struct Names(Arc<Inner>);

struct Inner {
    sources: Sources,
    limits: Limits,
    entries: Mutex<HashMap<Box<str>, Entry>>,
}

/// How long lookups take and count.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One lookup may take this long (`delivery.resolve_timeout`).
    pub timeout: Duration,
    /// Addresses are used this long at most (`delivery.resolve_cache_max`).
    pub cache_max: Duration,
}

impl Names {
    /// As the system is configured.
    #[must_use]
    pub fn system(limits: Limits) -> Self {
        Self::of(Sources::system(limits), limits)
    }

    /// From a name server of the caller's choice, without the system's sources.
    #[must_use]
    pub fn asking(server: std::net::SocketAddr, limits: Limits) -> Self {
        Self::of(Sources::server(server, limits), limits)
    }

    fn of(sources: Sources, limits: Limits) -> Self {
        Self(Arc::new(Inner { sources, limits, entries: Mutex::default() }))
    }

    /// The addresses of `host`: at least one.
    ///
    /// # Errors
    /// [`Unresolved`] says why there is none.
    pub async fn resolve(&self, host: &str) -> Result<Arc<[IpAddr]>, Unresolved> {
        let asking = match self.known_or_asking(host) {
            Ok(found) => return found.addresses,
            Err(asking) => asking,
        };
        asking.await.addresses
    }

    /// What is known, or a lookup to wait for: the one under way or a new one.
    fn known_or_asking(&self, host: &str) -> Result<Found, Asking> {
        let mut entries = self.0.entries();
        match entries.get(host) {
            Some(Entry::Known(found)) if found.until > Instant::now() => return Ok(found.clone()),
            Some(Entry::Asking(asking)) => {
                if let Some(asking) = asking.upgrade() {
                    return Err(asking);
                }
            }
            _ => {}
        }
        if entries.len() >= NAMES_MAX {
            forget(&mut entries);
        }
        let asking = self.clone().ask(Box::from(host)).boxed().shared();
        if let Some(weak) = asking.downgrade() {
            entries.insert(Box::from(host), Entry::Asking(weak));
        }
        Err(asking)
    }

    async fn ask(self, host: Box<str>) -> Found {
        let Limits { timeout, cache_max } = self.0.limits;
        let looked_up = tokio::time::timeout(timeout, Lookup::new(&self.0.sources, &host).run()).await;
        let now = Instant::now();
        let found = match looked_up.unwrap_or(Err(Unresolved::Silent)) {
            Ok((mut addresses, lifetime)) => {
                addresses.truncate(ADDRESSES_MAX);
                let lifetime = lifetime.clamp(FAILED_FOR.min(cache_max), cache_max);
                Found { addresses: Ok(addresses.into()), until: now + lifetime }
            }
            Err(why) => Found { addresses: Err(why), until: now + FAILED_FOR },
        };
        self.0.entries().insert(host, Entry::Known(found.clone()));
        found
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, HashMap<Box<str>, Entry>> {
        self.entries.lock().expect("nothing panics while it holds the names")
    }
}

/// Makes room: what is over goes; where nothing is, everything that is known.
fn forget(entries: &mut HashMap<Box<str>, Entry>) {
    let now = Instant::now();
    entries.retain(|_, entry| match entry {
        Entry::Known(found) => found.until > now,
        Entry::Asking(asking) => asking.upgrade().is_some(),
    });
    if entries.len() >= NAMES_MAX {
        entries.retain(|_, entry| matches!(entry, Entry::Asking(_)));
    }
}
