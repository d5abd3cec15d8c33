//! Headers that the owner of a webhook adds to its requests, such as `Authorization`. Their values are secrets.

use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::BadWebhook;
use crate::secret::{MASK, Secret};

/// The most headers of a webhook.
pub const COUNT_MAX: usize = 20;
/// The longest name, in bytes.
const NAME_MAX: usize = 256;
/// The longest value, in bytes.
const VALUE_MAX: usize = 4_096;
/// The size of all names and values together, in bytes. Many servers accept at most 8 KiB of headers in all.
const TOTAL_MAX: usize = 7_168;

/// Headers that the program or the connection sets itself.
const RESERVED: [&str; 18] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
/// The beginnings of further names that the program or a proxy sets itself.
const RESERVED_PREFIXES: [&str; 3] = ["x-optio-", "webhook-", "proxy-"];

/// A header of a webhook. `V` is the type of its value: an opened one is sent, and a stored one is what Redis holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomHeader<V = Secret> {
    /// The name, as its owner wrote it.
    pub name: String,
    /// The value.
    pub value: V,
}

/// A header as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderDraft {
    /// The name: a token of RFC 9110, section 5.6.2.
    pub name: String,
    /// The value: ASCII characters that can be shown, spaces and tabs. The mask `••••••` keeps the value of the header
    /// that has this name now.
    #[schema(value_type = String)]
    pub value: Secret,
}

/// A header as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Header)]
pub struct HeaderView {
    /// The name.
    pub name: String,
    /// The mask of the value, which is never shown.
    pub value: &'static str,
}

impl CustomHeader {
    /// The header as the API shows it, with its value masked.
    #[must_use]
    pub fn shown(&self) -> HeaderView {
        HeaderView { name: self.name.clone(), value: MASK }
    }

    /// The header as a request has it. `None` if it breaks the rules that [`read`] checks.
    #[must_use]
    pub fn parts(&self) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_bytes(self.name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(self.value.expose()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    }
}

/// Reads the headers that a client sent. `current` are those that the webhook has now.
///
/// # Errors
/// [`BadWebhook`] says which header isn't allowed, and why. It never repeats a value.
pub fn read(drafts: &[HeaderDraft], current: &[CustomHeader]) -> Result<Vec<CustomHeader>, BadWebhook> {
    if drafts.len() > COUNT_MAX {
        return Err(bad(format!("{} headers are too many; at most {COUNT_MAX} are allowed", drafts.len())));
    }
    let mut headers: Vec<CustomHeader> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let name = draft.name.trim();
        check_name(name)?;
        if headers.iter().any(|header| header.name.eq_ignore_ascii_case(name)) {
            return Err(bad(format!("{name} stands twice; join its values with a comma, or remove one")));
        }
        let value = if draft.value.is_mask() {
            let kept = current.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            kept.ok_or_else(|| bad(format!("the value of {name} is the mask, and there is no value yet; enter one")))?
                .value
                .clone()
        } else {
            check_value(name, draft.value.expose().trim_matches([' ', '\t']))?
        };
        headers.push(CustomHeader { name: name.to_owned(), value });
    }
    let total: usize = headers.iter().map(|header| header.name.len() + header.value.expose().len()).sum();
    if total > TOTAL_MAX {
        return Err(bad(format!("names and values have {total} bytes together; at most {TOTAL_MAX} are allowed")));
    }
    Ok(headers)
}

fn check_name(name: &str) -> Result<(), BadWebhook> {
    let shown: String = name.chars().take(NAME_MAX).collect();
    let is_token = name.len() <= NAME_MAX && HeaderName::from_bytes(name.as_bytes()).is_ok();
    if !is_token {
        return Err(bad(format!(
            "{shown:?} isn't the name of a header; use 1 to {NAME_MAX} letters, digits and dashes, such as Authorization"
        )));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(bad(format!(
            "{name} is reserved, because the request or its connection sets it; use another name"
        )));
    }
    Ok(())
}

fn check_value(name: &str, value: &str) -> Result<Secret, BadWebhook> {
    if value.is_empty() {
        return Err(bad(format!("the value of {name} is empty; enter one, or remove the header")));
    }
    if value.len() > VALUE_MAX {
        return Err(bad(format!("the value of {name} is longer than {VALUE_MAX} bytes")));
    }
    if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        return Err(bad(format!(
            "the value of {name} has a character that isn't allowed; use ASCII characters that can be shown, and spaces"
        )));
    }
    Ok(value.into())
}

fn bad(problem: String) -> BadWebhook {
    BadWebhook { field: "headers", problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(name: &str, value: &str) -> HeaderDraft {
        HeaderDraft { name: name.to_owned(), value: value.into() }
    }

    fn problem(drafts: &[HeaderDraft]) -> String {
        read(drafts, &[]).unwrap_err().to_string()
    }

    #[test]
    fn a_mask_keeps_the_value_of_the_header_with_that_name_and_a_header_that_is_left_out_is_removed() {
        let current = read(&[draft("Authorization", "Bearer x"), draft("X-Route", "blue")], &[]).unwrap();
        let changed = read(&[draft("authorization", MASK), draft("X-Team", " red ")], &current).unwrap();
        let shown: Vec<_> = changed.iter().map(|header| (header.name.as_str(), header.value.expose())).collect();
        assert_eq!(shown, [("authorization", "Bearer x"), ("X-Team", "red")]);
        assert!(problem(&[draft("X-New", MASK)]).contains("X-New is the mask"));
    }

    #[test]
    fn reserved_names_and_wrong_names_and_values_are_refused_by_name() {
        for name in ["Host", "Accept", "content-LENGTH", "X-Optio-Signature", "webhook-id", "Proxy-Authorization", "TE"]
        {
            assert!(problem(&[draft(name, "x")]).contains(&format!("{name} is reserved")), "{name}");
        }
        for name in ["", "a b", "a:b", "ä", "a\r\nb", &"n".repeat(257)] {
            assert!(problem(&[draft(name, "x")]).contains("isn't the name of a header"), "{name}");
        }
        for value in ["", " ", "a\r\nb: c", "ü", "\u{7f}", &"v".repeat(4_097)] {
            let problem = problem(&[draft("X-Key", value)]);
            assert!(problem.contains("X-Key") && (value.len() < 3 || !problem.contains(value)), "{problem}");
        }
        assert!(problem(&[draft("X-A", "1"), draft("x-a", "2")]).contains("twice"));
        let many: Vec<_> = (0..=COUNT_MAX).map(|number| draft(&format!("X-{number}"), "v")).collect();
        assert!(problem(&many).contains("at most 20"));
        assert!(problem(&[draft("X-A", &"v".repeat(4_000)), draft("X-B", &"v".repeat(4_000))]).contains("7168"));
    }

    proptest! {
        #[test]
        fn what_is_accepted_can_be_sent(name in ".{0,20}", value in ".{0,40}") {
            if let Ok(headers) = read(&[draft(&name, &value)], &[]) {
                prop_assert!(headers.iter().all(|header| header.parts().is_some()));
            }
        }
    }
}
