//! A webhook as Redis holds it: with its secrets sealed. This is the only place that writes a secret.

use std::cell::Cell;

use serde::{Deserialize, Serialize, Serializer};

use super::custom_header::CustomHeader;
use super::draft::Replaces;
use super::{PreviousSecret, Webhook, WebhookId};
use crate::config::{self, BadConfig};
use crate::secret::Secret;
use crate::secret::keyring::{Keyring, Sealed, Unopened};
use crate::signature::SigningSecret;

/// A secret as Redis holds it.
///
/// A sealed one is an object, so that a version of this program that can't open it can't take it for the secret
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StoredSecret {
    /// Sealed under one of `secrets.keys`.
    Sealed(Sealed),
    /// Plain text: an earlier version wrote it, or `secrets.allow_plaintext` is true.
    Plain(#[serde(serialize_with = "plain")] Secret),
}

/// Writes a secret as plain text.
fn plain<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// A webhook as Redis holds it.
pub type StoredWebhook = Webhook<StoredSecret, StoredSecret>;

/// A secret can't be stored, because there is no key that seals it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "can't be stored, because no key seals it: an operator must set secrets.keys (`optio-webhooks secrets generate-key` \
     prints a key), or allow plain text with secrets.allow_plaintext"
)]
pub struct NoSealingKey;

/// Seals and opens the secrets of webhooks.
#[derive(Debug, Clone)]
pub struct Sealing {
    keys: Keyring,
    allow_plaintext: bool,
}

/// The fields of a webhook that hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field<'a> {
    Secret,
    PreviousSecret,
    /// An older secret, by its position.
    OlderSecret(usize),
    /// The value of the header with this name.
    Header(&'a str),
}

/// Names the place of a secret. A sealed secret opens only there.
fn place(webhook: WebhookId, field: Field<'_>) -> String {
    match field {
        Field::Secret => format!("webhook/{webhook}/secret"),
        Field::PreviousSecret => format!("webhook/{webhook}/previous-secret"),
        Field::OlderSecret(at) => format!("webhook/{webhook}/older-secret/{at}"),
        Field::Header(name) => format!("webhook/{webhook}/header/{}", name.to_ascii_lowercase()),
    }
}

impl Sealing {
    /// Seals with `keys`. Without a key, plain text is written only if `allow_plaintext` is true.
    #[must_use]
    pub fn new(keys: Keyring, allow_plaintext: bool) -> Self {
        Self { keys, allow_plaintext }
    }

    /// Seals as the settings say.
    ///
    /// # Errors
    /// [`BadConfig`] if a key or the file of the keys can't be read.
    pub fn of(settings: &config::Secrets) -> Result<Self, BadConfig> {
        Ok(Self::new(settings.keyring()?, settings.allow_plaintext))
    }

    /// Seals the secrets of a webhook. `before` is the webhook as it is stored. A secret that is unchanged stays as it
    /// is stored, unless it is plain text and can be sealed now.
    ///
    /// # Errors
    /// [`NoSealingKey`] if a new secret would be written as plain text and may not be.
    pub fn seal(&self, webhook: &Webhook, before: Option<&StoredWebhook>) -> Result<StoredWebhook, NoSealingKey> {
        let id = webhook.id;
        let seal = |field: Field<'_>, secret: &Secret| {
            let stored = before.and_then(|before| before.secret_at(field));
            if let Some(stored) = stored
                && (self.keys.is_empty() || matches!(stored, StoredSecret::Sealed(_)))
                && self.open_one(id, field, stored).is_ok_and(|before| before == *secret)
            {
                return Ok(stored.clone());
            }
            self.seal_one(id, field, secret)
        };
        webhook.clone().map_secrets(
            |field, secret: SigningSecret| seal(field, secret.text()),
            |field, value: Secret| seal(field, &value),
        )
    }

    fn seal_one(&self, id: WebhookId, field: Field<'_>, secret: &Secret) -> Result<StoredSecret, NoSealingKey> {
        match self.keys.seal(&place(id, field), secret) {
            Some(sealed) => Ok(StoredSecret::Sealed(sealed)),
            None if self.allow_plaintext => Ok(StoredSecret::Plain(secret.clone())),
            None => Err(NoSealingKey),
        }
    }

    /// Opens the secrets of a stored webhook.
    ///
    /// # Errors
    /// [`Unopened`] says why the first sealed secret can't be opened.
    pub fn open(&self, stored: StoredWebhook) -> Result<Webhook, Unopened> {
        let id = stored.id;
        stored.map_secrets(
            |field, secret| self.open_one(id, field, &secret).map(SigningSecret::stored),
            |field, value| self.open_one(id, field, &value),
        )
    }

    /// Opens the secrets of a webhook that is about to be changed. Secrets that the change replaces and that can't be
    /// opened are left out.
    ///
    /// # Errors
    /// [`Unopened`] says why a secret that the change keeps can't be opened.
    pub fn open_to_change(&self, stored: StoredWebhook, replaces: Replaces) -> Result<Webhook, Unopened> {
        let mut stored = stored;
        let id = stored.id;
        let opens = |field: Field<'_>, secret: &StoredSecret| self.open_one(id, field, secret).is_ok();
        if replaces.secret {
            stored.secret = stored.secret.filter(|secret| opens(Field::Secret, secret));
            stored.previous_secret =
                stored.previous_secret.filter(|previous| opens(Field::PreviousSecret, &previous.secret));
            let older = std::mem::take(&mut stored.older_secrets).into_iter().enumerate();
            let mut lost = false;
            // A secret opens only at its own position, so the ones after one that is lost are lost as well.
            stored.older_secrets = older
                .filter(|(at, older)| {
                    lost |= !opens(Field::OlderSecret(*at), &older.secret);
                    !lost
                })
                .map(|(_, older)| older)
                .collect();
        }
        if replaces.headers {
            stored.headers.retain(|header| opens(Field::Header(&header.name), &header.value));
        }
        self.open(stored)
    }

    fn open_one(&self, id: WebhookId, field: Field<'_>, secret: &StoredSecret) -> Result<Secret, Unopened> {
        match secret {
            StoredSecret::Sealed(sealed) => self.keys.open(&place(id, field), sealed),
            StoredSecret::Plain(secret) => Ok(secret.clone()),
        }
    }

    /// Seals again each secret of a stored webhook that isn't sealed with the first key. Returns `None` if there is
    /// none.
    ///
    /// # Errors
    /// [`Unopened`] says why a sealed secret can't be opened.
    pub fn reseal(&self, stored: &StoredWebhook) -> Result<Option<StoredWebhook>, Unopened> {
        let first = self.keys.sealing_id();
        let has_changed = Cell::new(false);
        let reseal = |field: Field<'_>, secret: StoredSecret| {
            if matches!(&secret, StoredSecret::Sealed(sealed) if Some(sealed.key.as_str()) == first) {
                return Ok(secret);
            }
            let opened = self.open_one(stored.id, field, &secret)?;
            let sealed = self.keys.seal(&place(stored.id, field), &opened);
            has_changed.set(has_changed.get() || sealed.is_some());
            Ok(sealed.map_or(secret, StoredSecret::Sealed))
        };
        let resealed = stored.clone().map_secrets(reseal, reseal)?;
        Ok(has_changed.get().then_some(resealed))
    }
}

impl<S, V> Webhook<S, V> {
    /// Replaces the types of the secrets: `sign` maps those that sign, and `text` the values of headers.
    fn map_secrets<T, W, E>(
        self,
        sign: impl Fn(Field<'_>, S) -> Result<T, E>,
        text: impl Fn(Field<'_>, V) -> Result<W, E>,
    ) -> Result<Webhook<T, W>, E> {
        let secret = self.secret.map(|secret| sign(Field::Secret, secret)).transpose()?;
        let previous_secret = self.previous_secret.map(|PreviousSecret { secret, until_ms }| {
            sign(Field::PreviousSecret, secret).map(|secret| PreviousSecret { secret, until_ms })
        });
        let older_secrets =
            self.older_secrets.into_iter().enumerate().map(|(at, PreviousSecret { secret, until_ms })| {
                sign(Field::OlderSecret(at), secret).map(|secret| PreviousSecret { secret, until_ms })
            });
        let headers = self.headers.into_iter().map(|CustomHeader { name, value }| {
            text(Field::Header(&name), value).map(|value| CustomHeader { name: name.clone(), value })
        });
        Ok(Webhook {
            id: self.id,
            url: self.url,
            events: self.events,
            secret,
            previous_secret: previous_secret.transpose()?,
            older_secrets: older_secrets.collect::<Result<_, E>>()?,
            description: self.description,
            active: self.active,
            hold: self.hold,
            disabled_reason: self.disabled_reason,
            format: self.format,
            headers: headers.collect::<Result<_, E>>()?,
            filter: self.filter,
            rate_per_second: self.rate_per_second,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl StoredWebhook {
    fn secret_at(&self, field: Field<'_>) -> Option<&StoredSecret> {
        match field {
            Field::Secret => self.secret.as_ref(),
            Field::PreviousSecret => self.previous_secret.as_ref().map(|previous| &previous.secret),
            Field::OlderSecret(at) => self.older_secrets.get(at).map(|older| &older.secret),
            Field::Header(name) => {
                let found = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
                found.map(|header| &header.value)
            }
        }
    }

    /// Whether a secret of the webhook is plain text.
    #[must_use]
    pub fn has_plaintext(&self) -> bool {
        let secrets = [Field::Secret, Field::PreviousSecret].map(|field| self.secret_at(field));
        let older = self.older_secrets.iter().map(|older| &older.secret);
        let values = self.headers.iter().map(|header| &header.value);
        secrets.into_iter().flatten().chain(older).chain(values).any(|secret| matches!(secret, StoredSecret::Plain(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::EventType;
    use crate::secret::keyring::generate_key;

    fn keyring(ids: &[&str]) -> Keyring {
        let keys: Vec<String> = ids.iter().map(|id| generate_key(id).expose().to_owned()).collect();
        Keyring::parse(&keys.join(",").into()).unwrap()
    }

    fn webhook() -> Webhook {
        let mut webhook = Webhook::new("https://example.com/".parse().unwrap(), vec![EventType::TaskFailed], 0);
        webhook.secret = Some(SigningSecret::parse("oldest-hunter2".into()).unwrap());
        for secret in ["old-hunter2", "new-hunter2"] {
            webhook.rotate(SigningSecret::parse(secret.into()).unwrap(), Duration::from_secs(60), 1_000).unwrap();
        }
        webhook.headers = vec![CustomHeader { name: "Authorization".to_owned(), value: "Bearer hunter2".into() }];
        webhook
    }

    #[test]
    fn every_secret_is_sealed_and_opened_again() {
        let sealing = Sealing::new(keyring(&["k1"]), false);
        let stored = sealing.seal(&webhook(), None).unwrap();
        let json = serde_json::to_string(&stored).unwrap();
        assert!(!json.contains("hunter2") && !stored.has_plaintext(), "{json}");
        let read: StoredWebhook = serde_json::from_str(&json).unwrap();
        let opened = sealing.open(read.clone()).unwrap();
        assert_eq!(opened.secret, webhook().secret);
        assert_eq!((opened.previous_secret, opened.headers), (webhook().previous_secret, webhook().headers));
        assert_eq!(opened.older_secrets, webhook().older_secrets);
        let swapped = Webhook { secret: read.secret_at(Field::PreviousSecret).cloned(), ..read.clone() };
        assert!(sealing.open(swapped).is_err(), "a sealed secret opens only in its own field");
        let mut renamed = read.clone();
        renamed.headers[0].name = "X-Other".to_owned();
        assert!(sealing.open(renamed).is_err(), "a sealed value opens only under its own name");
        let other = Webhook { id: WebhookId(uuid::Uuid::nil()), ..read };
        assert!(sealing.open(other).is_err(), "a sealed secret opens only in its own webhook");
    }

    #[test]
    fn without_a_key_a_new_secret_is_refused_and_a_stored_one_stays() {
        let (refusing, allowing) = (Sealing::new(keyring(&[]), false), Sealing::new(keyring(&[]), true));
        assert_eq!(refusing.seal(&webhook(), None), Err(NoSealingKey));
        let stored = allowing.seal(&webhook(), None).unwrap();
        assert!(stored.has_plaintext());
        let mut opened = refusing.open(stored.clone()).unwrap();
        opened.id = stored.id;
        opened.description = Some("changed".to_owned());
        let kept = refusing.seal(&opened, Some(&stored)).unwrap();
        assert_eq!((kept.secret, kept.description.as_deref()), (stored.secret.clone(), Some("changed")));
        let sealed = Sealing::new(keyring(&["k1"]), false).seal(&opened, Some(&stored)).unwrap();
        assert!(!sealed.has_plaintext(), "with a key the next change seals it");
    }

    #[test]
    fn an_unchanged_secret_keeps_its_sealed_form_and_resealing_uses_the_first_key() {
        let keys = [generate_key("old"), generate_key("new")];
        let ring = |order: [usize; 2]| {
            let text = order.map(|index| keys[index].expose().to_owned()).join("\n");
            Sealing::new(Keyring::parse(&text.into()).unwrap(), false)
        };
        let (before, after) = (ring([0, 1]), ring([1, 0]));
        let stored = before.seal(&webhook(), None).unwrap();
        let opened = after.open(stored.clone()).unwrap();
        assert_eq!(after.seal(&opened, Some(&stored)).unwrap(), stored);
        let resealed = after.reseal(&stored).unwrap().unwrap();
        let only_new = Sealing::new(Keyring::parse(&keys[1]).unwrap(), false);
        assert_eq!(only_new.open(resealed.clone()).unwrap().secret, opened.secret);
        assert_eq!(after.reseal(&resealed).unwrap(), None, "nothing is left to do");
        assert!(only_new.reseal(&stored).is_err() && only_new.open(stored.clone()).is_err());
        assert!(only_new.open_to_change(stored.clone(), Replaces { secret: true, headers: false }).is_err());
        let lost = only_new.open_to_change(stored, Replaces { secret: true, headers: true }).unwrap();
        assert_eq!((lost.secret, lost.previous_secret, lost.headers), (None, None, vec![]));
        assert!(lost.older_secrets.is_empty());
    }

    #[test]
    fn a_sealed_secret_is_no_text_that_an_earlier_version_could_take_for_the_secret() {
        let stored = Sealing::new(keyring(&["k1"]), false).seal(&webhook(), None).unwrap();
        assert!(serde_json::to_value(&stored).unwrap()["secret"].is_object());
    }
}
