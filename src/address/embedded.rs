//! IPv4 addresses inside IPv6 addresses: NAT64 (RFC 6052), and the older transition mechanisms.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

/// A prefix behind which a NAT64 translator reaches IPv4, as text such as `64:ff9b::/96`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nat64Prefix(Ipv6Net);

/// Why a text isn't a NAT64 prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNat64Prefix {
    /// It isn't an IPv6 network.
    #[error("{0:?} isn't an IPv6 network; write a NAT64 prefix such as \"2001:db8:64::/96\"")]
    NoNetwork(String),
    /// RFC 6052 doesn't know the length.
    #[error("{0} has the length {len}; a NAT64 prefix has the length 32, 40, 48, 56, 64 or 96 (RFC 6052 section 2.2)", len = .0.prefix_len())]
    Length(Ipv6Net),
    /// Bits outside of the prefix, or the reserved ones, are set.
    #[error("{0} has bits that must be zero: those after the prefix, and bits 64 to 71 (RFC 6052 section 2.2)")]
    Bits(Ipv6Net),
}

impl Nat64Prefix {
    /// The prefix that all networks share (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Self = Self(Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96));

    /// Whether `address` is behind this prefix.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        self.0.contains(&address)
    }

    /// The IPv4 address inside `address`, which must be behind this prefix: the 32 bits after the prefix, skipping bits
    /// 64 to 71. `None` if those aren't zero, so that no translator can be expected to understand the address.
    #[must_use]
    pub fn inside(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = address.octets();
        let reserved = 8;
        let start = usize::from(self.0.prefix_len() / 8);
        let mut inside = (start..16).filter(|at| *at != reserved).map(|at| octets[at]);
        let mut next = || inside.next().expect("at least four octets follow every length that is allowed");
        let found = Ipv4Addr::new(next(), next(), next(), next());
        (octets[reserved] == 0).then_some(found)
    }
}

impl TryFrom<String> for Nat64Prefix {
    type Error = BadNat64Prefix;

    fn try_from(text: String) -> Result<Self, BadNat64Prefix> {
        let Ok(network) = text.parse::<Ipv6Net>() else { return Err(BadNat64Prefix::NoNetwork(text)) };
        if ![32, 40, 48, 56, 64, 96].contains(&network.prefix_len()) {
            return Err(BadNat64Prefix::Length(network));
        }
        if network.addr() != network.network() || network.addr().octets()[8] != 0 {
            return Err(BadNat64Prefix::Bits(network));
        }
        Ok(Self(network))
    }
}

impl From<Nat64Prefix> for String {
    fn from(prefix: Nat64Prefix) -> Self {
        prefix.0.to_string()
    }
}

/// The IPv4 addresses that the older transition mechanisms embed in `address`: IPv4-mapped and IPv4-compatible
/// (RFC 4291 section 2.5.5), 6to4 (RFC 3056), and the server and the client of Teredo (RFC 4380 section 4).
pub fn of_transition(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = address.octets();
    let at = |start: usize| Ipv4Addr::new(octets[start], octets[start + 1], octets[start + 2], octets[start + 3]);
    let is_loopback_or_unspecified = address.is_loopback() || address.is_unspecified();
    let (first, second) = match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] if !is_loopback_or_unspecified => (Some(at(12)), None),
        [0x2002, ..] => (Some(at(2)), None),
        [0x2001, 0, ..] => (Some(at(4)), Some(Ipv4Addr::from_bits(!at(12).to_bits()))),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Result<Nat64Prefix, BadNat64Prefix> {
        Nat64Prefix::try_from(text.to_owned())
    }

    #[test]
    fn an_ipv4_address_is_found_behind_a_prefix_of_every_length() {
        // The examples of RFC 6052 section 2.4 for 192.0.2.33.
        for (text, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let address = address.parse().unwrap();
            let prefix = prefix(text).unwrap();
            assert!(prefix.contains(address));
            assert_eq!(prefix.inside(address), Some(Ipv4Addr::new(192, 0, 2, 33)), "{text}");
        }
        let reserved = "2001:db8:122:344:1c0:2:2100::".parse().unwrap();
        assert_eq!(prefix("2001:db8:122:344::/64").unwrap().inside(reserved), None);
        assert_eq!(prefix("64:ff9b::/96").unwrap(), Nat64Prefix::WELL_KNOWN);
    }

    #[test]
    fn a_prefix_that_no_translator_can_have_is_refused_with_what_is_allowed() {
        for (text, words) in [
            ("10.0.0.0/8", "isn't an IPv6 network"),
            ("2001:db8::", "isn't an IPv6 network"),
            ("2001:db8::/33", "32, 40, 48, 56, 64 or 96"),
            ("2001:db8::/128", "has the length 128"),
            ("2001:db8:0:1::/48", "must be zero"),
            ("2001:db8:0:0:100::/96", "bits 64 to 71"),
        ] {
            let error = prefix(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_addresses_inside_older_forms_are_found() {
        let inside =
            |text: &str| of_transition(text.parse().unwrap()).map(|address| address.to_string()).collect::<Vec<_>>();
        assert_eq!(inside("::ffff:10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(inside("::10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(inside("2002:a00:1::5"), ["10.0.0.1"]);
        assert_eq!(inside("2001:0:4136:e378:8000:63bf:f5ff:fffe"), ["65.54.227.120", "10.0.0.1"]);
        for none in ["::1", "::", "2606:4700::1111", "64:ff9b::a00:1"] {
            assert!(inside(none).is_empty(), "{none}");
        }
    }
}
