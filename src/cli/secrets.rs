//! `secrets generate-key|rotate`: the keys that seal the webhooks' secrets in Redis.

use serde_json::json;

use super::author::{audit_log, author};
use super::output::{Bar, complain, note};
use super::{Failure, say};
use crate::admin::sessions::{self, Resealed as SealedAgain};
use crate::config::Config;
use crate::secret::keyring::generate_key;
use crate::store::audit::{Action, Record};
use crate::store::webhooks::{Resealed, WebhookStore};
use crate::store::{Keys, connection};

/// Where standard error is not a terminal, a line is printed after this many webhooks.
const LINE_EVERY: u64 = 1_000;

/// `optio-webhooks secrets`
#[derive(clap::Subcommand)]
pub enum Secrets {
    /// Print a new key for secrets.keys. Keep it apart from Redis and its backups: whoever has both can read the
    /// secrets, and without the key nobody can.
    #[command(after_help = "Example: begin with one key, and put a new one in front of it later
  export OPTIO_WEBHOOKS__SECRETS__KEYS=\"$(optio-webhooks secrets generate-key)\"
  export OPTIO_WEBHOOKS__SECRETS__KEYS=\"$(optio-webhooks secrets generate-key),$OPTIO_WEBHOOKS__SECRETS__KEYS\"
Every process needs all keys, so give the new key to all of them before you run `secrets rotate`.")]
    GenerateKey {
        /// The id of the key: 1 to 32 characters from a-z A-Z 0-9 . _ -; by default a random one.
        #[arg(long)]
        id: Option<String>,
    },
    /// Seal every secret in Redis with the first of secrets.keys, also those that are plain text. Workers may run
    /// meanwhile. It can be interrupted and run again. Exits with 1 if a secret could not be sealed.
    Rotate,
}

impl Secrets {
    /// Prints a new key.
    pub fn generate_key(id: Option<&str>) -> Result<(), Failure> {
        let random = format!("k{:08x}", rand::random::<u32>());
        let key = generate_key(id.unwrap_or(&random));
        crate::secret::keyring::Keyring::parse(&key).map_err(|problem| Failure::Usage(format!("--id: {problem}")))?;
        say(key.expose());
        Ok(())
    }

    /// Seals every secret with the first key.
    pub async fn rotate(config: &Config) -> Result<(), Failure> {
        let keys = config.secrets.keyring()?;
        let Some(id) = keys.sealing_id() else {
            let sentence =
                "there is no key to seal with; `optio-webhooks secrets generate-key` prints one for secrets.keys";
            return Err(Failure::Usage(sentence.to_owned()));
        };
        let redis = connection::open(&config.redis)?;
        let log = audit_log(config, &redis);
        let session_key = sessions::reseal(&redis, &Keys::new(&config.redis.prefix), keys.clone()).await?;
        let store = WebhookStore::open(config, redis)?;
        let ids = store.ids().await?;
        let total = ids.len() as u64;
        let bar = Bar::new(total, "[{wide_bar}] {pos}/{len} webhooks, {eta} left");
        let (mut sealed, mut current, mut failed) = (0, 0, 0_usize);
        for (index, webhook) in ids.iter().enumerate() {
            match store.reseal(*webhook).await {
                Ok(Resealed::Now) => sealed += 1,
                Ok(Resealed::Before | Resealed::Gone) => current += 1,
                Err(error @ crate::store::StoreError::Redis(_)) => return Err(error.into()),
                Err(error) => {
                    failed += 1;
                    complain(&error.to_string());
                }
            }
            let done = index as u64 + 1;
            bar.show(done, total, "");
            if !bar.is_shown() && done.is_multiple_of(LINE_EVERY) {
                note(&format!("{done} of {total} webhooks"));
            }
        }
        bar.end();
        let record = Record::new(&author(), Action::SecretsResealed);
        log.note(&record.to(&json!({ "key": id, "webhooks": sealed }))).await;
        say(&format!(
            "sealed with key {id:?}: {sealed} webhooks; {current} needed nothing; {failed} could not be sealed"
        ));
        match session_key {
            SealedAgain::Before => {}
            SealedAgain::Now => say(&format!("sealed with key {id:?}: the key of sessions")),
            SealedAgain::Unopened(why) => {
                note(&format!("the key of sessions can't be opened: {why}; the next sign-in makes a new one"));
            }
        }
        match failed {
            0 => Ok(()),
            _ => {
                Err(anyhow::anyhow!("{failed} webhooks still need another key, a new secret, or a newer version")
                    .into())
            }
        }
    }
}
