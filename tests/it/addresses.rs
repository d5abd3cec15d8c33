//! The address guard against the registries of IANA (`tests/data`), over the whole IPv4 and IPv6 space.
//!
//! The statement here shares no code with the guard: it parses IANA's files, finds the longest prefix with shifts of
//! integers, and names what the guard refuses beyond the registries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use optio_webhooks::address::AddressPolicy;
use optio_webhooks::config::Config;
use optio_webhooks::http::client::policy;
use proptest::prelude::*;

/// Public unicast space according to IANA, in which the guard still allows nothing.
const REFUSED_BEYOND: [(&str, &str); 10] = [
    ("224.0.0.0/4", "multicast has its own registry"),
    ("168.63.129.16/32", "the wire server of a cloud"),
    ("192.0.0.0/24", "anycast of PCP and TURN, which have no webhooks"),
    ("192.31.196.0/24", "anycast of AS112"),
    ("192.52.193.0/24", "anycast of AMT"),
    ("192.175.48.0/24", "anycast of AS112"),
    ("2001::/23", "anycast and identifiers within the protocol assignments"),
    ("2620:4f:8000::/48", "anycast of AS112"),
    ("64:ff9b::/96", "decided by the IPv4 address inside"),
    ("::ffff:0:0/96", "decided by the IPv4 address inside"),
];

/// The part of the IPv6 space that IANA has allocated to the public.
const GLOBAL_UNICAST: &str = "2000::/3";

/// A network as its first address and its length, in 32 or 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    first: u128,
    len: u32,
    width: u32,
}

impl Block {
    fn parse(text: &str) -> Self {
        let (address, len) = text.split_once('/').unwrap();
        let (first, width) = number(address.parse().unwrap());
        Self { first, len: len.parse().unwrap(), width }
    }

    fn contains(self, address: IpAddr) -> bool {
        let (number, width) = number(address);
        let host_bits = self.width - self.len;
        width == self.width && (number ^ self.first).checked_shr(host_bits).unwrap_or(0) == 0
    }

    /// The first and the last address, and the addresses beside them.
    fn edges(self) -> Vec<IpAddr> {
        let host = 1_u128.checked_shl(self.width - self.len).unwrap_or(0).wrapping_sub(1);
        let (first, last) = (self.first, self.first | host);
        let largest = u128::MAX >> (128 - self.width);
        let beside = [first.checked_sub(1), last.checked_add(1).filter(|after| *after <= largest)];
        [first, last]
            .into_iter()
            .chain(beside.into_iter().flatten())
            .map(|number| address(number, self.width))
            .collect()
    }
}

fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn address(number: u128, width: u32) -> IpAddr {
    match width {
        32 => Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

/// The rows of both registries: each network, and whether it is globally reachable.
static REGISTRY: LazyLock<Vec<(Block, bool)>> = LazyLock::new(|| {
    let files = [
        include_str!("../data/iana-ipv4-special-registry-1.csv"),
        include_str!("../data/iana-ipv6-special-registry-1.csv"),
    ];
    files.into_iter().flat_map(|file| csv(file).into_iter().skip(1)).flat_map(|row| rows(&row)).collect()
});

/// The networks of a row. A footnote such as ` [2]` isn't part of the value. A terminated network has no value.
fn rows(row: &[String]) -> Vec<(Block, bool)> {
    assert_eq!(row.len(), 10, "{row:?}");
    let value = |cell: &str| cell.split(" [").next().unwrap().trim().to_owned();
    let is_reachable = match value(&row[8]).as_str() {
        "True" => true,
        "False" | "N/A" | "" => false,
        other => panic!("{other:?} isn't a value of Globally Reachable"),
    };
    row[0].split(", ").map(|block| (Block::parse(&value(block)), is_reachable)).collect()
}

/// The records of a CSV file (RFC 4180).
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut is_quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => record.push(std::mem::take(&mut field)),
            '\n' if !is_quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '\r' => {}
            other => field.push(other),
        }
    }
    records
}

/// Whether the guard must allow `address`.
fn expected(address: IpAddr) -> bool {
    if let IpAddr::V6(v6) = address {
        // Both prefixes end with the IPv4 address that packets really go to.
        if ["64:ff9b::/96", "::ffff:0:0/96"].iter().any(|inside| Block::parse(inside).contains(address)) {
            return expected(Ipv4Addr::from_bits(v6.to_bits() as u32).into());
        }
        if !Block::parse(GLOBAL_UNICAST).contains(address) {
            return false;
        }
    }
    let longest = REGISTRY.iter().filter(|(block, _)| block.contains(address)).max_by_key(|(block, _)| block.len);
    let is_reachable = longest.is_none_or(|(_, is_reachable)| *is_reachable);
    is_reachable && !REFUSED_BEYOND.iter().any(|(block, _)| Block::parse(block).contains(address))
}

fn guard() -> AddressPolicy {
    policy(&Config::built_in().delivery)
}

#[test]
fn the_edges_of_every_network_of_the_registries_get_the_verdict_of_the_registries() {
    assert!(REGISTRY.len() > 50, "both files are read");
    let further = REFUSED_BEYOND.iter().map(|(block, _)| *block).chain([GLOBAL_UNICAST, "0.0.0.0/0", "::/0"]);
    let blocks = REGISTRY.iter().map(|(block, _)| *block).chain(further.map(Block::parse));
    let guard = guard();
    let mut wrong = Vec::new();
    for edge in blocks.flat_map(Block::edges) {
        // An IPv4 edge is also checked inside of the IPv6 forms.
        let mut forms = vec![edge];
        if let IpAddr::V4(v4) = edge {
            forms.push(v4.to_ipv6_mapped().into());
            forms.push(Ipv6Addr::from_bits((0x64_ff9b << 96) | u128::from(v4.to_bits())).into());
        }
        wrong.extend(forms.into_iter().filter(|form| guard.check(*form).is_ok() != expected(*form)));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_exception_from_the_registries_is_needed() {
    for (block, why) in REFUSED_BEYOND {
        let block = Block::parse(block);
        let listed = REGISTRY.iter().filter(|(row, _)| {
            row.width == block.width && block.len <= row.len && block.contains(address(row.first, row.width))
        });
        let is_public_there = listed.clone().count() == 0 || listed.clone().any(|(_, is_reachable)| *is_reachable);
        assert!(is_public_there || why.contains("inside"), "{block:?} ({why}) is refused by the registries alone");
    }
}

/// An address near the edge of a network, where random addresses rarely are, or within one.
fn near_a_network() -> impl Strategy<Value = IpAddr> {
    let blocks: Vec<Block> = REGISTRY.iter().map(|(block, _)| *block).collect();
    (prop::sample::select(blocks), any::<u128>(), any::<u8>()).prop_map(|(block, random, distance)| {
        let host = 1_u128.checked_shl(block.width - block.len).unwrap_or(0).wrapping_sub(1);
        let largest = u128::MAX >> (128 - block.width);
        let number = match distance % 3 {
            0 => block.first | (random & host),
            1 => block.first.wrapping_sub(u128::from(distance)) & largest,
            _ => (block.first | host).wrapping_add(u128::from(distance)) & largest,
        };
        address(number, block.width)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn any_ipv4_address_gets_the_verdict_of_the_registries_in_each_form(bits in any::<u32>()) {
        let address = Ipv4Addr::from_bits(bits);
        let nat64 = Ipv6Addr::from_bits((0x64_ff9b << 96) | u128::from(bits));
        let verdict = expected(address.into());
        for form in [IpAddr::V4(address), address.to_ipv6_mapped().into(), nat64.into()] {
            prop_assert_eq!(guard().check(form).is_ok(), verdict, "{}", form);
        }
        // No packet to an IPv4-compatible address leaves this machine, so none is public.
        prop_assert!(guard().check(address.to_ipv6_compatible().into()).is_err());
    }

    #[test]
    fn any_ipv6_address_gets_the_verdict_of_the_registries(bits in any::<u128>(), global in any::<bool>()) {
        // An eighth of the space is public, so half of the cases are moved there.
        let bits = if global { (bits >> 3) | (1 << 125) } else { bits };
        let address = Ipv6Addr::from_bits(bits).into();
        prop_assert_eq!(guard().check(address).is_ok(), expected(address), "{}", address);
    }

    #[test]
    fn any_address_near_a_special_network_gets_the_verdict_of_the_registries(address in near_a_network()) {
        prop_assert_eq!(guard().check(address).is_ok(), expected(address), "{}", address);
    }

    #[test]
    fn an_address_behind_any_nat64_prefix_gets_the_verdict_of_the_address_inside(
        prefix in any::<u128>(),
        len in prop::sample::select(vec![32_u32, 40, 48, 56, 64, 96]),
        inside in any::<u32>(),
        suffix in any::<u128>(),
    ) {
        let reserved = 0xff_u128 << 56;
        let prefix = prefix & !(u128::MAX >> len) & !reserved;
        // The 32 bits after the prefix skip bits 64 to 71 (RFC 6052 section 2.2).
        let after = u128::from(inside) << 96 >> len;
        let (before_64, after_64) = ((after >> 64) << 64, (after << 64) >> 64);
        let skipped = if len == 96 { after } else { before_64 | (after_64 >> 8) };
        let used = len + 32 + if len < 96 { 8 } else { 0 };
        let suffix = suffix & u128::MAX.checked_shr(used).unwrap_or(0) & !reserved;
        let address = Ipv6Addr::from_bits(prefix | skipped | suffix);
        let text = format!("{}/{len}", Ipv6Addr::from_bits(prefix));
        let mut guard = guard();
        let others_before = guard.check(address.into());
        guard.nat64_prefixes = vec![text.try_into().unwrap()];
        prop_assert_eq!(guard.check(address.into()).is_ok(), expected(Ipv4Addr::from_bits(inside).into()), "{}", address);
        guard.nat64_prefixes.clear();
        prop_assert_eq!(guard.check(address.into()), others_before);
    }
}
