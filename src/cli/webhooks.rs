//! `webhooks …`: manages webhooks without the settings page.

mod apply;
mod headers;
mod import;
mod listing;
mod secret;
mod trying;
mod update;

use std::num::NonZeroU32;
use std::sync::Arc;

use serde_json::json;
use url::Url;

use super::author::{audit_log, author};
use super::output::warn;
use super::{Failure, say};
use crate::clock::now_ms;
use crate::config::Config;
use crate::event::EventType;
use crate::http::client::policy;
use crate::http::vetting::Vetting;
use crate::kafka::group::Commits;
use crate::payload::PayloadFormat;
use crate::signature::Signing;
use crate::store::audit::{Action, Record};
use crate::store::webhooks::WebhookStore;
use crate::store::workers::Reports;
use crate::store::{Keys, connection, loss};
use crate::webhook::draft::Draft;
use crate::webhook::{BadWebhook, Webhook, WebhookId};
use headers::HeaderArguments;
use listing::{list, show};
use secret::{SecretArguments, warn_of_weak_secret};
use trying::test;
use update::Update;

/// `optio-webhooks webhooks`
#[derive(clap::Subcommand)]
pub enum Webhooks {
    /// List all webhooks, oldest first.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Import the webhooks of Optio's own database from an export of its table, with their ids. Those that are there
    /// already stay as they are.
    Import(import::Import),
    /// Print all webhooks as a file for `webhooks apply`. Secrets are not in it.
    Export,
    /// Make the webhooks match a file: print the plan, then add and change webhooks. With --prune, also remove those that the
    /// file doesn't have.
    Apply(apply::Apply),
    /// Add a webhook. It gets the events that it subscribes to from now on.
    Add(Add),
    /// Declare that the webhooks in Redis are complete. Workers that have noticed a loss of webhooks send nothing until
    /// this is declared or the lost webhooks are back.
    Init,
    /// Show one webhook.
    Show {
        /// The id of the webhook.
        id: WebhookId,
        #[command(flatten)]
        output: Output,
    },
    /// Change a webhook. Options that are left out change nothing.
    Update(Update),
    /// Remove a webhook and its delivery log. Nothing more is sent to it, not even pending retries.
    Remove {
        /// The id of the webhook.
        id: WebhookId,
    },
    /// Send a sample event at once and show the result. Exits with 1 if the endpoint did not accept it.
    Test {
        /// The id of the webhook.
        id: WebhookId,
        /// The event type; by default the first that the webhook subscribes to.
        #[arg(long)]
        event: Option<EventType>,
        #[command(flatten)]
        output: Output,
    },
}

/// The format of the result.
#[derive(clap::Args)]
pub struct Output {
    /// Print JSON in the shapes of the API.
    #[arg(long)]
    json: bool,
}

/// `webhooks add`
#[derive(clap::Args)]
pub struct Add {
    /// The URL that requests go to. It must be https:// unless delivery.allow_http is true.
    #[arg(long)]
    url: Url,
    /// The event types to subscribe to, separated by commas.
    #[arg(long, required = true, value_delimiter = ',')]
    events: Vec<EventType>,
    #[command(flatten)]
    secret: SecretArguments,
    #[command(flatten)]
    headers: HeaderArguments,
    /// How requests are signed. ed25519 generates a key pair; its public key is printed.
    #[arg(long)]
    signing: Option<Signing>,
    /// Which events of its types the webhook gets, as JSON or @FILE, such as
    /// '{"field": "task.repoUrl", "glob": "*/acme/*"}'.
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// A description of the webhook.
    #[arg(long)]
    description: Option<String>,
    /// The highest number of requests per second.
    #[arg(long)]
    rate_per_second: Option<NonZeroU32>,
    /// The format of the body. By default the URL decides: that of Slack, Discord or Microsoft Teams, else optio.
    #[arg(long)]
    format: Option<PayloadFormat>,
    #[command(flatten)]
    output: Output,
}

impl Webhooks {
    /// Runs the command against Redis.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        let redis = connection::open(&config.redis)?;
        let keys = Keys::new(&config.redis.prefix);
        let store = WebhookStore::open(config, redis.clone())?;
        let (log, who) = (audit_log(config, &redis), author());
        let audited = |what| store.audited(&log, &who, what);
        let reports = Reports::new(redis.clone(), &keys);
        match self {
            Self::List { output } => list(&store, &output).await,
            Self::Import(import) => import.run(&audited(Action::WebhookAdded), config).await,
            Self::Add(add) => add.run(&audited(Action::WebhookAdded), &reports, config).await,
            Self::Export => apply::export(&store).await,
            Self::Apply(apply) => {
                let [adding, changing, removing] =
                    [Action::WebhookAdded, Action::WebhookChanged, Action::WebhookRemoved].map(audited);
                apply.run(&adding, &changing, &removing, config).await
            }
            Self::Init => {
                let count = init(&store, &reports).await?;
                let record = Record::new(&who, Action::WebhooksDeclared).to(&json!({ "webhooks": count }));
                log.note(&record).await;
                Ok(())
            }
            Self::Show { id, output } => show(&find(&store, id).await?, &output),
            Self::Update(update) => update.run(&audited(Action::WebhookChanged), config).await,
            Self::Remove { id } => {
                if !audited(Action::WebhookRemoved).remove(id).await? {
                    return Err(not_found(id));
                }
                say(&format!("removed {id}: nothing more is sent to it"));
                Ok(())
            }
            Self::Test { id, event, output } => {
                let webhook = find(&store, id).await?;
                let outcome = test(config, redis, &webhook, event, &output).await;
                let record = Record::new(&who, Action::TestSent).of(id).to(&json!({ "event": event }));
                log.note(&record).await;
                outcome
            }
        }
    }
}

impl Add {
    async fn run(self, store: &WebhookStore, reports: &Reports, config: &Config) -> Result<(), Failure> {
        let draft = Draft {
            url: Some(self.url.into()),
            events: Some(event_names(&self.events)),
            secret: self.secret.read()?.map(Some),
            signing: self.signing,
            description: self.description.map(Some),
            active: None,
            hold: None,
            headers: Some(Some(self.headers.read()?)),
            filter: self.filter.as_deref().map(read_filter).transpose()?.map(Some),
            format: self.format,
            rate_per_second: self.rate_per_second.map(|rate| Some(rate.get())),
        };
        let usage = |problem: BadWebhook| Failure::Usage(problem.to_string());
        let webhook = draft.create(now_ms()).map_err(usage)?;
        webhook.check(&policy(&config.delivery)).map_err(usage)?;
        let unresolved = Vetting::new(&config.delivery).check(&webhook.url).await.map_err(usage)?;
        let added = store.put(&webhook).await?;
        show(&webhook, &self.output)?;
        warn_of_weak_secret(&webhook);
        if let Some(warning) = unresolved {
            warn(&warning);
        }
        if let Some(warning) = loss::after_adding(added, reports, &Commits::new(Arc::new(config.clone()))).await {
            warn(&warning);
        }
        Ok(())
    }
}

/// Reads a filter: JSON, or the name of a file after an @.
fn read_filter(text: &str) -> Result<serde_json::Value, Failure> {
    let json = match text.strip_prefix('@') {
        Some(path) => super::emit::read_input(std::path::Path::new(path))?,
        None => text.to_owned(),
    };
    serde_json::from_str(&json).map_err(|error| Failure::Usage(format!("--filter: it is not JSON: {error}")))
}

fn event_names(events: &[EventType]) -> Vec<String> {
    events.iter().map(|event| event.as_str().to_owned()).collect()
}

async fn init(store: &WebhookStore, reports: &Reports) -> Result<u64, Failure> {
    let seen = loss::seen_by_workers(reports).await?.map_or(0, |(version, _)| version);
    let count = store.declare(seen, now_ms()).await?;
    say(&format!("declared complete: {count} webhooks in Redis; workers that waited for this resume"));
    Ok(count)
}

async fn find(store: &WebhookStore, id: WebhookId) -> Result<Webhook, Failure> {
    store.get(id).await?.ok_or_else(|| not_found(id))
}

fn not_found(id: WebhookId) -> Failure {
    anyhow::anyhow!("there is no webhook {id}; `optio-webhooks webhooks list` shows all").into()
}
