//! Settings that are allowed, and probably not what somebody wants.

use super::{BadConfig, Config};

impl Config {
    /// A sentence for each of these settings. `serves_pages` says whether the process serves the page and the API.
    ///
    /// # Errors
    /// [`BadConfig`] if the sealing keys can't be read.
    pub fn advice(&self, serves_pages: bool) -> Result<Vec<String>, BadConfig> {
        let mut advice = Vec::new();
        if self.secrets.keyring()?.is_empty() && !self.secrets.allow_plaintext {
            advice.push(
                "there is no sealing key in secrets.keys or secrets.keys_file: no webhook with a secret can be added, and \
                 deliveries wait for webhooks whose secret is sealed; `optio-webhooks secrets generate-key` prints a key"
                    .to_owned(),
            );
        }
        if serves_pages && self.admin.all_tokens().is_empty() {
            advice.push("there is no token in admin.token or admin.tokens: nobody can sign in to the settings page or use the API".to_owned());
        }
        Ok(advice)
    }
}
