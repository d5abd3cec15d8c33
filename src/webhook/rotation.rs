//! The rotation of a webhook's secret: earlier secrets go on signing for a while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BadWebhook, Webhook};
use crate::clock::{millis, rfc3339};
use crate::signature::SigningSecret;

/// A secret before a rotation, which goes on signing for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousSecret<S = SigningSecret> {
    /// The secret.
    pub secret: S,
    /// The end of the overlap, in Unix milliseconds. The secret signs until then.
    pub until_ms: i64,
}

/// The longest overlap, for which a previous secret goes on signing after a rotation.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The most earlier secrets that sign at once. Each makes a signature of every request.
const EARLIER_SECRETS_MAX: usize = 4;

impl Webhook {
    /// Replaces the secret. The current one signs `webhook-signature` as well for `overlap`, and so do earlier ones until
    /// their own overlaps end, because a receiver may still use any of them. An overlap of zero ends them all.
    ///
    /// # Errors
    /// Too many secrets would sign.
    pub fn rotate(&mut self, secret: SigningSecret, overlap: Duration, now_ms: i64) -> Result<(), BadWebhook> {
        self.forget_ended(now_ms);
        let earlier = self.previous_secret.iter().chain(&self.older_secrets);
        let first_end = earlier.clone().map(|previous| previous.until_ms).min();
        if let Some(first_end) = first_end.filter(|_| !overlap.is_zero() && earlier.count() >= EARLIER_SECRETS_MAX) {
            let problem = format!(
                "{EARLIER_SECRETS_MAX} earlier secrets still sign, the first until {}; rotate again after that, or with an \
                 overlap of 0s, which ends all of them at once",
                rfc3339(first_end)
            );
            return Err(BadWebhook { field: "overlap", problem });
        }
        let old = self.secret.replace(secret);
        if overlap.is_zero() {
            self.end_overlap();
            return Ok(());
        }
        self.older_secrets.splice(0..0, self.previous_secret.take());
        self.previous_secret = old.map(|secret| PreviousSecret { secret, until_ms: now_ms + millis(overlap) });
        Ok(())
    }

    /// Ends the overlap of all earlier secrets.
    pub fn end_overlap(&mut self) {
        self.previous_secret = None;
        self.older_secrets.clear();
    }

    /// Removes the secrets whose overlap has ended at `now_ms`.
    pub fn forget_ended(&mut self, now_ms: i64) {
        self.older_secrets.retain(|older| older.until_ms > now_ms);
        if self.previous_secret.as_ref().is_some_and(|previous| previous.until_ms <= now_ms) {
            self.previous_secret = None;
        }
    }

    /// The earlier secrets that sign at `now_ms`, newest first.
    fn earlier_secrets(&self, now_ms: i64) -> impl Iterator<Item = &PreviousSecret> {
        self.previous_secret.iter().chain(&self.older_secrets).filter(move |earlier| earlier.until_ms > now_ms)
    }

    /// Returns when the last overlap ends, in Unix milliseconds, or `None` if only the current secret signs at `now_ms`.
    #[must_use]
    pub fn overlap_until_ms(&self, now_ms: i64) -> Option<i64> {
        self.earlier_secrets(now_ms).map(|earlier| earlier.until_ms).max()
    }

    /// Returns the secrets that sign `webhook-signature` at `now_ms`, the current one first.
    pub fn secrets(&self, now_ms: i64) -> impl Iterator<Item = &SigningSecret> {
        self.secret.iter().chain(self.earlier_secrets(now_ms).map(|earlier| &earlier.secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;

    fn signing_secret(text: &str) -> SigningSecret {
        SigningSecret::parse(text.into()).unwrap()
    }

    #[test]
    fn the_previous_secret_signs_as_well_until_the_overlap_ends() {
        let mut webhook = Webhook::new("https://example.com/".parse().unwrap(), vec![EventType::TaskFailed], 0);
        webhook.secret = Some(signing_secret("old"));
        webhook.rotate(signing_secret("new"), Duration::from_secs(60), 1_000).unwrap();
        let signing = |webhook: &Webhook, at| {
            webhook.secrets(at).map(|secret| secret.text().expose().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(signing(&webhook, 60_999), ["new", "old"]);
        assert_eq!(signing(&webhook, 61_000), ["new"]);
        webhook.rotate(signing_secret("newer"), Duration::from_secs(60), 11_000).unwrap();
        assert_eq!(signing(&webhook, 11_000), ["newer", "new", "old"], "a receiver may still use the first one");
        assert_eq!(signing(&webhook, 61_000), ["newer", "new"]);
        for more in 0..2 {
            webhook.rotate(signing_secret("more"), Duration::from_secs(60), 12_000 + more).unwrap();
        }
        let refused = webhook.rotate(signing_secret("too many"), Duration::from_secs(60), 13_000).unwrap_err();
        assert_eq!((refused.field, signing(&webhook, 13_000).len()), ("overlap", 5));
        webhook.rotate(signing_secret("newest"), Duration::ZERO, 14_000).unwrap();
        assert_eq!(signing(&webhook, 14_000), ["newest"]);
    }
}
