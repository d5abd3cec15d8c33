//! Numbers in queries and bodies. Each has bounds, so that no arithmetic on one can overflow.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Count<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> CountVisitor<MIN, MAX> {
    fn refuse<E: de::Error>(given: impl fmt::Display) -> E {
        E::custom(format!("{given} is not allowed; it must be a whole number from {MIN} to {MAX}"))
    }
}

impl<const MIN: u64, const MAX: u64> Visitor<'_> for CountVisitor<MIN, MAX> {
    type Value = Count<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        if (MIN..=MAX).contains(&number) { Ok(Count(number)) } else { Err(Self::refuse(number)) }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        u64::try_from(number).map_err(|_| Self::refuse(number)).and_then(|number| self.visit_u64(number))
    }

    /// Parameters of a query are texts.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        /// The most characters of a refused text that the answer repeats.
        const SHOWN_MAX: usize = 40;
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if is_digits => self.visit_u64(number),
            _ => Err(Self::refuse(format!("{:?}", text.chars().take(SHOWN_MAX).collect::<String>()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Query {
        limit: Count<1, 200>,
    }

    #[test]
    fn a_number_is_within_its_bounds_or_refused_with_them() {
        let of_query = |text: &str| {
            let query = serde_html_form::from_str(&format!("limit={text}"));
            query.map(|query: Query| query.limit.get()).map_err(|error| error.to_string())
        };
        let of_json = |text: &str| {
            let count = serde_json::from_str(text);
            count.map(|count: Count<1, 200>| count.get()).map_err(|error| error.to_string())
        };
        assert_eq!((of_query("200"), of_json("1")), (Ok(200), Ok(1)));
        for text in ["0", "201", "18446744073709551615", "18446744073709551616", "-1", "%2B5", "1.5", "x", ""] {
            let error = of_query(text).unwrap_err();
            assert!(error.contains("must be a whole number from 1 to 200"), "{text}: {error}");
        }
        for text in ["0", "201", "18446744073709551615", "18446744073709551616", "-1", "1.5", "null", "[]"] {
            assert!(of_json(text).unwrap_err().contains("whole number from 1 to 200"), "{text}");
        }
    }
}
