//! The arguments that give a secret.

use std::io::Read as _;

use anyhow::Context as _;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::webhook::Webhook;

/// The secret of a webhook.
#[derive(clap::Args)]
pub(super) struct SecretArguments {
    /// The secret that signs every request. Other users of this machine can see arguments: consider --secret-stdin.
    #[arg(long, conflicts_with = "secret_stdin")]
    secret: Option<String>,
    /// Read the secret from the first line of standard input.
    #[arg(long)]
    secret_stdin: bool,
}

impl SecretArguments {
    /// Reads the secret, if one is given.
    pub(super) fn read(self) -> anyhow::Result<Option<Secret>> {
        if !self.secret_stdin {
            return Ok(self.secret.map(Secret::from));
        }
        let mut text = Zeroizing::new(String::new());
        std::io::stdin()
            .take(4_096)
            .read_to_string(&mut text)
            .context("the secret can't be read from standard input")?;
        Ok(Some(text.lines().next().unwrap_or_default().into()))
    }
}

/// Warns on standard error if the secret of a webhook is weak.
pub(super) fn warn_of_weak_secret(webhook: &Webhook) {
    if let Some(warning) = webhook.secret_warning() {
        eprintln!("optio-webhooks: warning: {warning}");
    }
}
