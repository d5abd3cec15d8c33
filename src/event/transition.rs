//! Reads the incoming message leniently: only the fields that an event needs are required.
//!
//! An optional field becomes null and is counted if its value can't be understood. If a key is repeated, its last value
//! counts.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::time;

/// Returns the raw values of `keys` in the object `json`. A value is `None` if the object lacks its key.
///
/// # Errors
/// Fails if `json` isn't JSON or isn't an object. An array is not accepted as an object.
pub fn values<'a, const N: usize>(
    json: &'a str,
    keys: [&'static str; N],
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let found = parser.deserialize_map(ObjectVisitor(&keys))?;
    parser.end()?;
    Ok(found)
}

/// Collects the values of the known keys.
///
/// It isn't derived from a struct, because a derived visitor accepts an array as an object and refuses an object with a
/// repeated key.
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

/// Finds the index of a key among the known keys.
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

/// A value of the message, by its kind. A number keeps its spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Number(&'a str),
    /// The kind of a boolean, an object or an array.
    Other(&'static str),
}

impl<'a> Value<'a> {
    /// Determines the kind of a raw value. This can't fail, because the parser has already accepted the value.
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

    /// The kind of the value, for people. The value itself isn't repeated, because it may be long.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Other(kind) => kind,
        }
    }

    /// Reads a text. A number is accepted and keeps its spelling.
    pub fn text(self) -> Result<Option<Cow<'a, str>>, NotUnderstood> {
        match self {
            Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Number(number) => Ok(Some(Cow::Borrowed(number))),
            Self::Other(_) => Err(NotUnderstood),
        }
    }

    /// Reads a whole number that isn't negative, or its text.
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

    /// Reads a time: RFC 3339, or Unix seconds or milliseconds, as a number or as text.
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

/// The value can't be understood as a value of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUnderstood;

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn a_number_and_its_text_are_interchangeable() {
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
    fn an_array_is_not_an_object_and_the_last_duplicate_key_counts() {
        assert!(values(r#"["one","two"]"#, ["a", "b"]).unwrap_err().is_data());
        let [a, b] = values(r#"{"a":"one","x":[{"b":3}],"a":"two"}"#, ["a", "b"]).unwrap();
        assert_eq!((Value::of(a), Value::of(b)), (Value::Text("two".into()), Value::Null));
        assert!(values(r#"{"a":1} {}"#, ["a"]).is_err(), "nothing may follow the object");
    }
}
