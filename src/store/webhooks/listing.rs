//! The webhooks of Redis, as far as this version can read them.

use std::collections::HashSet;

use crate::store::StoreError;
use crate::webhook::stored::{Sealing, StoredWebhook};
use crate::webhook::unsupported::Unsupported;
use crate::webhook::{Webhook, WebhookId};

/// All webhooks that Redis holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The webhooks that this version can read, oldest first.
    pub webhooks: Vec<Webhook>,
    /// The webhooks that this version cannot read, by id.
    pub unsupported: Vec<Unsupported>,
    /// The names of entries that are not webhooks of any version, because the names are not ids.
    pub foreign: Vec<String>,
    /// The names of all entries.
    pub names: HashSet<String>,
    /// The number of webhooks with a secret in plain text.
    pub plaintext: usize,
}

/// Parses a stored webhook. The name of the entry is its id, whatever the JSON says, because deliveries and changes use
/// the name.
pub(super) fn parsed(id: WebhookId, json: &[u8]) -> Result<StoredWebhook, StoreError> {
    match serde_json::from_slice::<StoredWebhook>(json) {
        Ok(webhook) => Ok(Webhook { id, ..webhook }),
        Err(error) => Err(StoreError::Unreadable { id, problem: Unsupported::read(id, json, &error).problem }),
    }
}

impl Listing {
    /// Reads the entries of the hash.
    pub(super) fn read(entries: Vec<(Vec<u8>, Vec<u8>)>, sealing: &Sealing) -> Self {
        let mut listing = Self::default();
        for (name, json) in entries {
            let name = String::from_utf8_lossy(&name).into_owned();
            listing.names.insert(name.clone());
            let Ok(id) = name.parse::<WebhookId>() else {
                listing.foreign.push(name);
                continue;
            };
            let stored = match serde_json::from_slice::<StoredWebhook>(&json) {
                Ok(webhook) => Webhook { id, ..webhook },
                Err(error) => {
                    listing.unsupported.push(Unsupported::read(id, &json, &error));
                    continue;
                }
            };
            listing.plaintext += usize::from(stored.has_plaintext());
            match sealing.open(stored) {
                Ok(webhook) => listing.webhooks.push(webhook),
                Err(unopened) => {
                    let problem = format!("its secret can't be opened: {unopened}");
                    listing.unsupported.push(Unsupported::read(id, &json, &problem));
                }
            }
        }
        listing.webhooks.sort_by(|a, b| (&a.created_at, a.id).cmp(&(&b.created_at, b.id)));
        listing.unsupported.sort_by_key(|unsupported| unsupported.id);
        listing
    }
}
