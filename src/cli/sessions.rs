//! `sessions …`: ends sessions of the settings page.

use super::author::{audit_log, author};
use super::{Failure, say};
use crate::admin::sessions;
use crate::config::Config;
use crate::store::audit::{Action, Record};
use crate::store::{Keys, connection};

/// `optio-webhooks sessions`
#[derive(clap::Subcommand)]
pub enum Sessions {
    /// Sign everybody out of the settings page, on every admin server. Tokens stay as they are.
    Revoke,
}

impl Sessions {
    /// Runs the command against Redis.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        let Self::Revoke = self;
        let redis = connection::open(&config.redis)?;
        sessions::revoke_all(&redis, &Keys::new(&config.redis.prefix)).await?;
        audit_log(config, &redis).note(&Record::new(&author(), Action::SessionsRevoked)).await;
        say("all sessions of the settings page have ended");
        Ok(())
    }
}
