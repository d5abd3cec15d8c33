//! What the audit log says about changes of webhooks. A change script writes it in the same step.

use serde_json::Value;

use crate::secret::MASK;
use crate::store::Keys;
use crate::store::audit::{Action, AuditLog, Author, Record};
use crate::webhook::{Webhook, WebhookId};

/// What changes of the webhooks are recorded as.
#[derive(Clone)]
pub struct Audit {
    pub log: AuditLog,
    pub who: Author,
    pub what: Action,
}

/// Appends what a change script needs for the audit log: its key, its length, and the entry, or none.
pub fn append(
    audit: Option<&Audit>,
    keys: &Keys,
    call: &mut redis::ScriptInvocation<'_>,
    id: WebhookId,
    old: Option<&Webhook>,
    new: Option<&Webhook>,
) {
    let Some(Audit { log, who, what }) = audit else {
        call.key(keys.audit()).arg(0).arg("");
        return;
    };
    let mut record = Record::new(who, *what).of(id);
    if let Some(old) = old {
        record = record.from(&old.shown());
    }
    if let Some(new) = new {
        record = record.to(&shown(old, new));
    }
    call.key(&log.key).arg(log.entries_max).arg(record.to_json());
}

/// The webhook after a change. Secrets are masked, so a replaced one would look as before.
fn shown(old: Option<&Webhook>, new: &Webhook) -> Value {
    let mut shown = serde_json::to_value(new.shown()).unwrap_or_default();
    let Some(old) = old else { return shown };
    if old.secret.is_some() && new.secret.is_some() && old.secret != new.secret {
        shown["secret"] = replaced();
    }
    for (at, header) in new.headers.iter().enumerate() {
        let before = old.headers.iter().find(|before| before.name.eq_ignore_ascii_case(&header.name));
        if before.is_some_and(|before| before.value != header.value) {
            shown["headers"][at]["value"] = replaced();
        }
    }
    shown
}

fn replaced() -> Value {
    format!("{MASK} (replaced)").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;
    use crate::signature::SigningSecret;
    use crate::webhook::custom_header::CustomHeader;

    #[test]
    fn replaced_secrets_are_told_apart_and_not_shown() {
        let mut old = Webhook::new("https://example.com/".parse().unwrap(), vec![EventType::TaskFailed], 0);
        old.secret = Some(SigningSecret::parse("hunter2".into()).unwrap());
        old.headers = vec![CustomHeader { name: "X-Key".to_owned(), value: "hunter2".into() }];
        let mut new = old.clone();
        assert_eq!(shown(Some(&old), &new), serde_json::to_value(old.shown()).unwrap());
        new.secret = Some(SigningSecret::parse("hunter3".into()).unwrap());
        new.headers[0].value = "hunter3".into();
        let shown = shown(Some(&old), &new);
        assert_eq!((&shown["secret"], &shown["headers"][0]["value"]), (&replaced(), &replaced()));
        assert!(!shown.to_string().contains("hunter"));
    }
}
