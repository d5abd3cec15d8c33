//! The keys that seal secrets.

use serde::{Deserialize, Serialize};

use super::{BadConfig, masked};
use crate::secret::Secret;
use crate::secret::keyring::Keyring;

/// `[secrets]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    #[serde(serialize_with = "masked::secret")]
    pub keys: Secret,
    pub keys_file: String,
    pub allow_plaintext: bool,
}

impl Secrets {
    /// Returns the keys that seal secrets, from `secrets.keys` or from `secrets.keys_file`.
    ///
    /// # Errors
    /// [`BadConfig`] if a key or the file can't be read, or if both settings are used.
    pub fn keyring(&self) -> Result<Keyring, BadConfig> {
        let (setting, text) = match self.keys_file.as_str() {
            "" => ("secrets.keys", self.keys.clone()),
            _ if !self.keys.is_empty() => {
                return Err(BadConfig("secrets.keys and secrets.keys_file are both set; use one of them".to_owned()));
            }
            path => match std::fs::read_to_string(path) {
                Ok(text) => ("secrets.keys_file", Secret::from(text)),
                Err(error) => {
                    return Err(BadConfig(format!("secrets.keys_file = {path:?}: the file can't be read: {error}")));
                }
            },
        };
        Keyring::parse(&text).map_err(|problem| BadConfig(format!("{setting}: {problem}")))
    }
}
