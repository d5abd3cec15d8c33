//! `config show|check`: the configuration in force.

use super::{Failure, say};
use crate::config::Config;

/// `optio-webhooks config`
#[derive(clap::Subcommand)]
pub enum Settings {
    /// Print the configuration in force as TOML, secrets masked.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration; says nothing but "ok" where it can be used, else exits with 78.
    Check,
}

impl Settings {
    /// `config` is loaded and checked already.
    pub fn run(self, config: &Config) -> Result<(), Failure> {
        match self {
            Self::Show { json: true } => super::say_json(&config.masked())?,
            Self::Show { json: false } => {
                say(toml::to_string(&config.masked()).map_err(anyhow::Error::new)?.trim_end());
            }
            Self::Check => say("ok"),
        }
        Ok(())
    }
}
