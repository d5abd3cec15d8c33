//! Secrets in every form in which they could be written somewhere, and the search for them.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

/// The bytes at which the search looks first. No form is shorter.
const HEAD: usize = 8;

/// What is searched for, by its first bytes.
#[derive(Default)]
pub struct Needles {
    by_head: HashMap<[u8; HEAD], Vec<Needle>>,
}

struct Needle {
    name: String,
    bytes: Vec<u8>,
}

impl Needles {
    /// Adds every form of `bytes`.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        for (form, bytes) in forms(bytes) {
            let (head, _) = bytes.split_first_chunk::<HEAD>().unwrap_or_else(|| panic!("{name} is too short"));
            let needle = Needle { name: format!("{name}, {form}"), bytes: bytes.clone() };
            self.by_head.entry(*head).or_default().push(needle);
        }
    }

    /// The names and forms that occur in `text`.
    pub fn in_text(&self, text: &[u8]) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for at in 0..text.len() {
            let Some((head, _)) = text[at..].split_first_chunk::<HEAD>() else { break };
            let Some(needles) = self.by_head.get(head) else { continue };
            let here = needles.iter().filter(|needle| text[at..].starts_with(&needle.bytes));
            found.extend(here.map(|needle| needle.name.as_str()));
        }
        found
    }
}

/// The bytes as they are, and as encoders write them.
fn forms(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let hex = hex::encode(bytes);
    let percent = percent_encode(bytes, NON_ALPHANUMERIC).to_string();
    let mut forms = vec![
        ("raw".to_owned(), bytes.to_vec()),
        ("upper-case hex".to_owned(), hex.to_uppercase().into_bytes()),
        ("hex".to_owned(), hex.into_bytes()),
        ("percent-encoded in lower case".to_owned(), lower_case_escapes(&percent).into_bytes()),
        ("percent-encoded".to_owned(), percent.into_bytes()),
    ];
    if let Ok(text) = std::str::from_utf8(bytes) {
        let form = serde_html_form::to_string([("k", text)]).unwrap();
        forms.push(("form-encoded".to_owned(), form[2..].into()));
        let json = serde_json::to_string(text).unwrap();
        forms.push(("JSON".to_owned(), json[1..json.len() - 1].into()));
        let html = maud::html! { (text) }.into_string();
        forms.push(("HTML".to_owned(), html.into_bytes()));
        forms.push((
            "JSON in JSON".to_owned(),
            serde_json::to_string(&json[1..json.len() - 1]).unwrap().trim_matches('"').into(),
        ));
    }
    for (name, engine) in [("base64", STANDARD), ("URL-safe base64", URL_SAFE)] {
        // What surrounds the secret decides how its bits fall on the digits, and it shares the first and last ones.
        for before in 0..3 {
            let encoded = engine.encode([&vec![0; before], bytes].concat());
            let (from, to) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
            forms.push((format!("{name} after {before} bytes"), encoded[from..to].into()));
        }
    }
    forms
}

fn lower_case_escapes(percent: &str) -> String {
    let mut parts = percent.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| format!("{text}%{}{}", part[..2].to_lowercase(), &part[2..]))
}

#[test]
fn a_secret_is_found_in_every_form_and_at_every_place() {
    let secret = "a \"secret\" & <more> of it/+é";
    let mut needles = Needles::default();
    needles.add("it", secret.as_bytes());
    for before in ["", "x", "xy", "xyz"] {
        let text = format!("{before}{secret}?");
        for hidden in [
            text.clone(),
            STANDARD.encode(&text),
            URL_SAFE.encode(&text),
            hex::encode(&text),
            hex::encode_upper(&text),
            percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string(),
            serde_html_form::to_string([("a", &text)]).unwrap(),
            serde_json::json!({ "a": text }).to_string(),
            serde_json::json!(serde_json::json!({ "a": text }).to_string()).to_string(),
            maud::html! { p { (text) } }.into_string(),
        ] {
            assert!(!needles.in_text(hidden.as_bytes()).is_empty(), "{hidden}");
        }
    }
    assert!(needles.in_text(b"a secret of it").is_empty());
}
