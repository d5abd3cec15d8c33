//! Which addresses requests may dial.
//!
//! The dialler (`http/dial.rs`) checks the addresses that the resolver returned and dials those same addresses. DNS
//! rebinding can't swap an address between the check and the connection. A host that is an IP address is checked the
//! same way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// The URLs and addresses that may be dialled, from `delivery.allow_http` and `delivery.allow_networks`.
#[derive(Debug, Clone)]
pub struct AddressPolicy {
    /// Whether `http://` is allowed as well as `https://`.
    pub allow_http: bool,
    /// Networks that are allowed even though they aren't public.
    pub allow_networks: Vec<IpNet>,
}

/// The reason why an address or URL may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// The scheme isn't https, and it isn't http with `delivery.allow_http`.
    #[error("the scheme {0}: is not allowed; use https:// (or http:// if delivery.allow_http is true)")]
    Scheme(String),
    /// The URL has no host.
    #[error("has no host; use a URL such as https://example.com/hooks")]
    NoHost,
    /// The URL has credentials. They are refused because URLs are logged and shown.
    #[error("must not contain a user name or password")]
    Credentials,
    /// The address isn't public, and `delivery.allow_networks` doesn't contain it.
    #[error("the address {0} is not public; it is allowed only if delivery.allow_networks contains it")]
    Address(IpAddr),
}

impl AddressPolicy {
    /// Checks `url` without resolving its host: the scheme, the credentials, and the host if it is an IP address.
    ///
    /// # Errors
    /// [`Blocked`] names the problem and what is allowed instead.
    pub fn check_url(&self, url: &Url) -> Result<(), Blocked> {
        if url.scheme() != "https" && !(self.allow_http && url.scheme() == "http") {
            return Err(Blocked::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Blocked::Credentials);
        }
        match url.host() {
            None => Err(Blocked::NoHost),
            Some(Host::Domain(_)) => Ok(()),
            Some(Host::Ipv4(address)) => self.check(address.into()),
            Some(Host::Ipv6(address)) => self.check(address.into()),
        }
    }

    /// Checks whether `address` may be dialled. An IPv4-mapped IPv6 address counts as its IPv4 address.
    ///
    /// # Errors
    /// Returns [`Blocked::Address`] if the address may not be dialled.
    pub fn check(&self, address: IpAddr) -> Result<(), Blocked> {
        let address = address.to_canonical();
        if self.allow_networks.iter().any(|network| network.contains(&address)) || is_public(address) {
            return Ok(());
        }
        Err(Blocked::Address(address))
    }
}

/// Whether the IANA special-purpose address registries (RFC 6890) list the address as globally reachable. Multicast
/// doesn't count as public.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Global unicast is 2000::/3. Excluded from it are Teredo and ORCHID (2001::/23), documentation (2001:db8::/32,
    // 3fff::/20) and 6to4 (2002::/16), which embeds an IPv4 address.
    (segments[0] & 0xe000) == 0x2000
        && !(segments[0] == 0x2001 && segments[1] < 0x0200)
        && !(segments[0] == 0x2001 && segments[1] == 0x0db8)
        && segments[0] != 0x2002
        && !(segments[0] == 0x3fff && segments[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(networks: &[&str]) -> AddressPolicy {
        AddressPolicy { allow_http: false, allow_networks: networks.iter().map(|n| n.parse().unwrap()).collect() }
    }

    #[test]
    fn only_public_addresses_may_be_dialled() {
        for blocked in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "192.168.0.1",
            "172.16.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "224.0.0.1",
        ] {
            assert!(policy(&[]).check(blocked.parse().unwrap()).is_err(), "{blocked}");
        }
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "172.32.0.1"] {
            assert!(policy(&[]).check(public.parse().unwrap()).is_ok(), "{public}");
        }
    }

    #[test]
    fn a_private_network_is_allowed_only_when_it_is_listed() {
        let policy = policy(&["127.0.0.0/8"]);
        assert!(policy.check("127.0.0.1".parse().unwrap()).is_ok());
        assert!(policy.check("::ffff:127.0.0.1".parse().unwrap()).is_ok());
        assert!(policy.check("10.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn a_url_must_be_https_without_credentials_and_with_an_allowed_host() {
        let check = |url: &str| policy(&[]).check_url(&url.parse().unwrap());
        assert_eq!(check("https://example.com/hook"), Ok(()));
        assert!(matches!(check("http://example.com/"), Err(Blocked::Scheme(_))));
        assert!(matches!(check("https://[::1]/"), Err(Blocked::Address(_))));
        assert!(matches!(check("https://2130706433/"), Err(Blocked::Address(_))));
        assert_eq!(check("https://me:pw@example.com/"), Err(Blocked::Credentials));
    }
}
