//! The incoming message, read leniently: only what an event can't do without is required.
//!
//! An optional field that can't be understood becomes null and is counted, whatever stands in it. Of duplicate keys
//! the last one counts.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::time;

/// The values that `json`, an object, has under `keys`, as they are written; None where it has no such key.
///
/// # Errors
/// Where it isn't JSON, or isn't an object: an array of the values in their order is none.
pub fn values<'a, const N: usize>(
    json: &'a str,
    keys: [&'static str; N],
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let found = parser.deserialize_map(ObjectVisitor(&keys))?;
    parser.end()?;
    Ok(found)
}

/// Not derived from a struct: a derived one takes an array for an object, and refuses an object that has a key twice.
struct ObjectVisitor<'k, const N: usize>(&'k [&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for ObjectVisitor<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(key) = map.next_key_seed(KeyVisitor(self.0))? {
            match key {
                Some(at) => found[at] = Some(map.next_value()?),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(found)
    }
}

/// Finds a key's place among the known ones.
struct KeyVisitor<'k>(&'k [&'static str]);

impl<'de> DeserializeSeed<'de> for KeyVisitor<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeyVisitor<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == key))
    }
}

/// A value of the message by its kind. Numbers are kept as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Number(&'a str),
    /// A boolean, an object or an array: its kind.
    Other(&'static str),
}

impl<'a> Value<'a> {
    /// Never fails: the parser has taken the value already.
    pub fn of(raw: Option<&'a RawValue>) -> Self {
        let Some(raw) = raw.map(RawValue::get) else { return Self::Null };
        match raw.as_bytes().first() {
            Some(b'n') | None => Self::Null,
            Some(b'"') => match raw.get(1..raw.len() - 1).filter(|inside| !inside.contains('\\')) {
                Some(inside) => Self::Text(Cow::Borrowed(inside)),
                None => serde_json::from_str(raw).map_or(Self::Other("text"), |text: String| Self::Text(text.into())),
            },
            Some(b'{') => Self::Other("an object"),
            Some(b'[') => Self::Other("an array"),
            Some(b't' | b'f') => Self::Other("a boolean"),
            Some(_) => Self::Number(raw),
        }
    }

    /// What kind of value it is, for people; never the value itself, which may be long.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Other(kind) => kind,
        }
    }

    /// A text field; a number is taken as it is written.
    pub fn text(self) -> Result<Option<Cow<'a, str>>, NotUnderstood> {
        match self {
            Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Number(number) => Ok(Some(Cow::Borrowed(number))),
            Self::Other(_) => Err(NotUnderstood),
        }
    }

    /// A whole number that isn't negative, or the text of one.
    pub fn whole_number(self) -> Result<Option<u64>, NotUnderstood> {
        let text = match &self {
            Self::Null => return Ok(None),
            Self::Text(text) => text.trim(),
            Self::Number(number) => number,
            Self::Other(_) => return Err(NotUnderstood),
        };
        if let Ok(number) = text.parse() {
            return Ok(Some(number));
        }
        let number: f64 = text.parse().map_err(|_| NotUnderstood)?;
        let is_whole = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
        if is_whole { Ok(Some(number as u64)) } else { Err(NotUnderstood) }
    }

    /// A time: RFC 3339, or Unix seconds or milliseconds as a number or as its text.
    pub fn time(self) -> Result<Option<Cow<'a, str>>, NotUnderstood> {
        let number = |text: &str| text.trim().parse().ok().and_then(time::read_number).map(Cow::Owned);
        let read = match self {
            Self::Null => return Ok(None),
            Self::Number(text) => number(text),
            Self::Text(Cow::Borrowed(text)) => time::read_text(text).or_else(|| number(text)),
            Self::Text(Cow::Owned(text)) => {
                time::read_text(&text).map(|read| Cow::Owned(read.into_owned())).or_else(|| number(&text))
            }
            Self::Other(_) => None,
        };
        read.map(Some).ok_or(NotUnderstood)
    }
}

/// A value of a kind that the field can't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUnderstood;

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn numbers_and_their_texts_are_taken_for_each_other() {
        let text = |json: &str| Value::of(Some(&raw(json))).text().map(|text| text.map(Cow::into_owned));
        assert_eq!(text("0.84"), Ok(Some("0.84".to_owned())));
        assert_eq!(text("1e999"), Ok(Some("1e999".to_owned())));
        assert_eq!(text(r#""\u0041""#), Ok(Some("A".to_owned())));
        assert_eq!(text("null"), Ok(None));
        assert_eq!(text("true"), Err(NotUnderstood));
        let number = |json: &str| Value::of(Some(&raw(json))).whole_number();
        for read in ["142", "\"142\"", "142.0", "\" 142 \"", "1.42e2"] {
            assert_eq!(number(read), Ok(Some(142)), "{read}");
        }
        for unreadable in ["-1", "1.5", "\"142a\"", "1e999", "\"\"", "{}", "true", "\"NaN\"", "99999999999999999999999"]
        {
            assert_eq!(number(unreadable), Err(NotUnderstood), "{unreadable}");
        }
    }

    #[test]
    fn an_array_is_not_an_object_and_of_duplicate_keys_the_last_counts() {
        assert!(values(r#"["one","two"]"#, ["a", "b"]).unwrap_err().is_data());
        let [a, b] = values(r#"{"a":"one","x":[{"b":3}],"a":"two"}"#, ["a", "b"]).unwrap();
        assert_eq!((Value::of(a), Value::of(b)), (Value::Text("two".into()), Value::Null));
        assert!(values(r#"{"a":1} {}"#, ["a"]).is_err(), "nothing may follow");
    }
}
