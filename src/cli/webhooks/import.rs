//! `webhooks import`: takes over the webhooks of Optio's own database, with their ids.

use std::path::PathBuf;

use crate::cli::output::warn;
use crate::cli::{Failure, emit, say};
use crate::clock::now_ms;
use crate::config::Config;
use crate::http::client::policy;
use crate::http::vetting::Vetting;
use crate::payload::PayloadFormat;
use crate::secret::Secret;
use crate::secret::optio::OptioKey;
use crate::store::webhooks::WebhookStore;
use crate::webhook::Webhook;
use crate::webhook::optio_row::{self, Imported};

/// The variable with the key of Optio's installation, under the same name as there.
const KEY_VARIABLE: &str = "OPTIO_ENCRYPTION_KEY";

/// `webhooks import`
#[derive(clap::Args)]
#[command(after_help = "Export the table with psql, then look at the plan and import:
  psql -c \"\\copy webhooks to 'webhooks.csv' csv header\"
  optio-webhooks webhooks import webhooks.csv --dry-run
  optio-webhooks webhooks import webhooks.csv
Secrets that Optio has encrypted are opened with OPTIO_ENCRYPTION_KEY, the variable of Optio's installation.")]
pub struct Import {
    /// The export: CSV with a header line, or JSON. \"-\" reads standard input.
    file: PathBuf,
    /// The format of the bodies. optio-classic is what Optio's built-in worker sends.
    #[arg(long, default_value = "optio-classic")]
    format: PayloadFormat,
    /// Print the plan, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What the import does with a row.
enum Plan {
    Add(Box<Imported>),
    /// A webhook with that id is there already. It stays as it is.
    IsThere,
    Refused(String),
}

impl Import {
    /// Adds the webhooks that are not there yet.
    ///
    /// # Errors
    /// The file can't be read, or a row can't be used. Other rows are imported all the same.
    pub(super) async fn run(self, store: &WebhookStore, config: &Config) -> Result<(), Failure> {
        let text = emit::read_input(&self.file)?;
        let key = std::env::var(KEY_VARIABLE).ok().map(Secret::from).map(|text| OptioKey::new(&text));
        let rows = optio_row::rows(&text);
        if rows.is_empty() {
            return Err(Failure::Usage(format!("{} has no rows", self.file.display())));
        }
        let (mut added, mut there, mut refused) = (0, 0, 0);
        for (index, row) in rows.into_iter().enumerate() {
            let named = row.as_ref().map_or_else(|_| String::new(), name);
            let read = row.and_then(|row| optio_row::read(&row, key.as_ref(), self.format, now_ms()));
            let plan = match read {
                Ok(imported) => self.plan(imported, store, config).await?,
                Err(problem) => Plan::Refused(problem),
            };
            match plan {
                Plan::Add(imported) => {
                    if !self.dry_run && store.add(&imported.webhook).await?.is_none() {
                        // Somebody else has added it since the plan was made.
                        there += 1;
                        say(&format!("is there  {named}"));
                        continue;
                    }
                    added += 1;
                    say(&format!("{}  {}", if self.dry_run { "would add" } else { "added" }, shown(&imported.webhook)));
                    if !imported.left_out.is_empty() {
                        warn(&format!(
                            "{named}: left out {}, which this program doesn't have",
                            imported.left_out.join(", ")
                        ));
                    }
                }
                Plan::IsThere => {
                    there += 1;
                    say(&format!("is there  {named}"));
                }
                Plan::Refused(problem) => {
                    refused += 1;
                    let row = format!("row {} {named}", index + 1);
                    warn(&format!("{}: {problem}", row.trim_end()));
                }
            }
        }
        let verb = if self.dry_run { "would be added" } else { "added" };
        let summary = format!("{added} {verb}, {there} there already, {refused} refused");
        if refused > 0 {
            return Err(anyhow::anyhow!("{summary}; correct these rows and run the same command again").into());
        }
        say(&summary);
        Ok(())
    }

    async fn plan(&self, imported: Imported, store: &WebhookStore, config: &Config) -> Result<Plan, Failure> {
        let webhook = &imported.webhook;
        if store.get(webhook.id).await?.is_some() {
            return Ok(Plan::IsThere);
        }
        if let Err(problem) = webhook.check(&policy(&config.delivery)) {
            return Ok(Plan::Refused(problem.to_string()));
        }
        match Vetting::new(&config.delivery).check(&webhook.url).await {
            Err(problem) => return Ok(Plan::Refused(problem.to_string())),
            Ok(Some(warning)) => warn(&format!("{}: {warning}", webhook.id)),
            Ok(None) => {}
        }
        Ok(Plan::Add(Box::new(imported)))
    }
}

/// How lines about a row begin: its id and its URL, as far as it has them.
fn name(row: &optio_row::Row) -> String {
    let columns = ["id", "url"].into_iter().filter_map(|name| row.get(name));
    columns.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn shown(webhook: &Webhook) -> String {
    let events: Vec<&str> = webhook.events.iter().map(|event| event.as_str()).collect();
    let signed = if webhook.secret.is_some() { "signed" } else { "not signed" };
    let active = if webhook.active { "" } else { ", paused" };
    format!("{}  {}  {}  {}, {signed}{active}", webhook.id, webhook.url, events.join(","), webhook.format.as_str())
}
