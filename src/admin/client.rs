//! Which client a request comes from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The header in which a proxy names the client.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client of a request. It is an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address of the client, as far as it can be trusted.
    pub address: IpAddr,
}

impl Client {
    /// The client of a request that came over a connection from `peer`.
    ///
    /// A client may write anything into `X-Forwarded-For`, and each proxy appends the address that it sees. So the list
    /// is read from its end, for as long as the addresses are of proxies that are trusted.
    pub fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        let mut address = peer.ip().to_canonical();
        let values = headers.get_all(FORWARDED_FOR).iter();
        let listed: Vec<&str> =
            values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).collect();
        for text in listed.into_iter().rev() {
            if !is_trusted(&address) {
                break;
            }
            let Some(before) = parse(text.trim()) else { break };
            address = before;
        }
        Self { address }
    }

    /// The client as limits count it. One customer of an IPv6 provider has at least a /64.
    pub fn network(&self) -> IpAddr {
        network(self.address)
    }
}

/// An address, or the first address of its /64 for IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

/// An address with or without a port. An IPv6 address may be in brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        Client::of(peer.parse().unwrap(), &headers, &trusted).address.to_string()
    }

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        assert_eq!(client("192.0.2.1:5", &["198.51.100.1"]), "192.0.2.1", "anybody can send the header");
        assert_eq!(client("10.0.0.1:5", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1:5", &["1.1.1.1, 198.51.100.1"]), "198.51.100.1", "the client made up the first");
        assert_eq!(client("10.0.0.1:5", &["1.1.1.1", "198.51.100.1, 10.0.0.2"]), "198.51.100.1", "two proxies");
        assert_eq!(client("[fd00::1]:5", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("[::ffff:10.0.0.1]:5", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1:5", &["nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1:5", &[]), "10.0.0.1");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_client() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:0:1:2:3:4:5"), "2001:db8:0:1::");
        assert_eq!([network("192.0.2.7"), network("::ffff:192.0.2.7")], ["192.0.2.7", "192.0.2.7"]);
    }
}
