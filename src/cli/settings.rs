//! `config show|check`: shows or checks the configuration in force.

use super::output::{say_lines, warn};
use super::run::{Part, check_to_run};
use super::{Failure, say};
use crate::config::{BadConfig, Config, DEFAULT};

/// `optio-webhooks config`
#[derive(clap::Subcommand)]
pub enum Settings {
    /// Print the configuration in force as TOML, with masked secrets.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Print the built-in defaults instead, with every key explained.
        #[arg(long, conflicts_with = "json")]
        default: bool,
    },
    /// Check the configuration. Prints "ok" if it can be used, else says why not and exits with 78.
    Check {
        /// Check it for `run --only` with this part; by default for both.
        #[arg(long, value_enum)]
        only: Option<Part>,
    },
}

impl Settings {
    /// Shows or checks the configuration that `load` returns.
    pub fn run(self, load: impl FnOnce() -> Result<Config, BadConfig>) -> Result<(), Failure> {
        match self {
            Self::Show { default: true, .. } => say_lines(DEFAULT.trim_end()),
            Self::Show { json: true, .. } => super::say_json(&load()?)?,
            Self::Show { .. } => {
                say_lines(toml::to_string(&load()?).map_err(anyhow::Error::new)?.trim_end());
            }
            Self::Check { only } => {
                let config = load()?;
                check_to_run(&config, only)?;
                for sentence in config.advice(only != Some(Part::Worker))? {
                    warn(&sentence);
                }
                say("ok");
            }
        }
        Ok(())
    }
}
