//! The networks that aren't public, as one table. Everything else in the global unicast space is public.

use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::{IpNet, Ipv6Net};

/// Networks that are never public: each with its name and its source. They are those of the IANA special-purpose
/// address registries (RFC 6890), multicast, and services that answer every machine of a cloud.
///
/// A test compares the table with IANA's own files (`tests/data`). The table refuses some networks that the registries
/// call globally reachable, because no webhook is there: anycast services of the Internet's infrastructure.
const TABLE: &[(&str, &str, &str)] = &[
    ("0.0.0.0/8", "this network", "RFC 791"),
    ("10.0.0.0/8", "private use", "RFC 1918"),
    ("100.64.0.0/10", "shared address space of carriers", "RFC 6598"),
    ("127.0.0.0/8", "loopback", "RFC 1122"),
    ("168.63.129.16/32", "wire server of Azure, which answers every virtual machine", "Microsoft"),
    ("169.254.0.0/16", "link local, with the metadata services of clouds", "RFC 3927"),
    ("172.16.0.0/12", "private use", "RFC 1918"),
    ("192.0.0.0/24", "IETF protocol assignments", "RFC 6890"),
    ("192.0.2.0/24", "documentation", "RFC 5737"),
    ("192.31.196.0/24", "AS112, answers for private reverse zones", "RFC 7535"),
    ("192.52.193.0/24", "automatic multicast tunneling", "RFC 7450"),
    ("192.88.99.0/24", "6to4 relay anycast", "RFC 7526"),
    ("192.168.0.0/16", "private use", "RFC 1918"),
    ("192.175.48.0/24", "AS112, direct delegation", "RFC 7534"),
    ("198.18.0.0/15", "benchmarking", "RFC 2544"),
    ("198.51.100.0/24", "documentation", "RFC 5737"),
    ("203.0.113.0/24", "documentation", "RFC 5737"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("240.0.0.0/4", "reserved, with the limited broadcast", "RFC 1112"),
    ("2001::/23", "IETF protocol assignments, with Teredo, benchmarking and ORCHID", "RFC 2928"),
    ("2001:db8::/32", "documentation", "RFC 3849"),
    ("2002::/16", "6to4, which embeds an IPv4 address", "RFC 3056"),
    ("2620:4f:8000::/48", "AS112, direct delegation", "RFC 7534"),
    ("3fff::/20", "documentation", "RFC 9637"),
];

/// The only part of the IPv6 space that is allocated to the public (RFC 4291 section 2.4). Outside of it are loopback,
/// link-local, unique-local and multicast addresses, IPv4-compatible ones, and what may be assigned in the future.
const GLOBAL_UNICAST_V6: &str = "2000::/3";

struct Special {
    networks: Vec<IpNet>,
    global_unicast_v6: Ipv6Net,
}

static SPECIAL: LazyLock<Special> = LazyLock::new(|| Special {
    networks: TABLE.iter().map(|(network, ..)| network.parse().expect("a test reads every row of the table")).collect(),
    global_unicast_v6: GLOBAL_UNICAST_V6.parse().expect("a test reads this network"),
});

/// Whether `address` is a public unicast address. Addresses that embed an IPv4 address (NAT64, IPv4-mapped) count as
/// what they are, so the caller translates them first.
pub fn is_public(address: IpAddr) -> bool {
    let special = &*SPECIAL;
    let is_unicast = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => special.global_unicast_v6.contains(&address),
    };
    is_unicast && !special.networks.iter().any(|network| network.contains(&address))
}
