//! The keys that seal secrets at rest (`secrets.keys`), and sealed secrets.
//!
//! A secret is sealed with XChaCha20-Poly1305 under a random nonce. The place where it is stored is authenticated with
//! it, so a sealed secret that somebody copies to another place can't be opened there.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Secret;

/// The length of a key, in bytes.
const KEY_LEN: usize = 32;
/// The length of a nonce, in bytes. Random nonces of this length don't repeat in practice.
const NONCE_LEN: usize = 24;
/// The longest id of a key, in characters.
const ID_MAX: usize = 32;
/// The most keys.
const KEYS_MAX: usize = 64;
/// The version of the sealed form, which begins each sealed text.
const FORM: &str = "v1.";

/// A sealed secret, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The id of the key that sealed it.
    pub key: String,
    /// `v1.` and the base64 of the nonce, the ciphertext and the tag.
    pub sealed: String,
}

/// Why a sealed secret can't be opened. The text is the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// No configured key has this id.
    #[error("it is sealed with the key {0:?}, which is not among secrets.keys")]
    NoKey(String),
    /// A newer version of this program sealed it.
    #[error("it is sealed in a form that this version doesn't know")]
    NewerForm,
    /// The key with the right id doesn't open it, or it was sealed for another place.
    #[error("the key {0:?} doesn't open it: the key is another one, or the sealed text was changed or moved")]
    Refused(String),
}

/// Why keys can't be used. The text has no part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadKeys(String);

struct Key {
    id: String,
    /// The cipher zeroes its key when it is dropped.
    cipher: XChaCha20Poly1305,
}

/// The keys. The first one seals, and all of them open. Clones share them.
#[derive(Clone, Default)]
pub struct Keyring(Arc<[Key]>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl Keyring {
    /// Reads keys that are written `id:base64` and separated by commas or line breaks. Lines that begin with `#` are
    /// comments.
    ///
    /// # Errors
    /// [`BadKeys`] names the position of the first key that can't be read.
    pub fn parse(text: &Secret) -> Result<Self, BadKeys> {
        let lines = text.expose().lines().filter(|line| !line.trim_start().starts_with('#'));
        let entries = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty());
        let mut keys: Vec<Key> = Vec::new();
        for (index, entry) in entries.enumerate() {
            let bad = |problem: &str| BadKeys(format!("key number {} {problem}", index + 1));
            let (id, encoded) = entry.split_once(':').ok_or_else(|| bad("has no id; a key is written id:base64"))?;
            if id.is_empty()
                || id.len() > ID_MAX
                || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            {
                return Err(bad(&format!("has an id that isn't 1 to {ID_MAX} characters from a-z A-Z 0-9 . _ -")));
            }
            let bytes = Zeroizing::new(STANDARD.decode(encoded).unwrap_or_default());
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| {
                bad(&format!("isn't the base64 of {KEY_LEN} bytes; `optio-webhooks secrets generate-key` prints one"))
            })?;
            if keys.iter().any(|key| key.id == id) {
                return Err(bad("has the id of an earlier key; each key needs its own id"));
            }
            if keys.len() == KEYS_MAX {
                return Err(BadKeys(format!("there are more than {KEYS_MAX} keys")));
            }
            keys.push(Key { id: id.to_owned(), cipher });
        }
        Ok(Self(keys.into()))
    }

    /// Whether there is no key, so that nothing can be sealed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of the key that seals, if there is a key.
    #[must_use]
    pub fn sealing_id(&self) -> Option<&str> {
        self.0.first().map(|key| key.id.as_str())
    }

    /// Seals `secret` for `place` with the first key. Returns `None` if there is no key.
    #[must_use]
    pub fn seal(&self, place: &str, secret: &Secret) -> Option<Sealed> {
        let key = self.0.first()?;
        let nonce: [u8; NONCE_LEN] = rand::random();
        let payload = Payload { msg: secret.expose().as_bytes(), aad: &authenticated(&key.id, place) };
        let ciphertext = key.cipher.encrypt(&XNonce::from(nonce), payload).expect("secrets are short");
        let sealed = format!("{FORM}{}", STANDARD.encode([&nonce[..], &ciphertext].concat()));
        Some(Sealed { key: key.id.clone(), sealed })
    }

    /// Opens a secret that was sealed for `place`.
    ///
    /// # Errors
    /// [`Unopened`] says which key is missing or that the sealed text doesn't belong here.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Secret, Unopened> {
        let encoded = sealed.sealed.strip_prefix(FORM).ok_or(Unopened::NewerForm)?;
        let key = self.0.iter().find(|key| key.id == sealed.key);
        let key = key.ok_or_else(|| Unopened::NoKey(sealed.key.chars().take(ID_MAX).collect()))?;
        let refused = || Unopened::Refused(key.id.clone());
        let bytes = STANDARD.decode(encoded).map_err(|_| refused())?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(refused)?;
        let payload = Payload { msg: ciphertext, aad: &authenticated(&key.id, place) };
        let text = key.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| refused())?;
        // The bytes of a text that isn't UTF-8 are zeroed as well.
        let text = String::from_utf8(text).map_err(|error| drop(Zeroizing::new(error.into_bytes())));
        text.map(Secret::from).map_err(|()| refused())
    }
}

/// What is authenticated with a sealed secret: the form, the key and the place. No part contains a line break.
fn authenticated(key: &str, place: &str) -> Vec<u8> {
    format!("optio-webhooks {FORM}\n{key}\n{place}").into_bytes()
}

/// Generates a key as `secrets.keys` takes it: `id:base64`.
#[must_use]
pub fn generate_key(id: &str) -> Secret {
    let bytes = Zeroizing::new(rand::random::<[u8; KEY_LEN]>());
    format!("{id}:{}", Zeroizing::new(STANDARD.encode(*bytes)).as_str()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[&Secret]) -> Keyring {
        let text = keys.iter().map(|key| key.expose()).collect::<Vec<_>>().join(",");
        Keyring::parse(&text.into()).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_with_its_key_in_its_place_only() {
        let (old, new) = (generate_key("old"), generate_key("new"));
        let sealed = ring(&[&old]).seal("webhook/1/secret", &"hunter2".into()).unwrap();
        assert!(!format!("{sealed:?}").contains("hunter2"));
        let both = ring(&[&new, &old]);
        assert_eq!(both.sealing_id(), Some("new"));
        assert_eq!(both.open("webhook/1/secret", &sealed).unwrap().expose(), "hunter2");
        assert_eq!(both.open("webhook/2/secret", &sealed), Err(Unopened::Refused("old".to_owned())));
        assert_eq!(ring(&[&new]).open("webhook/1/secret", &sealed), Err(Unopened::NoKey("old".to_owned())));
        let renamed = Sealed { key: "new".to_owned(), ..sealed.clone() };
        assert!(both.open("webhook/1/secret", &renamed).is_err());
        let newer = Sealed { sealed: "v2.AAAA".to_owned(), ..sealed.clone() };
        assert_eq!(both.open("webhook/1/secret", &newer), Err(Unopened::NewerForm));
        for broken in ["v1.", "v1.AAAA", "v1.!", &format!("{}A", sealed.sealed)] {
            let broken = Sealed { sealed: broken.to_owned(), ..sealed.clone() };
            assert!(both.open("webhook/1/secret", &broken).is_err(), "{broken:?}");
        }
        assert_ne!(both.seal("p", &"a".into()), both.seal("p", &"a".into()), "each nonce is new");
    }

    #[test]
    fn keys_are_separated_by_commas_or_lines_and_bad_ones_are_refused_without_being_shown() {
        let (one, two) = (generate_key("one"), generate_key("two"));
        let text = format!("# the newest first\n {}\n\n{} ,\n", one.expose(), two.expose());
        assert_eq!(format!("{:?}", Keyring::parse(&text.into()).unwrap()), r#"["one", "two"]"#);
        assert!(Keyring::parse(&"".into()).unwrap().is_empty());
        let hidden = "c2VjcmV0";
        for bad in
            [hidden.to_owned(), format!("k:{hidden}"), format!(":{hidden}"), format!("k k:{hidden}"), "k:".to_owned()]
        {
            let problem = Keyring::parse(&bad.clone().into()).unwrap_err().to_string();
            assert!(problem.starts_with("key number 1 ") && !problem.contains(hidden), "{bad}: {problem}");
        }
        let twice = format!("{},{}", one.expose(), one.expose());
        assert!(Keyring::parse(&twice.into()).unwrap_err().to_string().starts_with("key number 2 has the id"));
    }
}
