//! Which addresses and ports requests may dial.
//!
//! The dialler (`http/dial.rs`) checks the addresses that the resolver returned and dials those same addresses. DNS
//! rebinding can't swap an address between the check and the connection. A host that is an IP address is checked the
//! same way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

pub use embedded::Nat64Prefix;
pub use ports::PortRange;

mod embedded;
mod ports;
mod special;

/// The URLs and addresses that may be dialled, from the settings `delivery.allow_…`, `delivery.deny_networks` and
/// `delivery.nat64_prefixes`.
#[derive(Debug, Clone)]
pub struct AddressPolicy {
    /// Whether `http://` is allowed as well as `https://`.
    pub allow_http: bool,
    /// The ports that are allowed.
    pub allow_ports: Vec<PortRange>,
    /// Networks that are allowed even though they aren't public.
    pub allow_networks: Vec<IpNet>,
    /// Networks that are forbidden even though they are public or allowed.
    pub deny_networks: Vec<IpNet>,
    /// The prefixes of NAT64 translators beside the well-known one.
    pub nat64_prefixes: Vec<Nat64Prefix>,
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
    /// `delivery.allow_ports` doesn't have the port.
    #[error("the port {port} is not allowed; delivery.allow_ports allows {allowed}")]
    Port {
        /// The port of the URL.
        port: u16,
        /// The ports that are allowed.
        allowed: String,
    },
    /// The port is 80, but the scheme isn't http.
    #[error("the port 80 is allowed only for http://")]
    HttpPort,
    /// The address isn't public, and `delivery.allow_networks` doesn't contain it.
    #[error("the address {0} is not public; it is allowed only if delivery.allow_networks contains it")]
    Address(IpAddr),
    /// `delivery.deny_networks` contains the address, or the IPv4 address inside it.
    #[error("the address {0} is forbidden: delivery.deny_networks contains it")]
    Denied(IpAddr),
}

impl AddressPolicy {
    /// Checks `url` without resolving its host: the scheme, the credentials, the port, and the host if it is an IP
    /// address.
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
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return Err(Blocked::NoHost) };
        if !self.allow_ports.iter().any(|range| range.contains(port)) {
            let allowed: Vec<String> = self.allow_ports.iter().map(PortRange::to_string).collect();
            return Err(Blocked::Port { port, allowed: allowed.join(", ") });
        }
        if port == ports::HTTP && url.scheme() != "http" {
            return Err(Blocked::HttpPort);
        }
        match host {
            Host::Domain(_) => Ok(()),
            Host::Ipv4(address) => self.check(address.into()),
            Host::Ipv6(address) => self.check(address.into()),
        }
    }

    /// Checks whether `address` may be dialled.
    ///
    /// An IPv4-mapped IPv6 address counts as its IPv4 address. An address behind a NAT64 prefix takes the verdict of
    /// the IPv4 address inside it, because that is where its packets go. `delivery.deny_networks` wins over everything,
    /// in whatever form an address is written.
    ///
    /// # Errors
    /// [`Blocked::Denied`] or [`Blocked::Address`] if the address may not be dialled.
    pub fn check(&self, address: IpAddr) -> Result<(), Blocked> {
        let canonical = address.to_canonical();
        let IpAddr::V6(v6) = address else { return self.verdict(canonical) };
        if embedded::of_transition(v6).any(|inside| self.denies(inside.into())) || self.denies(address) {
            return Err(Blocked::Denied(canonical));
        }
        match self.behind_nat64(v6) {
            None => self.verdict(canonical),
            Some(inside) => inside.into_iter().try_for_each(|inside| {
                inside.map_or(Err(Blocked::Address(canonical)), |inside| self.verdict(inside.into()))
            }),
        }
    }

    fn verdict(&self, address: IpAddr) -> Result<(), Blocked> {
        if self.denies(address) {
            return Err(Blocked::Denied(address));
        }
        if self.allow_networks.iter().any(|network| network.contains(&address)) || special::is_public(address) {
            return Ok(());
        }
        Err(Blocked::Address(address))
    }

    fn denies(&self, address: IpAddr) -> bool {
        self.deny_networks.iter().any(|network| network.contains(&address))
    }

    /// The IPv4 addresses inside `address`, one for each NAT64 prefix that it is behind, or `None` for a prefix with
    /// which it is invalid. Returns `None` if it is behind no prefix.
    fn behind_nat64(&self, address: Ipv6Addr) -> Option<Vec<Option<Ipv4Addr>>> {
        let prefixes = std::iter::once(&Nat64Prefix::WELL_KNOWN).chain(&self.nat64_prefixes);
        let inside: Vec<_> =
            prefixes.filter(|prefix| prefix.contains(address)).map(|prefix| prefix.inside(address)).collect();
        (!inside.is_empty()).then_some(inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(networks: &[&str]) -> AddressPolicy {
        AddressPolicy {
            allow_http: false,
            allow_ports: ports(&["80", "443", "1024-65535"]),
            allow_networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
            deny_networks: vec![],
            nat64_prefixes: vec![],
        }
    }

    fn ports(texts: &[&str]) -> Vec<PortRange> {
        texts.iter().map(|text| serde_json::from_value((*text).into()).unwrap()).collect()
    }

    fn nat64(texts: &[&str]) -> Vec<Nat64Prefix> {
        texts.iter().map(|text| Nat64Prefix::try_from((*text).to_owned()).unwrap()).collect()
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

    #[test]
    fn an_address_behind_nat64_takes_the_verdict_of_the_ipv4_address_inside() {
        let mut policy = policy(&["10.1.0.0/16"]);
        policy.nat64_prefixes = nat64(&["64:ff9b:1::/48", "2001:db8:64::/96"]);
        for allowed in ["64:ff9b::1.1.1.1", "64:ff9b::10.1.2.3", "2001:db8:64::1.1.1.1", "64:ff9b:1:101:1:100::"] {
            assert_eq!(policy.check(allowed.parse().unwrap()), Ok(()), "{allowed}");
        }
        for (blocked, inside) in [
            ("64:ff9b::127.0.0.1", "127.0.0.1"),
            ("64:ff9b::168.63.129.16", "168.63.129.16"),
            ("2001:db8:64::10.2.0.1", "10.2.0.1"),
            ("64:ff9b:1:7f00:0:100::", "127.0.0.1"),
            // Bits 64 to 71 are reserved, so no IPv4 address is inside.
            ("64:ff9b:1:101:101:100::", "64:ff9b:1:101:101:100::"),
        ] {
            let verdict = policy.check(blocked.parse().unwrap());
            assert_eq!(verdict, Err(Blocked::Address(inside.parse().unwrap())), "{blocked}");
        }
        // Without the settings, only the well-known prefix is one.
        policy.nat64_prefixes.clear();
        for blocked in ["2001:db8:64::1.1.1.1", "64:ff9b:1:101:1:100::"] {
            assert!(policy.check(blocked.parse().unwrap()).is_err(), "{blocked}");
        }
    }

    #[test]
    fn deny_wins_over_allow_and_over_public_addresses_in_every_form_of_an_address() {
        let mut policy = policy(&["10.0.0.0/8", "2002::/16", "2001::/32", "::/96"]);
        policy.deny_networks = ["10.5.0.0/16", "1.1.1.0/24", "2606:4700::/32"].map(|n| n.parse().unwrap()).to_vec();
        policy.nat64_prefixes = nat64(&["2001:db8:64::/96"]);
        for denied in [
            "10.5.0.1",
            "::ffff:10.5.0.1",
            "::10.5.0.1",
            "64:ff9b::10.5.0.1",
            "2001:db8:64::10.5.0.1",
            "2002:a05:1::1",
            "2001:0:a05:1::1",
            "2001:0:102:304::f5fa:fffe",
            "1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2606:4700::1111",
        ] {
            let verdict = policy.check(denied.parse().unwrap());
            assert!(matches!(verdict, Err(Blocked::Denied(_))), "{denied}: {verdict:?}");
        }
        for allowed in ["10.6.0.1", "64:ff9b::10.6.0.1", "2002:a06:1::1", "1.1.2.1"] {
            assert_eq!(policy.check(allowed.parse().unwrap()), Ok(()), "{allowed}");
        }
    }

    #[test]
    fn only_allowed_ports_may_be_dialled_and_80_only_without_tls() {
        let mut policy = policy(&[]);
        policy.allow_http = true;
        let check = |url: &str| policy.check_url(&url.parse().unwrap());
        for allowed in ["https://a.example/", "http://a.example/", "https://a.example:1024/", "http://a.example:8080/"]
        {
            assert_eq!(check(allowed), Ok(()), "{allowed}");
        }
        for port in [22, 25, 53, 110, 389, 444, 993, 1_023] {
            let error = check(&format!("https://a.example:{port}/")).unwrap_err().to_string();
            let expected = format!("the port {port} is not allowed; delivery.allow_ports allows 80, 443, 1024-65535");
            assert_eq!(error, expected);
        }
        assert_eq!(check("https://a.example:80/"), Err(Blocked::HttpPort));
        assert!(matches!(check("https://a.example:0/"), Err(Blocked::Port { port: 0, .. })));
    }

    #[test]
    fn every_spelling_of_the_loopback_address_is_blocked() {
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0X7F.0x0.0x0.0x1",
            "017700000001",
            "0177.0.0.1",
            "0177.0.0x0.1",
            "127.000.000.001",
            "127.255.255.254",
            "0",
            "0.0.0.0",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
            "127．0．0．1",
            "[::1]",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:FFFF:7F00:0001]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
        ] {
            for url in [format!("https://{host}/"), format!("https://{host}:8443/"), format!("HTTPS:\\\\{host}\\a")] {
                let parsed: Url = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
                let verdict = policy(&[]).check_url(&parsed);
                assert!(matches!(verdict, Err(Blocked::Address(_))), "{url} is {parsed}: {verdict:?}");
            }
        }
    }
}
