//! A text that nobody may see: it is printed as a mask, never serialized, and zeroed when it is dropped.

pub mod keyring;
pub mod optio;

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq as _;

/// Replaces every secret that is shown.
pub const MASK: &str = "••••••";

/// A secret text, such as a password, a token or the secret of a webhook.
///
/// It has no `Serialize`, so nothing that contains it can be written anywhere by accident.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// Returns the text. Call it only where the text is used, and never for something that is shown or logged.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }

    /// Whether the text is the mask, which a client got instead of the secret and sends back.
    #[must_use]
    pub fn is_mask(&self) -> bool {
        self.expose() == MASK
    }

    /// Returns what may be shown instead of the secret: the mask, or nothing for an empty text.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { MASK }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

/// The comparison takes the same time for all texts of one length.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_printed_as_a_mask() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "•••••• •••••• Some(••••••)");
        assert_eq!(format!("{}", Secret::default()), "");
    }

    #[test]
    fn secrets_are_equal_if_their_texts_are() {
        assert_eq!(Secret::from("a"), Secret::from("a".to_owned()));
        assert_ne!(Secret::from("a"), Secret::from("ab"));
    }
}
