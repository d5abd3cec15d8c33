//! From a host to a TCP connection: resolved, judged, and tried address by address (RFC 8305).

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use url::Host;

use super::address::AddressPolicy;
use super::failure::SendError;
use super::names::Names;
use crate::delivery::FailureCode;

/// How long one address is tried before the next is tried beside it (RFC 8305 section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Probes of TCP keepalive within `delivery.silence_max`.
const KEEPALIVE_PROBES: u32 = 3;

/// Makes TCP connections.
pub struct Dialler {
    /// Looks names up.
    pub names: Names,
    /// Which addresses may be dialled.
    pub policy: AddressPolicy,
    /// One address may take this long.
    pub connect_timeout: Duration,
    /// A peer that acknowledges nothing for this long is taken for dead.
    pub silence_max: Duration,
}

/// Whether the address guard judges what is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// An endpoint: every address must be allowed.
    Judged,
    /// The egress proxy, which the operator chose.
    Trusted,
}

impl Dialler {
    /// Connects to one of the addresses of `host`, the one that is checked being the one that is dialled.
    ///
    /// # Errors
    /// [`SendError`] names the step, and the addresses that were tried.
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
                let addresses = self.resolve(name, deadline).await?;
                in_turn(&addresses).map(|address| (address, port).into()).collect()
            }
        };
        if guard == Guard::Judged {
            // One forbidden address is enough: a name that answers with both is rebinding.
            for address in &addresses {
                let judged = self.policy.check(address.ip());
                judged
                    .map_err(|why| SendError::new(FailureCode::AddressBlocked, format_args!("dialling {host}"), why))?;
            }
        }
        let connected = timeout_at(deadline, race(&addresses, self.connect_timeout)).await;
        let (stream, address) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(tried)) => return Err(SendError::new(FailureCode::Connect, "connecting", tried)),
            Err(_) => return Err(SendError::timeout(format_args!("connecting to {}", listed(&addresses)))),
        };
        if let Err(error) = self.set_up(&stream) {
            tracing::debug!(%address, %error, "a socket can't be set up as it should");
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

    /// A peer that is gone without a word is noticed by the kernel: what is sent to it must be acknowledged, and what
    /// is waited for is probed.
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

/// The families by turns, IPv6 first (RFC 8305 section 4).
fn in_turn(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|address| address.is_ipv6());
    let longer = six.len().max(four.len());
    (0..longer).flat_map(move |at| [six.get(at).copied(), four.get(at).copied()]).flatten()
}

/// The first address that connects. Each has its own time; the next starts when one fails or takes long.
async fn race(addresses: &[SocketAddr], each: Duration) -> Result<(TcpStream, SocketAddr), String> {
    let mut waiting = addresses.iter().copied();
    let mut racing = FuturesUnordered::new();
    let mut tried = String::new();
    loop {
        if let Some(address) = waiting.next() {
            racing.push(async move { (address, timeout(each, TcpStream::connect(address)).await) });
        } else if racing.is_empty() {
            return Err(tried);
        }
        let ended = tokio::select! {
            Some(ended) = racing.next() => ended,
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => continue,
        };
        let separator = if tried.is_empty() { "" } else { "; " };
        let _ = match ended {
            (address, Ok(Ok(stream))) => return Ok((stream, address)),
            (address, Ok(Err(error))) => write!(tried, "{separator}{address}: {error}"),
            (address, Err(_)) => write!(tried, "{separator}{address}: no answer within {each:?}"),
        };
    }
}

/// For a sentence.
fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses: Vec<IpAddr> =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1"].iter().map(|a| a.parse().unwrap()).collect();
        let order: Vec<String> = in_turn(&addresses).map(|address| address.to_string()).collect();
        assert_eq!(order, ["::1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_no_time_and_all_are_named_when_none_answers() {
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = dead.local_addr().unwrap();
        drop(dead);
        let live = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = live.local_addr().unwrap();
        let (_, address) = race(&[refusing, good], Duration::from_secs(5)).await.unwrap();
        assert_eq!(address, good);
        let tried = race(&[refusing, refusing], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(tried.matches("refused").count(), 2, "{tried}");
    }
}
