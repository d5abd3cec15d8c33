//! What the keeper reports about the webhooks that it reads.

use super::Keeper;
use crate::conditions::Severity;
use crate::store::webhooks::Listing;

/// The largest number of entries that the condition on unsupported webhooks lists.
const REPORTED_MAX: usize = 5;
/// The name of a condition. `docs/reference.md`, section "Conditions", lists all of them.
const UNSUPPORTED: &str = "webhooks that can't be read";

impl Keeper {
    pub(super) fn report_plaintext(&mut self, listing: &Listing) {
        if listing.plaintext > 0 && !std::mem::replace(&mut self.has_reported_plaintext, true) {
            tracing::warn!(
                webhooks = listing.plaintext,
                "secrets of webhooks are stored in Redis as plain text; set secrets.keys and run `optio-webhooks secrets \
                 rotate` to seal them"
            );
        }
    }

    pub(super) fn report_unsupported(&self, listing: &Listing) {
        let unsupported =
            listing.unsupported.iter().map(|unsupported| format!("{} ({})", unsupported.id, unsupported.problem));
        let foreign = listing.foreign.iter().map(|name| format!("{name:?} (not the id of a webhook)"));
        let names: Vec<String> = unsupported.chain(foreign).collect();
        if names.is_empty() {
            return self.setup.conditions.clear(UNSUPPORTED);
        }
        let more = match names.len().saturating_sub(REPORTED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = names[..names.len().min(REPORTED_MAX)].join(", ");
        self.setup.conditions.set(
            UNSUPPORTED,
            Severity::Warning,
            format!("their deliveries wait, and those of other webhooks go on: {names}{more}"),
        );
    }
}
