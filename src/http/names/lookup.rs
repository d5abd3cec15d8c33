//! One lookup of a name, from the first source that knows it.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{Either, select};
use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::Unresolved;
use super::sources::{Sources, System};

/// Once one family's addresses are there, how much longer the other's are waited for. RFC 8305 (section 3) waits for
/// 50 ms; a little more makes it likely that all of a name's addresses are judged.
const OTHER_FAMILY: Duration = Duration::from_millis(300);
/// How long addresses count that come without a time to live.
const WITHOUT_TTL: Duration = Duration::from_secs(5);

/// Addresses, and how long they count.
pub type Addresses = (Vec<IpAddr>, Duration);

/// A name that is looked up.
pub struct Lookup<'a> {
    sources: &'a Sources,
    host: &'a str,
}

impl<'a> Lookup<'a> {
    /// Of `host`.
    pub fn new(sources: &'a Sources, host: &'a str) -> Self {
        Self { sources, host }
    }

    /// Asks one source after the other.
    pub async fn run(self) -> Result<Addresses, Unresolved> {
        let system = self.sources.current();
        let Ok(name) = Name::from_ascii(self.host) else { return self.ask_system(Unresolved::Unknown).await };
        if let Some(known) = in_hosts(&system, &name) {
            return Ok((known, WITHOUT_TTL));
        }
        let Some(dns) = &system.dns else { return self.ask_system(Unresolved::Silent).await };
        match ask_dns(dns, &name).await {
            Ok(addresses) => Ok(addresses),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) if system.has_further => {
                self.ask_system(Unresolved::Unknown).await
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Err(Unresolved::Unknown),
            Err(NetError::Timeout) => Err(Unresolved::Silent),
            // The name servers can't be reached at all: that is known at once, and so it is to `getaddrinfo`.
            Err(error @ (NetError::Io(_) | NetError::NoConnections)) => {
                self.ask_system(Unresolved::Failed(error.to_string())).await
            }
            Err(error) => Err(Unresolved::Failed(error.to_string())),
        }
    }

    /// `getaddrinfo`. Without an answer of its own, `otherwise` is the answer.
    async fn ask_system(self, otherwise: Unresolved) -> Result<Addresses, Unresolved> {
        let Some(permits) = &self.sources.system_permits else { return Err(otherwise) };
        let permit = permits.clone().acquire_owned().await.map_err(|_| Unresolved::Silent)?;
        let host = self.host.to_owned();
        // In a task of its own: the thread goes on when nobody waits any more, and so long the permit must be held.
        let asked = tokio::spawn(async move {
            let _permit = permit;
            tokio::net::lookup_host((host, 0)).await.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
        });
        match asked.await {
            Ok(Ok(found)) if !found.is_empty() => Ok((distinct(found), WITHOUT_TTL)),
            _ => Err(otherwise),
        }
    }
}

/// As `/etc/hosts` has it. What stands there in one family isn't asked for in the other.
fn in_hosts(system: &System, name: &Name) -> Option<Vec<IpAddr>> {
    let of = |family| system.hosts.lookup_static_host(&Query::query(name.clone(), family));
    let found: Vec<IpAddr> = [RecordType::AAAA, RecordType::A]
        .into_iter()
        .filter_map(of)
        .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect();
    (!found.is_empty()).then(|| distinct(found))
}

/// Both families at once.
async fn ask_dns(dns: &TokioResolver, name: &Name) -> Result<Addresses, NetError> {
    let of = |family| {
        Box::pin(async move {
            let lookup = dns.lookup(name.clone(), family).await?;
            let found: Vec<IpAddr> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            let lifetime = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
            Ok::<_, NetError>((found, lifetime))
        })
    };
    let (first, other) = match select(of(RecordType::A), of(RecordType::AAAA)).await {
        Either::Left((first, other)) | Either::Right((first, other)) => (first, other),
    };
    // Without an address there is nothing to lose by waiting.
    let has_some = first.as_ref().is_ok_and(|(found, _)| !found.is_empty());
    let second = match has_some {
        true => tokio::time::timeout(OTHER_FAMILY, other).await.ok(),
        false => Some(other.await),
    };
    match (first, second) {
        (Ok((mut one, lives)), Some(Ok((two, lives_too)))) => {
            let lifetime = if two.is_empty() { lives } else { lives.min(lives_too) };
            one.extend(two);
            if one.is_empty() { Err(no_records(name)) } else { Ok((distinct(one), lifetime)) }
        }
        (Ok((found, lifetime)), _) | (Err(_), Some(Ok((found, lifetime)))) if !found.is_empty() => {
            Ok((distinct(found), lifetime))
        }
        (Err(error), Some(Ok(_)) | None) | (Ok(_), Some(Err(error))) => Err(error),
        // The name is known to be unknown only if both say so.
        (Err(NetError::Dns(DnsError::NoRecordsFound(_))), Some(Err(error))) | (Err(error), Some(Err(_))) => Err(error),
        (Ok(_), _) => Err(no_records(name)),
    }
}

fn no_records(name: &Name) -> NetError {
    let query = Query::query(name.clone(), RecordType::A);
    let code = hickory_resolver::proto::op::ResponseCode::NoError;
    DnsError::NoRecordsFound(hickory_resolver::net::NoRecords::new(query, code)).into()
}

/// In their order, each once.
fn distinct(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut distinct = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct
}
