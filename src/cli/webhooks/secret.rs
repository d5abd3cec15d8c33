//! The arguments that give a secret.

use crate::cli::output::warn;
use crate::cli::{Failure, secret_input};
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
    pub(super) fn read(self) -> Result<Option<Secret>, Failure> {
        if self.secret_stdin {
            return secret_input::from_stdin().map(Some);
        }
        Ok(self.secret.map(Secret::from))
    }
}

/// Warns on standard error if the secret of a webhook is weak.
pub(super) fn warn_of_weak_secret(webhook: &Webhook) {
    if let Some(warning) = webhook.secret_warning() {
        warn(&warning);
    }
}
