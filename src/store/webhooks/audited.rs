//! What the audit log says about changes of webhooks. A change script writes it in the same step.

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
        record = record.to(&new.shown());
    }
    call.key(&log.key).arg(log.entries_max).arg(record.to_json());
}
