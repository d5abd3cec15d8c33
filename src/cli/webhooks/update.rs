//! `webhooks update`: changes a webhook.

use url::Url;

use super::headers::{self, HeaderArguments};
use super::listing::show;
use super::secret::{SecretArguments, warn_of_weak_secret};
use super::{Output, event_names, not_found, read_filter};
use crate::cli::Failure;
use crate::cli::output::warn;
use crate::clock::now_ms;
use crate::config::Config;
use crate::event::EventType;
use crate::http::client::policy;
use crate::http::vetting::Vetting;
use crate::payload::PayloadFormat;
use crate::signature::Signing;
use crate::store::webhooks::WebhookStore;
use crate::webhook::draft::Draft;
use crate::webhook::{BadWebhook, WebhookId};

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
    #[command(flatten)]
    headers: HeaderArguments,
    /// Remove the header with this name; may be given several times.
    #[arg(long = "remove-header", value_name = "NAME")]
    removed_headers: Vec<String>,
    /// Which events of its types the webhook gets, as JSON or @FILE.
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Remove the filter: the webhook gets all events of its types.
    #[arg(long, conflicts_with = "filter")]
    no_filter: bool,
    /// A description of the webhook.
    #[arg(long)]
    description: Option<String>,
    /// false pauses the webhook: nothing is sent, and deliveries are dropped; `replay --missed` sends them later. true
    /// resumes it.
    #[arg(long)]
    active: Option<bool>,
    /// With --active false: deliveries wait until the webhook is resumed, for at most delivery.age_max.
    #[arg(long)]
    hold: bool,
    /// The highest number of requests per second; 0 for no limit.
    #[arg(long)]
    rate_per_second: Option<u32>,
    /// The format of the body.
    #[arg(long)]
    format: Option<PayloadFormat>,
    #[command(flatten)]
    output: Output,
}

impl Update {
    pub(super) async fn run(self, store: &WebhookStore, config: &Config) -> Result<(), Failure> {
        let secret = if self.no_secret { Some(None) } else { self.secret.read()?.map(Some) };
        let draft = Draft {
            url: self.url.map(String::from),
            events: self.events.as_deref().map(event_names),
            secret,
            signing: self.signing,
            description: self.description.map(Some),
            active: self.active,
            hold: self.hold.then_some(true),
            headers: None,
            filter: if self.no_filter {
                Some(None)
            } else {
                self.filter.as_deref().map(read_filter).transpose()?.map(Some)
            },
            format: self.format,
            rate_per_second: self.rate_per_second.map(|rate| Some(rate).filter(|rate| *rate > 0)),
        };
        let set = self.headers.read()?;
        let changes_headers = !set.is_empty() || !self.removed_headers.is_empty();
        if draft.is_empty() && !changes_headers {
            let sentence = "nothing would change: give one or more of --url, --events, --secret, --secret-stdin, --signing, \
                            --no-secret, --header, --header-env, --remove-header, --filter, --no-filter, --description, \
                            --active, --rate-per-second and --format";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        let usage = |problem: BadWebhook| Failure::Usage(problem.to_string());
        let unresolved = match draft.new_url(None) {
            Some(url) => Vetting::new(&config.delivery).check(&url).await.map_err(usage)?,
            None => None,
        };
        let policy = policy(&config.delivery);
        let changed = store
            .change(self.id, draft.replaces(), |webhook| {
                let url_before = webhook.url.clone();
                let mut draft = draft.clone();
                if changes_headers {
                    let headers = headers::changed(&webhook.headers, &set, &self.removed_headers);
                    draft.headers = Some(Some(headers.map_err(|problem| BadWebhook { field: "headers", problem })?));
                }
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
