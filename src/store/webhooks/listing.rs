//! The webhooks of Redis, as far as this version can read them.

use std::collections::HashSet;

use crate::store::StoreError;
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
}

pub(super) fn readable(id: WebhookId, json: &[u8]) -> Result<Webhook, StoreError> {
    serde_json::from_slice(json)
        .map_err(|error| StoreError::Unreadable { id, problem: Unsupported::read(id, json, &error).problem })
}

impl Listing {
    /// Reads the entries of the hash.
    pub(super) fn read(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut listing = Self::default();
        for (name, json) in entries {
            let name = String::from_utf8_lossy(&name).into_owned();
            listing.names.insert(name.clone());
            let Ok(id) = name.parse::<WebhookId>() else {
                listing.foreign.push(name);
                continue;
            };
            match serde_json::from_slice::<Webhook>(&json) {
                // Deliveries and changes use the name of the entry, so it overrides the id in the JSON.
                Ok(webhook) => listing.webhooks.push(Webhook { id, ..webhook }),
                Err(error) => listing.unsupported.push(Unsupported::read(id, &json, &error)),
            }
        }
        listing.webhooks.sort_by(|a, b| (&a.created_at, a.id).cmp(&(&b.created_at, b.id)));
        listing.unsupported.sort_by_key(|unsupported| unsupported.id);
        listing
    }
}
