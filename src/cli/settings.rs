//! `config show|check`: the configuration in force.

use super::{Failure, say};
use crate::config::{BadConfig, Config, DEFAULT};

/// `optio-webhooks config`
#[derive(clap::Subcommand)]
pub enum Settings {
    /// Print the configuration in force as TOML, secrets masked.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// The built-in defaults instead, every key explained.
        #[arg(long, conflicts_with = "json")]
        default: bool,
    },
    /// Check the configuration; says nothing but "ok" where it can be used, else exits with 78.
    Check,
}

impl Settings {
    /// Shows what `load` gives, if that can be used.
    pub fn run(self, load: impl FnOnce() -> Result<Config, BadConfig>) -> Result<(), Failure> {
        match self {
            Self::Show { default: true, .. } => say(DEFAULT.trim_end()),
            Self::Show { json: true, .. } => super::say_json(&load()?.masked())?,
            Self::Show { .. } => say(toml::to_string(&load()?.masked()).map_err(anyhow::Error::new)?.trim_end()),
            Self::Check => load().map(|_| say("ok"))?,
        }
        Ok(())
    }
}
