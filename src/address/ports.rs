//! The ports that requests may go to.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The standard port of `http://`. It is allowed for that scheme only, because nothing speaks TLS on it.
pub const HTTP: u16 = 80;

/// One port, or a range of ports, as text such as `443` or `1024-65535`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Whether the range has `port`.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    fn parse(text: &str) -> Option<Self> {
        // `u16::from_str` takes a plus sign, which nobody writes into a port.
        let port = |text: &str| {
            let text = text.trim();
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: port(first)?, last: port(last)? };
        (range.first > 0 && range.first <= range.last).then_some(range)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNumber)
    }
}

/// Reads a range from a text, or one port from a number.
struct TextOrNumber;

impl Visitor<'_> for TextOrNumber {
    type Value = PortRange;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port from 1 to 65535 or a range such as \"1024-65535\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
        PortRange::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortRange, E> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))?;
        Ok(PortRange { first: port, last: port })
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortRange, E> {
        let unsigned = u64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
        self.visit_u64(unsigned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(json: &str) -> Result<PortRange, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_or_a_range_is_read_and_anything_else_is_refused_with_what_is_allowed() {
        assert_eq!(range("443"), Ok(PortRange { first: 443, last: 443 }));
        assert_eq!(range("\"443\""), range("443"));
        let high = range("\"1024-65535\"").unwrap();
        assert!(high.contains(1_024) && high.contains(65_535) && !high.contains(1_023));
        assert_eq!(serde_json::to_string(&high).unwrap(), "\"1024-65535\"");
        for bad in ["\"\"", "\"0\"", "0", "-1", "65536", "\"65536\"", "\"2-1\"", "\"http\"", "\"1-2-3\"", "\"+80\""] {
            let error = range(bad).unwrap_err();
            assert!(error.contains("a port from 1 to 65535 or a range such as"), "{bad}: {error}");
        }
    }
}
