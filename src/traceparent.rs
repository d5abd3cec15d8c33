//! The trace context of an event (W3C Trace Context, section 3.2), which travels from the record into each request.

use std::fmt;
use std::str::FromStr;

/// The length of a `traceparent` of version 00, in bytes. Higher versions may have more after a further dash.
const LENGTH: usize = 55;

/// A `traceparent` of version 00. Its form is checked when it is made, so every value can be sent as a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

/// The text isn't a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: must have the form that W3C Trace Context defines")]
pub struct BadTraceParent;

impl TraceParent {
    /// The context of a span that is sampled. Neither id may be 0.
    #[must_use]
    pub fn sampled(trace: [u8; 16], span: [u8; 8]) -> Self {
        Self(format!("00-{}-{}-01", hex::encode(trace), hex::encode(span)))
    }

    /// The id of the trace, as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_text(&self) -> &str {
        &self.0[3..35]
    }

    /// The id of the trace.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        u128::from_str_radix(self.trace_id_text(), 16).expect("the form was checked")
    }

    /// The id of the span that this context comes from.
    #[must_use]
    pub fn parent_id(&self) -> u64 {
        u64::from_str_radix(&self.0[36..52], 16).expect("the form was checked")
    }

    /// Whether the caller has sampled the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.0[53..], 16).expect("the form was checked") & 1 == 1
    }

    /// The value of the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TraceParent {
    type Err = BadTraceParent;

    /// Reads the value of a header. Of a higher version it takes the parts that version 00 has, and the result is of
    /// version 00, as the standard asks (section 3.2.4).
    ///
    /// # Errors
    /// [`BadTraceParent`] if the text does not have the form of the standard.
    fn from_str(text: &str) -> Result<Self, BadTraceParent> {
        let (known, rest) = text.split_at_checked(LENGTH).ok_or(BadTraceParent)?;
        let parts: Vec<&str> = known.split('-').collect();
        let [version, trace, parent, flags] = parts[..] else { return Err(BadTraceParent) };
        let has_form = is_hex(version, 2) && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2);
        match version {
            _ if !has_form => Err(BadTraceParent),
            "ff" => Err(BadTraceParent),
            "00" if rest.is_empty() => Ok(Self(text.to_owned())),
            "00" => Err(BadTraceParent),
            _ if !rest.is_empty() && !rest.starts_with('-') => Err(BadTraceParent),
            _ => {
                // Of the flags of a higher version, only the bit "sampled" is known to keep its meaning.
                let sampled = u8::from_str_radix(flags, 16).map_err(|_| BadTraceParent)? & 1;
                Ok(Self(format!("00-{trace}-{parent}-{sampled:02x}")))
            }
        }
    }
}

fn is_hex(part: &str, length: usize) -> bool {
    part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_id(part: &str, length: usize) -> bool {
    is_hex(part, length) && part.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(text: &str) -> Option<String> {
        text.parse::<TraceParent>().ok().map(|read| read.to_string())
    }

    #[test]
    fn only_a_text_of_the_standards_form_is_taken() {
        assert_eq!(read(GOOD).as_deref(), Some(GOOD));
        for bad in [
            String::new(),
            GOOD.to_uppercase(),
            GOOD[1..].to_owned(),
            format!("{GOOD} "),
            format!("{GOOD}-more"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "0g", 1),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("-01", "-1"),
            GOOD.replace('-', "_"),
            format!("{}é", &GOOD[..54]),
            GOOD.replace("331-01", "331-\r\n"),
            "0".repeat(55),
            format!("01{}x", &GOOD[2..]),
        ] {
            assert_eq!(read(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_higher_version_is_passed_on_as_version_00_with_its_sampled_flag() {
        let sampled = format!("cc{}", &GOOD[2..]);
        assert_eq!(read(&sampled).as_deref(), Some(GOOD));
        assert_eq!(read(&format!("{sampled}-\r\nx: y")).as_deref(), Some(GOOD));
        assert_eq!(read(&sampled.replace("-01", "-fe")), Some(GOOD.replace("-01", "-00")));
    }
}
