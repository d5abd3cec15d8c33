//! `webhooks …`: manages webhooks without the settings page.

mod import;
mod listing;
mod secret;
mod trying;

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
use crate::webhook::{Webhook, WebhookId};
use listing::{list, show};
use secret::{SecretArguments, warn_of_weak_secret};
use trying::test;

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
    /// How requests are signed. ed25519 generates a key pair; its public key is printed.
    #[arg(long)]
    signing: Option<Signing>,
    /// A description of the webhook.
    #[arg(long)]
    description: Option<String>,
    /// The highest number of requests per second.
    #[arg(long)]
    rate_per_second: Option<NonZeroU32>,
    /// The format of the body. By default it is slack for Slack's URLs, else optio.
    #[arg(long)]
    format: Option<PayloadFormat>,
    #[command(flatten)]
    output: Output,
}

/// `webhooks update`
#[derive(clap::Args)]
pub struct Update {
    /// The id of the webhook.
    id: WebhookId,
    /// The URL that requests go to.
    #[arg(long)]
    url: Option<Url>,
    /// The event types to subscribe to, separated by commas.
    #[arg(long, value_delimiter = ',')]
    events: Option<Vec<EventType>>,
    #[command(flatten)]
    secret: SecretArguments,
    /// How requests are signed. ed25519 generates a key pair; its public key is printed.
    #[arg(long)]
    signing: Option<Signing>,
    /// Remove the secret: requests are no longer signed.
    #[arg(long, conflicts_with_all = ["secret", "secret_stdin"])]
    no_secret: bool,
    /// A description of the webhook.
    #[arg(long)]
    description: Option<String>,
    /// false pauses the webhook: nothing is sent, and deliveries that wait are dropped. true resumes it.
    #[arg(long)]
    active: Option<bool>,
    /// The highest number of requests per second; 0 for no limit.
    #[arg(long)]
    rate_per_second: Option<u32>,
    /// The format of the body.
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
            format: self.format,
            rate_per_second: self.rate_per_second.map(|rate| Some(rate.get())),
        };
        let usage = |problem: crate::webhook::BadWebhook| Failure::Usage(problem.to_string());
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

impl Update {
    async fn run(self, store: &WebhookStore, config: &Config) -> Result<(), Failure> {
        let secret = if self.no_secret { Some(None) } else { self.secret.read()?.map(Some) };
        let draft = Draft {
            url: self.url.map(String::from),
            events: self.events.as_deref().map(event_names),
            secret,
            signing: self.signing,
            description: self.description.map(Some),
            active: self.active,
            format: self.format,
            rate_per_second: self.rate_per_second.map(|rate| Some(rate).filter(|rate| *rate > 0)),
        };
        if draft.is_empty() {
            let sentence = "nothing would change: give one or more of --url, --events, --secret, --secret-stdin, --signing, \
                            --no-secret, --description, --active, --rate-per-second and --format";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        let usage = |problem: crate::webhook::BadWebhook| Failure::Usage(problem.to_string());
        let unresolved = match draft.new_url(None) {
            Some(url) => Vetting::new(&config.delivery).check(&url).await.map_err(usage)?,
            None => None,
        };
        let policy = policy(&config.delivery);
        let changed = store
            .change(self.id, draft.replaces_secret(), |webhook| {
                let url_before = webhook.url.clone();
                draft.apply(webhook, now_ms()).and_then(|()| webhook.check_change(&url_before, &policy))
            })
            .await?
            .ok_or_else(|| not_found(self.id))?;
        let webhook = changed.map_err(usage)?;
        show(&webhook, &self.output)?;
        if draft.replaces_secret() {
            warn_of_weak_secret(&webhook);
        }
        if let Some(warning) = unresolved {
            warn(&warning);
        }
        Ok(())
    }
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
