//! The secret of a webhook: a shared secret or a private key, and the signatures that it makes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::Mac as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::keyed;
use crate::secret::Secret;

/// The longest secret, in bytes.
pub const SECRET_MAX: usize = 512;
/// The prefix of a shared secret in the form of Standard Webhooks.
const SHARED: &str = "whsec_";
/// The prefix of an ed25519 private key in the form of Standard Webhooks.
const PRIVATE: &str = "whsk_";
/// The prefix of an ed25519 public key in the form of Standard Webhooks.
const PUBLIC: &str = "whpk_";
/// The fewest bytes of a shared secret that is hard to guess (Standard Webhooks, "Signature scheme").
const SHARED_MIN: usize = 24;
/// The length of an ed25519 seed and of a public key, in bytes (RFC 8032 section 5.1.5).
const ED25519_LEN: usize = 32;

/// The kinds of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signing {
    /// HMAC-SHA256 with a secret that the receiver has as well: `X-Optio-Signature`, and `v1` of Standard Webhooks.
    Hmac,
    /// Ed25519 with a private key that only Optio has: `v1a` of Standard Webhooks. The receiver has the public key.
    Ed25519,
}

/// Why a secret is refused. The text continues "secret: " and has no part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSecret(pub String);

/// A secret with the key that it stands for.
#[derive(Clone)]
pub struct SigningSecret {
    text: Secret,
    key: Key,
}

#[derive(Clone)]
enum Key {
    /// The key of `v1` signatures. Optio's own signature uses the bytes of the text.
    Shared(Zeroizing<Vec<u8>>),
    /// The key of `v1a` signatures. It zeroes itself when it is dropped.
    Ed25519(Box<SigningKey>),
}

impl SigningSecret {
    /// Reads a secret that a person or a program enters.
    ///
    /// # Errors
    /// [`BadSecret`] if the secret is empty or too long, or if it begins like a form of Standard Webhooks and isn't in
    /// that form.
    pub fn parse(text: Secret) -> Result<Self, BadSecret> {
        let bad = |problem: String| Err(BadSecret(problem));
        let entered = text.expose();
        if entered.is_empty() || entered.len() > SECRET_MAX {
            return bad(format!("1 to {SECRET_MAX} bytes are allowed; leave it out for unsigned requests"));
        }
        if entered.chars().any(char::is_control) {
            return bad("contains a line break or another control character".to_owned());
        }
        if entered.starts_with(PUBLIC) {
            return bad(format!(
                "is a public key; a private key begins with {PRIVATE}, and is generated if you leave it out"
            ));
        }
        if let Some(encoded) = entered.strip_prefix(SHARED) {
            match decode(encoded) {
                None => return bad(format!("begins with {SHARED}, and the rest isn't base64")),
                Some(bytes) if bytes.len() < SHARED_MIN => {
                    return bad(format!(
                        "has only {} bytes after {SHARED}; use at least {SHARED_MIN} random bytes in base64",
                        bytes.len()
                    ));
                }
                Some(_) => {}
            }
        }
        if let Some(encoded) = entered.strip_prefix(PRIVATE)
            && private_key(encoded).is_none()
        {
            return bad(format!(
                "begins with {PRIVATE}, and the rest isn't the base64 of an ed25519 private key: {ED25519_LEN} bytes, \
                 or {} with the public key",
                2 * ED25519_LEN
            ));
        }
        Ok(Self::stored(text))
    }

    /// Reads a secret that is stored already. An earlier version may have stored one that [`Self::parse`] refuses. Its
    /// signatures stay the same, because receivers verify them.
    #[must_use]
    pub fn stored(text: Secret) -> Self {
        let stored = text.expose();
        let key = match stored.strip_prefix(PRIVATE).and_then(private_key) {
            Some(key) => Key::Ed25519(Box::new(key)),
            None => {
                let decoded = stored.strip_prefix(SHARED).and_then(decode);
                Key::Shared(decoded.unwrap_or_else(|| Zeroizing::new(stored.as_bytes().to_vec())))
            }
        };
        Self { text, key }
    }

    /// Generates a secret: 24 random bytes as `whsec_…`, or an ed25519 key pair as `whsk_…`.
    #[must_use]
    pub fn generate(signing: Signing) -> Self {
        let text = match signing {
            Signing::Hmac => {
                let bytes = Zeroizing::new(rand::random::<[u8; SHARED_MIN]>());
                format!("{SHARED}{}", Zeroizing::new(STANDARD.encode(*bytes)).as_str())
            }
            Signing::Ed25519 => {
                let seed = Zeroizing::new(rand::random::<[u8; ED25519_LEN]>());
                let pair = Zeroizing::new(SigningKey::from_bytes(&seed).to_keypair_bytes());
                format!("{PRIVATE}{}", Zeroizing::new(STANDARD.encode(*pair)).as_str())
            }
        };
        Self::stored(text.into())
    }

    /// The secret as it was entered.
    #[must_use]
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// The kind of signatures that the secret makes.
    #[must_use]
    pub fn signing(&self) -> Signing {
        match self.key {
            Key::Shared(_) => Signing::Hmac,
            Key::Ed25519(_) => Signing::Ed25519,
        }
    }

    /// The public key that verifies the signatures, as `whpk_…`. A shared secret has none.
    #[must_use]
    pub fn public_key(&self) -> Option<String> {
        let Key::Ed25519(key) = &self.key else { return None };
        Some(format!("{PUBLIC}{}", STANDARD.encode(key.verifying_key().as_bytes())))
    }

    /// Why the secret is weaker than it should be, as a sentence without the secret, or `None` if it isn't.
    #[must_use]
    pub fn weakness(&self) -> Option<String> {
        let Key::Shared(key) = &self.key else { return None };
        let length = key.len().min(self.text.expose().len());
        if self.text.expose().starts_with(SHARED) && Self::parse(self.text.clone()).is_err() {
            return Some(format!(
                "The secret begins with {SHARED}, but isn't {SHARED_MIN} bytes or more in base64. Rotate it: other \
                 programs may not verify its signatures, and it may be easy to guess."
            ));
        }
        (length < SHARED_MIN).then(|| {
            format!(
                "The secret has only {length} bytes, so it may be easy to guess. Use at least {SHARED_MIN} random bytes, \
                 such as a generated secret."
            )
        })
    }

    /// Returns the value of `X-Optio-Signature`: the HMAC-SHA256 of the body. The key is the UTF-8 bytes of the secret
    /// as it was entered. A private key makes no such signature, because the receiver can't verify it.
    #[must_use]
    pub fn optio(&self, body: &[u8]) -> Option<String> {
        let Key::Shared(_) = &self.key else { return None };
        let mac = keyed(self.text.expose().as_bytes()).chain_update(body).finalize().into_bytes();
        let mut header = String::with_capacity(71);
        header.push_str("sha256=");
        header.push_str(&hex::encode(mac));
        Some(header)
    }

    /// Returns a signature for `webhook-signature` over `id.timestamp.body`, where `id` is `webhook-id`: `v1` is the HMAC-SHA256, and `v1a` the
    /// ed25519 signature (Standard Webhooks, "Signature scheme").
    #[must_use]
    pub fn standard(&self, id: Uuid, timestamp_s: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp_s}.");
        match &self.key {
            Key::Shared(key) => {
                let mac = keyed(key).chain_update(head).chain_update(body).finalize().into_bytes();
                format!("v1,{}", STANDARD.encode(mac))
            }
            Key::Ed25519(key) => {
                let signature = key.sign(&[head.as_bytes(), body].concat());
                format!("v1a,{}", STANDARD.encode(signature.to_bytes()))
            }
        }
    }
}

/// Shows the kind of the secret, and nothing of the secret itself.
impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.signing(), self.text)
    }
}

impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SigningSecret {}

/// Decodes base64 with its padding, as the libraries of Standard Webhooks do.
fn decode(encoded: &str) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(encoded).ok().map(Zeroizing::new)
}

/// Reads the seed of a private key, or the seed and the public key that belongs to it.
fn private_key(encoded: &str) -> Option<SigningKey> {
    let bytes = decode(encoded)?;
    let (seed, public) = bytes.split_first_chunk::<ED25519_LEN>()?;
    let key = SigningKey::from_bytes(seed);
    (public.is_empty() || public == key.verifying_key().as_bytes()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::super::verify_optio;
    use super::*;

    fn secret(text: &str) -> SigningSecret {
        SigningSecret::parse(text.into()).unwrap()
    }

    // Python computes the same signature:
    //   hmac.new(b"s3cret", b'{"a":1}', "sha256").hexdigest()
    #[test]
    fn optios_signature_is_the_one_that_python_computes() {
        let signature = secret("s3cret").optio(br#"{"a":1}"#).unwrap();
        assert_eq!(signature, "sha256=5910e62016ef5034272c926c27071992a465c2335cecf41851bda071577f4f6d");
        assert!(verify_optio("s3cret", br#"{"a":1}"#, &signature));
        assert!(!verify_optio("s3cret", br#"{"a":2}"#, &signature));
        assert!(!verify_optio("s3cret", b"", "sha256=zz"));
    }

    #[test]
    fn the_standard_signature_is_the_one_that_python_computes() {
        let id = Uuid::from_u128(1);
        let signed = |text| secret(text).standard(id, 1_614_265_330, br#"{"a":1}"#);
        assert_eq!(signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "v1,1mRqZK/rgj9clC3P5iI7CPpJmHnJEEywuotsRiyspfI=");
        assert_eq!(signed("plain"), "v1,J1aZGAMsZmapS1BxiSEUJacvczPsvjjFrf85ZbieH1M=");
    }

    // The private key is the one of RFC 8032 section 7.1, test 1.
    #[test]
    fn a_private_key_has_its_public_key_and_makes_no_shared_signature() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let public = hex::decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        let short = secret(&format!("whsk_{}", STANDARD.encode(&seed)));
        let long = secret(&format!("whsk_{}", STANDARD.encode([&seed[..], &public].concat())));
        for key in [&short, &long] {
            assert_eq!(key.public_key().unwrap(), format!("whpk_{}", STANDARD.encode(&public)));
            assert_eq!((key.signing(), key.optio(b"a")), (Signing::Ed25519, None));
        }
        let id = Uuid::from_u128(1);
        assert_eq!(short.standard(id, 1, b"a"), long.standard(id, 1, b"a"));
        assert!(short.standard(id, 1, b"a").starts_with("v1a,"));
    }

    #[test]
    fn a_secret_in_a_broken_standard_form_is_refused_without_being_shown() {
        let other = STANDARD.encode([&[1; 32][..], &[2; 32]].concat());
        for (text, said) in [
            (String::new(), "1 to 512 bytes"),
            ("x".repeat(513), "1 to 512 bytes"),
            ("hunter2\n".to_owned(), "control character"),
            ("whsec_".to_owned(), "only 0 bytes"),
            ("whsec_hunter2!".to_owned(), "isn't base64"),
            ("whsec_aHVudGVyMg==".to_owned(), "only 7 bytes"),
            ("whsk_aHVudGVyMg==".to_owned(), "isn't the base64 of an ed25519 private key"),
            (format!("whsk_{other}"), "isn't the base64 of an ed25519 private key"),
            ("whpk_aHVudGVyMg==".to_owned(), "is a public key"),
        ] {
            let problem = SigningSecret::parse(text.clone().into()).unwrap_err().to_string();
            assert!(problem.contains(said) && !problem.contains("hunter2"), "{text}: {problem}");
        }
    }

    #[test]
    fn a_stored_secret_in_a_broken_form_signs_as_before_and_is_called_weak() {
        let id = Uuid::from_u128(1);
        let stored = |text: &str| SigningSecret::stored(text.into());
        let by_bytes = |key: &[u8]| {
            let mac = keyed(key).chain_update(format!("{id}.1.")).chain_update(b"a").finalize().into_bytes();
            format!("v1,{}", STANDARD.encode(mac))
        };
        assert_eq!(stored("whsec_!").standard(id, 1, b"a"), by_bytes(b"whsec_!"));
        assert_eq!(stored("whsec_").standard(id, 1, b"a"), by_bytes(b""));
        for weak in ["whsec_!", "whsec_", "short"] {
            assert!(stored(weak).weakness().is_some(), "{weak}");
        }
        for strong in
            [SigningSecret::generate(Signing::Hmac), SigningSecret::generate(Signing::Ed25519), secret(&"x".repeat(24))]
        {
            assert_eq!(strong.weakness(), None);
            assert_eq!(SigningSecret::parse(strong.text().clone()).unwrap(), strong);
            assert!(!format!("{strong:?}").contains("wh"));
        }
    }
}
