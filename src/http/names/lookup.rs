//! One lookup of a name. It asks the sources in turn until one knows the name.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{Either, select};
use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::Unresolved;
use super::sources::{Sources, System};

/// How much longer the lookup waits for the second address family after the first has answered. RFC 8305 section 3
/// waits 50 ms; a longer wait makes it likely that the address policy sees all addresses of a name.
const SECOND_FAMILY_WAIT: Duration = Duration::from_millis(300);
/// The time to live of addresses whose source gives none.
const DEFAULT_TTL: Duration = Duration::from_secs(5);

/// Addresses and their time to live.
pub type Addresses = (Vec<IpAddr>, Duration);

/// The lookup of one name.
pub struct Lookup<'a> {
    sources: &'a Sources,
    host: &'a str,
}

impl<'a> Lookup<'a> {
    /// Prepares a lookup of `host`.
    pub fn new(sources: &'a Sources, host: &'a str) -> Self {
        Self { sources, host }
    }

    /// Asks the sources one after the other: the hosts file, the name servers, then `getaddrinfo` where it may know
    /// more.
    pub async fn run(self) -> Result<Addresses, Unresolved> {
        let system = self.sources.current();
        let Ok(name) = Name::from_ascii(self.host) else { return self.ask_system(Unresolved::Unknown).await };
        if let Some(addresses) = find_in_hosts(&system, &name) {
            return Ok((addresses, DEFAULT_TTL));
        }
        let Some(dns) = &system.dns else { return self.ask_system(Unresolved::NoAnswer).await };
        match ask_dns(dns, &name).await {
            Ok(addresses) => Ok(addresses),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) if system.has_other_sources => {
                self.ask_system(Unresolved::Unknown).await
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Err(Unresolved::Unknown),
            Err(NetError::Timeout) => Err(Unresolved::NoAnswer),
            // No name server can be reached. `getaddrinfo` notices that at once as well, so calling it costs little.
            Err(error @ (NetError::Io(_) | NetError::NoConnections)) => {
                self.ask_system(Unresolved::Failed(error.to_string())).await
            }
            Err(error) => Err(Unresolved::Failed(error.to_string())),
        }
    }

    /// Calls `getaddrinfo`. If that finds no address, the result is `fallback`.
    async fn ask_system(self, fallback: Unresolved) -> Result<Addresses, Unresolved> {
        let Some(permits) = &self.sources.system_permits else { return Err(fallback) };
        let permit = permits.clone().acquire_owned().await.map_err(|_| Unresolved::NoAnswer)?;
        let host = self.host.to_owned();
        // A separate task holds the permit, because the blocked thread goes on after this lookup is cancelled.
        // Releasing the permit on cancellation would let more threads block than there are permits.
        let call = tokio::spawn(async move {
            let _permit = permit;
            tokio::net::lookup_host((host, 0)).await.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
        });
        match call.await {
            Ok(Ok(found)) if !found.is_empty() => Ok((distinct(found), DEFAULT_TTL)),
            _ => Err(fallback),
        }
    }
}

/// Finds the addresses of `name` in `/etc/hosts`. If the file has addresses of one family only, DNS isn't asked for the
/// other.
fn find_in_hosts(system: &System, name: &Name) -> Option<Vec<IpAddr>> {
    let records = |family| system.hosts.lookup_static_host(&Query::query(name.clone(), family));
    let found: Vec<IpAddr> = [RecordType::AAAA, RecordType::A]
        .into_iter()
        .filter_map(records)
        .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect();
    (!found.is_empty()).then(|| distinct(found))
}

/// Asks the name servers for both address families at once.
async fn ask_dns(dns: &TokioResolver, name: &Name) -> Result<Addresses, NetError> {
    let query = |family| {
        Box::pin(async move {
            let lookup = dns.lookup(name.clone(), family).await?;
            let found: Vec<IpAddr> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            let ttl = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
            Ok::<_, NetError>((found, ttl))
        })
    };
    let (first, other) = match select(query(RecordType::A), query(RecordType::AAAA)).await {
        Either::Left((first, other)) | Either::Right((first, other)) => (first, other),
    };
    // While there is no address yet, the second family gets all of the remaining time.
    let has_addresses = first.as_ref().is_ok_and(|(found, _)| !found.is_empty());
    let second = match has_addresses {
        true => tokio::time::timeout(SECOND_FAMILY_WAIT, other).await.ok(),
        false => Some(other.await),
    };
    match (first, second) {
        (Ok((mut addresses, first_ttl)), Some(Ok((others, second_ttl)))) => {
            let ttl = if others.is_empty() { first_ttl } else { first_ttl.min(second_ttl) };
            addresses.extend(others);
            if addresses.is_empty() { Err(no_records(name)) } else { Ok((distinct(addresses), ttl)) }
        }
        (Ok((found, ttl)), _) | (Err(_), Some(Ok((found, ttl)))) if !found.is_empty() => Ok((distinct(found), ttl)),
        (Err(error), Some(Ok(_)) | None) | (Ok(_), Some(Err(error))) => Err(error),
        // The name has no address only if both families say so. Any other error takes precedence.
        (Err(NetError::Dns(DnsError::NoRecordsFound(_))), Some(Err(error))) | (Err(error), Some(Err(_))) => Err(error),
        (Ok(_), _) => Err(no_records(name)),
    }
}

fn no_records(name: &Name) -> NetError {
    let query = Query::query(name.clone(), RecordType::A);
    let code = hickory_resolver::proto::op::ResponseCode::NoError;
    DnsError::NoRecordsFound(hickory_resolver::net::NoRecords::new(query, code)).into()
}

/// Removes duplicates and keeps the order.
fn distinct(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut distinct = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct
}
