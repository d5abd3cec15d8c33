//! Webhooks declared in a file, so that a repository can hold the configuration. Secrets stand there only by reference.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::custom_header::HeaderDraft;
use super::draft::Draft;
use super::{BadWebhook, Webhook, WebhookId};
use crate::payload::PayloadFormat;
use crate::secret::{MASK, Secret};
use crate::signature::{Signing, SigningSecret};

/// The namespace of the ids that are made of names (RFC 9562, section 5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x9a3f_21c4_8c07_5e0b_b3a1_52d7_6e4f_1c90);
/// The longest name, in bytes.
const NAME_MAX: usize = 200;

/// A file of webhooks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredFile {
    /// The webhooks.
    pub webhooks: Vec<Declared>,
}

/// A webhook as a file declares it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declared {
    /// The webhook's identity. Either this or `name` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<WebhookId>,
    /// A name of which the id is made. The same name always gives the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    url: String,
    events: Vec<String>,
    /// A reference to the secret. Without it, requests aren't signed.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    secret: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing: Option<Signing>,
    /// Headers, each a name with a text or a reference.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    headers: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Whether it is active. If it is left out, a webhook that exists stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
    /// Together with `active: false`: whether deliveries wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<bool>,
    /// The format; by default the one that fits the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<PayloadFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_per_second: Option<u32>,
}

/// A declared webhook whose references were read.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The webhook's identity.
    pub id: WebhookId,
    draft: Draft,
    /// Whether the secret that is stored stays.
    keeps_secret: bool,
}

/// How a secret is given.
enum Reference<'a> {
    Variable(&'a str),
    File(&'a str),
    /// The one that is stored already.
    Stored,
}

impl Declared {
    /// The webhook as a file declares it, with references to the stored secrets.
    #[must_use]
    pub fn of(webhook: &Webhook) -> Self {
        let stored = || json!({ "stored": true });
        Self {
            id: Some(webhook.id),
            name: None,
            url: webhook.url.to_string(),
            events: webhook.events.iter().map(|event| event.as_str().to_owned()).collect(),
            secret: webhook.secret.as_ref().map_or(Value::Null, |_| stored()),
            signing: webhook.secret.as_ref().map(SigningSecret::signing).filter(|signing| *signing == Signing::Ed25519),
            headers: webhook.headers.iter().map(|header| (header.name.clone(), stored())).collect(),
            filter: webhook.filter.as_ref().map(|filter| filter.json().clone()),
            description: webhook.description.clone(),
            // One that was disabled automatically has no `active` in the file, so that applying the file leaves it as it is.
            active: (!webhook.active && webhook.disabled_reason.is_none()).then_some(false),
            hold: webhook.hold.then_some(true),
            format: Some(webhook.format).filter(|format| *format != PayloadFormat::preset(&webhook.url)),
            rate_per_second: webhook.rate_per_second.map(std::num::NonZeroU32::get),
        }
    }

    /// How messages name the webhook.
    #[must_use]
    pub fn label(&self) -> String {
        let named = self.name.clone().or_else(|| self.id.map(|id| id.to_string()));
        named.map_or_else(|| self.url.clone(), |name| format!("{name} ({})", self.url))
    }

    /// Reads the references with `variable` and `file`, which return a secret or why there is none.
    ///
    /// # Errors
    /// What is wrong and what is allowed, without a secret.
    pub fn resolve(
        &self,
        variable: impl Fn(&str) -> Result<Secret, String>,
        file: impl Fn(&str) -> Result<Secret, String>,
    ) -> Result<Resolved, String> {
        let read = |reference: Reference<'_>| match reference {
            Reference::Variable(name) => variable(name).map(Some),
            Reference::File(path) => file(path).map(Some),
            Reference::Stored => Ok(None),
        };
        let id = match (self.id, self.name.as_deref().map(str::trim)) {
            (Some(id), None) => id,
            (None, Some(name)) if (1..=NAME_MAX).contains(&name.len()) => {
                WebhookId(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
            }
            (None, Some(_)) => return Err(format!("name: must have 1 to {NAME_MAX} bytes")),
            (Some(_), Some(_)) => return Err("id and name: give only one of them".to_owned()),
            (None, None) => return Err("id or name: one of them is needed, and must never change".to_owned()),
        };
        let secret = match &self.secret {
            Value::Null => None,
            value => Some(read(reference(value).map_err(|problem| format!("secret: {problem}"))?)),
        };
        let secret = secret.transpose().map_err(|problem| format!("secret: {problem}"))?;
        let header = |(name, value): (&String, &Value)| {
            let value = match value {
                Value::String(text) => Secret::from(text.as_str()),
                value => {
                    let given =
                        reference(value).and_then(read).map_err(|problem| format!("headers.{name}: {problem}"))?;
                    given.unwrap_or_else(|| Secret::from(MASK))
                }
            };
            Ok::<_, String>(HeaderDraft { name: name.clone(), value })
        };
        let headers = self.headers.iter().map(header).collect::<Result<Vec<_>, _>>()?;
        let keeps_secret = matches!(secret, Some(None));
        // A key pair is generated if there is none yet, and needs no reference.
        let generates = secret.is_none() && self.signing == Some(Signing::Ed25519);
        let preset =
            self.url.trim().parse().map_or_else(|_| PayloadFormat::default(), |url| PayloadFormat::preset(&url));
        let draft = Draft {
            url: Some(self.url.clone()),
            events: Some(self.events.clone()),
            secret: if keeps_secret || generates { None } else { Some(secret.flatten()) },
            signing: self.signing,
            description: Some(self.description.clone()),
            active: self.active,
            hold: self.hold,
            format: Some(self.format.unwrap_or(preset)),
            headers: Some(Some(headers)),
            filter: Some(self.filter.clone()),
            rate_per_second: Some(self.rate_per_second),
        };
        Ok(Resolved { id, draft, keeps_secret })
    }
}

impl Resolved {
    /// The webhook as it shall be, or `None` if `current` is that already.
    ///
    /// # Errors
    /// [`BadWebhook`] names the first field that isn't allowed.
    pub fn target(&self, current: Option<&Webhook>, now_ms: i64) -> Result<Option<Webhook>, BadWebhook> {
        let Some(current) = current else {
            if self.keeps_secret && self.draft.signing != Some(Signing::Ed25519) {
                let problem = "isn't stored, because the webhook is new; use {env: NAME} or {file: PATH}".to_owned();
                return Err(BadWebhook { field: "secret", problem });
            }
            let mut webhook = self.draft.create(now_ms)?;
            webhook.id = self.id;
            return Ok(Some(webhook));
        };
        let mut draft = self.draft.clone();
        // The same secret again is no change: it must not end the overlap of a rotation.
        if let Some(Some(secret)) = &draft.secret
            && current.secret.as_ref().is_some_and(|current| current.text() == secret)
        {
            draft.secret = None;
        }
        if draft.secret == Some(None) && current.secret.is_none() {
            draft.secret = None;
        }
        if draft.active == Some(current.active) {
            draft.active = None;
        }
        let mut webhook = current.clone();
        draft.apply(&mut webhook, now_ms)?;
        webhook.updated_at.clone_from(&current.updated_at);
        // The end of an overlap is no change that the file asks for.
        let (previous_secret, older_secrets) = (webhook.previous_secret.clone(), webhook.older_secrets.clone());
        if webhook == (Webhook { previous_secret, older_secrets, ..current.clone() }) {
            return Ok(None);
        }
        webhook.updated_at = crate::clock::rfc3339(now_ms);
        Ok(Some(webhook))
    }
}

fn reference(value: &Value) -> Result<Reference<'_>, String> {
    let allowed = "use {env: NAME}, {file: PATH}, or {stored: true} for the one that is stored";
    let Value::Object(object) = value else {
        return Err(format!("must not stand in the file itself; {allowed}"));
    };
    let mut parts = object.iter();
    match (parts.next(), parts.next()) {
        (Some((key, Value::String(name))), None) if key == "env" => Ok(Reference::Variable(name)),
        (Some((key, Value::String(path))), None) if key == "file" => Ok(Reference::File(path)),
        (Some((key, Value::Bool(true))), None) if key == "stored" => Ok(Reference::Stored),
        _ => Err(format!("isn't a reference; {allowed}")),
    }
}

/// The fields in which two webhooks differ, by their names in the API.
#[must_use]
pub fn differences(old: &Webhook, new: &Webhook) -> Vec<&'static str> {
    [
        ("url", old.url != new.url),
        ("events", old.events != new.events),
        ("secret", old.secret != new.secret),
        ("headers", old.headers != new.headers),
        ("filter", old.filter != new.filter),
        ("description", old.description != new.description),
        ("active", old.active != new.active),
        ("hold", old.hold != new.hold),
        ("format", old.format != new.format),
        ("ratePerSecond", old.rate_per_second != new.rate_per_second),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(yaml: &str) -> Result<Resolved, String> {
        let declared: Declared = serde_saphyr::from_str(yaml).unwrap();
        declared.resolve(|name| Ok(format!("{name}-value-0123456789").into()), |_| Err("can't be read".to_owned()))
    }

    #[test]
    fn an_exported_webhook_is_no_change() {
        let yaml = "name: ci\nurl: https://example.com/hook\nevents: [task.failed, task.completed]\n\
                    secret: {env: HOOK}\nheaders: {X-Route: blue, Authorization: {env: TOKEN}}\n\
                    filter: {field: task.repoUrl, glob: '*acme*'}\nratePerSecond: 5\ndescription: ours\n";
        let first = resolved(yaml).unwrap();
        let webhook = first.target(None, 1_000).unwrap().unwrap();
        assert_eq!(webhook.id, resolved(yaml).unwrap().id, "the same name gives the same id");
        assert_eq!(first.target(Some(&webhook), 2_000).unwrap(), None);
        let exported = serde_saphyr::to_string(&DeclaredFile { webhooks: vec![Declared::of(&webhook)] }).unwrap();
        assert!(!exported.contains("value-0123456789") && !exported.contains("blue"), "{exported}");
        let read: DeclaredFile = serde_saphyr::from_str(&exported).unwrap();
        let again = read.webhooks[0].resolve(|_| unreachable!(), |_| unreachable!()).unwrap();
        assert_eq!(again.target(Some(&webhook), 2_000).unwrap(), None);
        assert!(again.target(None, 2_000).is_err(), "a new webhook has no stored secret");
    }

    #[test]
    fn a_change_is_found_and_what_was_disabled_stays_so() {
        let first = resolved("name: a\nurl: https://example.com/\nevents: [task.failed]\n").unwrap();
        let mut webhook = first.target(None, 0).unwrap().unwrap();
        webhook.active = false;
        webhook.disabled_reason = Some("410".to_owned());
        assert_eq!(first.target(Some(&webhook), 1).unwrap(), None);
        let other = "name: a\nurl: https://example.com/other\nevents: [task.failed]\nsecret: {env: S}\nactive: true\n";
        let changed = resolved(other).unwrap().target(Some(&webhook), 1).unwrap().unwrap();
        assert_eq!(differences(&webhook, &changed), ["url", "secret", "active"]);
    }

    #[test]
    fn a_wrong_declaration_is_refused_without_its_secret() {
        for (extra, words) in [
            ("", "one of them is needed"),
            ("name: ''", "1 to 200"),
            ("name: a\nid: 01a21cda-f840-77ff-b07d-167755a3ce9f", "only one"),
            ("name: a\nsecret: hunter2", "must not stand in the file"),
            ("name: a\nsecret: {env: A, file: B}", "isn't a reference"),
            ("name: a\nsecret: {stored: false}", "isn't a reference"),
            ("name: a\nsecret: {file: /x}", "can't be read"),
            ("name: a\nheaders: {X-A: [hunter2]}", "headers.X-A"),
        ] {
            let problem = resolved(&format!("url: https://example.com/\nevents: [task.failed]\n{extra}")).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("hunter2"), "{problem}");
        }
    }
}
