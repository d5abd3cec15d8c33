//! Asynchronous name resolution with a short cache. Concurrent requests for one name share a lookup.
//!
//! The system's `getaddrinfo` blocks a thread while it waits for dead name servers, and can't be cancelled. So names
//! are looked up here, in `/etc/hosts` first and then at the name servers of `/etc/resolv.conf`. A lookup is cancelled
//! when the last attempt that waits for it is cancelled. If neither source knows a name and `/etc/nsswitch.conf` lists
//! other sources, `getaddrinfo` is called, for a few names at a time.

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

/// The most names in the cache. At this size, expired entries are evicted.
const NAMES_MAX: usize = 4_096;
/// How long a failed lookup is cached. It is also the shortest time for which addresses are cached.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// The most addresses of a name that are used.
const ADDRESSES_MAX: usize = 64;

/// The reason why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No source has an address for the name.
    #[error("no address is known for this name")]
    Unknown,
    /// The name servers answer for other names, but not for this one in time: those of its domain don't answer.
    #[error("the name servers of its domain don't answer")]
    DomainSilent,
    /// No name server answers, whatever the name.
    #[error("the name servers don't answer")]
    NoAnswer,
    /// The lookup failed.
    #[error("the name can't be looked up: {0}")]
    Failed(String),
}

/// The result of a lookup, and the time until which it may be used.
#[derive(Debug, Clone)]
struct Resolved {
    addresses: Result<Arc<[IpAddr]>, Unresolved>,
    valid_until: Instant,
}

type PendingLookup = Shared<BoxFuture<'static, Resolved>>;

enum Entry {
    Resolved(Resolved),
    /// A lookup in progress. The reference is weak, so that the lookup is cancelled when the last waiting caller drops
    /// it.
    Pending(WeakShared<BoxFuture<'static, Resolved>>),
}

/// Resolves names. Clones share one cache.
#[derive(Clone)]
pub struct Names(Arc<Inner>);

struct Inner {
    sources: Sources,
    limits: Limits,
    entries: Mutex<HashMap<Box<str>, Entry>>,
}

/// The time limits of lookups and of the cache.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time that one lookup may take (`delivery.resolve_timeout`).
    pub timeout: Duration,
    /// The longest time for which addresses are cached (`delivery.resolve_cache_max`).
    pub cache_max: Duration,
}

impl Names {
    /// Resolves names as the system is configured.
    #[must_use]
    pub fn system(limits: Limits) -> Self {
        Self::of(Sources::system(limits), limits)
    }

    /// Resolves names through the given name server only, without the system's sources.
    #[must_use]
    pub fn asking(server: std::net::SocketAddr, limits: Limits) -> Self {
        Self::of(Sources::server(server, limits), limits)
    }

    fn of(sources: Sources, limits: Limits) -> Self {
        Self(Arc::new(Inner { sources, limits, entries: Mutex::default() }))
    }

    /// Returns the addresses of `host`, at least one. Cancel safe: other callers that wait for the name go on.
    ///
    /// # Errors
    /// [`Unresolved`] says why there is no address.
    pub async fn resolve(&self, host: &str) -> Result<Arc<[IpAddr]>, Unresolved> {
        let pending = match self.cached_or_pending(host) {
            Ok(resolved) => return resolved.addresses,
            Err(pending) => pending,
        };
        pending.await.addresses
    }

    /// Returns the cached result, or else a lookup to wait for: the one in progress or a new one.
    fn cached_or_pending(&self, host: &str) -> Result<Resolved, PendingLookup> {
        let mut entries = self.0.entries();
        match entries.get(host) {
            Some(Entry::Resolved(resolved)) if resolved.valid_until > Instant::now() => return Ok(resolved.clone()),
            Some(Entry::Pending(pending)) => {
                if let Some(pending) = pending.upgrade() {
                    return Err(pending);
                }
            }
            _ => {}
        }
        if entries.len() >= NAMES_MAX {
            evict(&mut entries);
        }
        let pending = self.clone().look_up(Box::from(host)).boxed().shared();
        if let Some(weak) = pending.downgrade() {
            entries.insert(Box::from(host), Entry::Pending(weak));
        }
        Err(pending)
    }

    async fn look_up(self, host: Box<str>) -> Resolved {
        let Limits { timeout, cache_max } = self.0.limits;
        let result = tokio::time::timeout(timeout, Lookup::new(&self.0.sources, &host).run()).await;
        let result = match result.unwrap_or(Err(Unresolved::NoAnswer)) {
            // It matters whose failure it is: only that of the domain is one of the endpoint.
            Err(why @ (Unresolved::NoAnswer | Unresolved::Failed(_))) => {
                match (self.0.sources.name_servers_answer().await, why) {
                    (false, _) => Err(Unresolved::NoAnswer),
                    (true, Unresolved::NoAnswer) => Err(Unresolved::DomainSilent),
                    (true, why) => Err(why),
                }
            }
            result => result,
        };
        let now = Instant::now();
        let resolved = match result {
            Ok((mut addresses, ttl)) => {
                addresses.truncate(ADDRESSES_MAX);
                let ttl = ttl.clamp(NEGATIVE_TTL.min(cache_max), cache_max);
                Resolved { addresses: Ok(addresses.into()), valid_until: now + ttl }
            }
            Err(why) => Resolved { addresses: Err(why), valid_until: now + NEGATIVE_TTL },
        };
        self.0.entries().insert(host, Entry::Resolved(resolved.clone()));
        resolved
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, HashMap<Box<str>, Entry>> {
        self.entries.lock().expect("no code panics while it holds this lock")
    }
}

/// Makes room in the cache. It evicts the expired entries, or all resolved ones if that isn't enough. Lookups in
/// progress stay.
fn evict(entries: &mut HashMap<Box<str>, Entry>) {
    let now = Instant::now();
    entries.retain(|_, entry| match entry {
        Entry::Resolved(resolved) => resolved.valid_until > now,
        Entry::Pending(pending) => pending.upgrade().is_some(),
    });
    if entries.len() >= NAMES_MAX {
        entries.retain(|_, entry| matches!(entry, Entry::Pending(_)));
    }
}
