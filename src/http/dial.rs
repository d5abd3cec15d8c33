//! Makes a TCP connection to a host: resolves its name, checks every address, and races the addresses (RFC 8305).

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use url::Host;

use super::failure::SendError;
use super::guard;
use super::names::Names;
use crate::address::AddressPolicy;
use crate::delivery::FailureCode;

/// How long one address is tried before the next is tried beside it (RFC 8305 section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// The shortest time after which the name of an endpoint fails. A forbidden address comes from the cache or from a name
/// server nearby, while an unknown name is asked for far away: without this, the duration would tell them apart.
const NAME_FAILURE_AFTER: Duration = Duration::from_millis(250);
/// The number of TCP keepalive probes within `delivery.silence_max`.
const KEEPALIVE_PROBES: u32 = 3;

/// Makes TCP connections.
pub struct Dialler {
    /// Looks names up.
    pub names: Names,
    /// Decides which addresses may be dialled.
    pub policy: AddressPolicy,
    /// The time that each address has to accept the connection.
    pub connect_timeout: Duration,
    /// The time after which a peer that acknowledges nothing is considered dead.
    pub silence_max: Duration,
}

/// Whether the address policy applies to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// For an endpoint: every address must be allowed.
    Checked,
    /// For the egress proxy: the operator chose it, so any address is allowed.
    Trusted,
}

impl Dialler {
    /// Connects to one of the addresses of `host`. The addresses are resolved once, so the checked address is the one
    /// that is dialled.
    ///
    /// # Errors
    /// [`SendError`] names the failed step and the addresses that were tried.
    pub async fn dial(
        &self,
        host: Host<&str>,
        port: u16,
        guard: Guard,
        deadline: Instant,
    ) -> Result<(TcpStream, SocketAddr), SendError> {
        let addresses: Vec<SocketAddr> = match host {
            Host::Ipv4(address) => vec![(address, port).into()],
            Host::Ipv6(address) => vec![(address, port).into()],
            Host::Domain(name) => {
                let addresses = match guard {
                    Guard::Checked => self.resolve_checked(name, deadline).await?,
                    Guard::Trusted => self.resolve(name, deadline).await?,
                };
                interleave_families(&addresses).map(|address| (address, port).into()).collect()
            }
        };
        if guard == Guard::Checked && !matches!(host, Host::Domain(_)) {
            for address in &addresses {
                let checked = self.policy.check(address.ip());
                checked
                    .map_err(|why| SendError::new(FailureCode::AddressBlocked, format_args!("dialling {host}"), why))?;
            }
        }
        let connected = timeout_at(deadline, race(&addresses, self.connect_timeout)).await;
        let (stream, address) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(failures)) => return Err(SendError::new(FailureCode::Connect, "connecting", failures)),
            Err(_) => return Err(SendError::timeout(format_args!("connecting to {}", join(&addresses)))),
        };
        if let Err(error) = self.set_up(&stream) {
            tracing::debug!(%address, %error, "socket options can't be set");
        }
        Ok((stream, address))
    }

    async fn resolve(&self, name: &str, deadline: Instant) -> Result<std::sync::Arc<[IpAddr]>, SendError> {
        let step = format_args!("resolving {name}").to_string();
        match timeout_at(deadline, self.names.resolve(name)).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(why)) => Err(SendError::new(FailureCode::Dns, step, why)),
            Err(_) => Err(SendError::timeout(step)),
        }
    }

    /// Resolves the name of an endpoint. The failure doesn't say whether the name has a forbidden address or none.
    async fn resolve_checked(&self, name: &str, deadline: Instant) -> Result<std::sync::Arc<[IpAddr]>, SendError> {
        let fails_at = (Instant::now() + NAME_FAILURE_AFTER).min(deadline);
        let step = format_args!("resolving {name}").to_string();
        match timeout_at(deadline, guard::resolve(&self.names, &self.policy, name)).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(why)) => {
                sleep_until(fails_at).await;
                Err(SendError::new(why.code(), step, why.shown()))
            }
            Err(_) => Err(SendError::timeout(step)),
        }
    }

    /// Makes the kernel notice a peer that vanished. `TCP_USER_TIMEOUT` bounds the wait for acknowledgements of sent
    /// data, and keepalive probes an idle connection.
    fn set_up(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        let probe = (self.silence_max / KEEPALIVE_PROBES).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new().with_time(probe).with_interval(probe).with_retries(KEEPALIVE_PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.silence_max))?;
        Ok(())
    }
}

/// Alternates between the address families, IPv6 first (RFC 8305 section 4).
fn interleave_families(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|address| address.is_ipv6());
    let longer = six.len().max(four.len());
    (0..longer).flat_map(move |at| [six.get(at).copied(), four.get(at).copied()]).flatten()
}

/// Connects to the first address that accepts. Each address has `timeout_each`; the next one starts when one fails or
/// takes longer than [`NEXT_ADDRESS_AFTER`]. The error lists why each address failed.
async fn race(addresses: &[SocketAddr], timeout_each: Duration) -> Result<(TcpStream, SocketAddr), String> {
    let mut waiting = addresses.iter().copied();
    let mut racing = FuturesUnordered::new();
    let mut failures = String::new();
    loop {
        if let Some(address) = waiting.next() {
            racing.push(async move { (address, timeout(timeout_each, TcpStream::connect(address)).await) });
        } else if racing.is_empty() {
            return Err(failures);
        }
        let ended = tokio::select! {
            Some(ended) = racing.next() => ended,
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => continue,
        };
        let separator = if failures.is_empty() { "" } else { "; " };
        let _ = match ended {
            (address, Ok(Ok(stream))) => return Ok((stream, address)),
            (address, Ok(Err(error))) => write!(failures, "{separator}{address}: {error}"),
            (address, Err(_)) => write!(failures, "{separator}{address}: no answer within {timeout_each:?}"),
        };
    }
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_alternate_between_families_and_begin_with_ipv6() {
        let addresses: Vec<IpAddr> =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1"].iter().map(|a| a.parse().unwrap()).collect();
        let order: Vec<String> = interleave_families(&addresses).map(|address| address.to_string()).collect();
        assert_eq!(order, ["::1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    #[tokio::test]
    async fn the_next_address_is_tried_after_a_refusal_and_all_refusals_are_listed() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accepting = listener.local_addr().unwrap();
        let (_, address) = race(&[refusing, accepting], Duration::from_secs(5)).await.unwrap();
        assert_eq!(address, accepting);
        let failures = race(&[refusing, refusing], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(failures.matches("refused").count(), 2, "{failures}");
    }
}
