//! The operations on webhooks that the API and the page share.

use std::time::Duration;

use serde_json::json;

use super::problem::Problem;
use super::replays::{ReplayRequest, ReplayStatus};
use super::state::Admin;
use crate::clock::now_ms;
use crate::event::EventType;
use crate::http::client::policy;
use crate::secret::Secret;
use crate::signature::{Signing, SigningSecret};
use crate::store::audit::{Action, Author, Record};
use crate::store::log::{EntryId, LogEntry};
use crate::store::loss;
use crate::store::webhooks::WebhookStore;
use crate::trial::Trial;
use crate::webhook::draft::{Draft, Replaces};
use crate::webhook::{BadWebhook, OVERLAP_MAX, Webhook, WebhookId};

/// The time for which a replaced secret also signs, unless the request says otherwise.
pub const OVERLAP_DEFAULT: Duration = Duration::from_secs(86_400);

/// A request for a new secret.
#[derive(Debug, Default)]
pub struct Rotation {
    /// The new secret, or None to generate one.
    pub secret: Option<Secret>,
    /// How the new secret signs. By default as the old one, if it is generated.
    pub signing: Option<Signing>,
    /// The time for which the old secret also signs.
    pub overlap: Duration,
}

/// A webhook that was added or changed, and what needs attention, each as a sentence.
pub struct Saved {
    /// The webhook as it was saved.
    pub webhook: Webhook,
    /// Its host has no address for now.
    pub unresolved: Option<String>,
    /// The store seems to have lost other webhooks.
    pub loss: Option<String>,
}

impl Admin {
    /// The webhook whose id a path names.
    pub async fn find(&self, id: &str) -> Result<Webhook, Problem> {
        self.store.get(parse_id(id)?).await?.ok_or_else(|| Problem::no_webhook(id))
    }

    /// Adds a webhook.
    pub async fn add(&self, draft: &Draft, who: &Author) -> Result<Saved, Problem> {
        let saved = self.add_as(draft.create(now_ms())?, who).await?;
        saved.ok_or_else(|| Problem::conflict("there is a webhook with the same id; try again"))
    }

    /// Adds a webhook with this id, or makes the one that has it like the draft. Returns whether it was added.
    pub async fn put(&self, id: &str, draft: &Draft, who: &Author) -> Result<(Saved, bool), Problem> {
        let id = id.parse().map_err(|_| Problem::field("id", "isn't a UUID, such as uuidgen prints"))?;
        if draft.url.is_none() || draft.events.is_none() {
            // It says what a new webhook needs.
            draft.create(now_ms())?;
        }
        loop {
            if let Some(webhook) = self.store.get(id).await? {
                return Ok((self.change(&webhook, &draft.complete(), who).await?, false));
            }
            let webhook = Webhook { id, ..draft.create(now_ms())? };
            // If somebody else has added it meanwhile, this request changes it: a secret that it leaves out stays.
            if let Some(saved) = self.add_as(webhook, who).await? {
                return Ok((saved, true));
            }
        }
    }

    /// Adds a webhook. Returns None if there is one with its id.
    async fn add_as(&self, webhook: Webhook, who: &Author) -> Result<Option<Saved>, Problem> {
        webhook.check(&policy(&self.config.delivery))?;
        let unresolved = self.vetting.check(&webhook.url).await?;
        let added = self.store.audited(&self.audit, who, Action::WebhookAdded).add(&webhook).await?;
        let Some(added) = added else { return Ok(None) };
        tracing::info!(webhook = %webhook.id, "webhook added");
        let loss = loss::after_adding(added, &self.reports, &self.commits).await;
        if let Some(warning) = &loss {
            tracing::warn!(webhook = %webhook.id, warning, "the store of the added webhook seems to have lost others");
        }
        Ok(Some(Saved { webhook, unresolved, loss }))
    }

    /// Why the list of webhooks may be incomplete; None where it is not.
    pub fn webhooks_warning(&self) -> Option<String> {
        self.readiness.trouble()
    }

    /// Changes a webhook. Its host is resolved only if the draft changes the URL.
    pub async fn change(&self, webhook: &Webhook, draft: &Draft, who: &Author) -> Result<Saved, Problem> {
        self.change_from(webhook, None, draft, who).await
    }

    /// Changes a webhook. If `seen` is given, it is the `updatedAt` of the webhook that the change was made from.
    ///
    /// # Errors
    /// 409: somebody has changed the webhook since. Other errors as those of [`Self::change`].
    pub async fn change_from(
        &self,
        webhook: &Webhook,
        seen: Option<&str>,
        draft: &Draft,
        who: &Author,
    ) -> Result<Saved, Problem> {
        let id = webhook.id;
        let unresolved = match draft.new_url(Some(&webhook.url)) {
            Some(url) => self.vetting.check(&url).await?,
            None => None,
        };
        let store = self.store.audited(&self.audit, who, Action::WebhookChanged);
        let mut is_outdated = false;
        let apply = |webhook: &mut Webhook| {
            is_outdated = seen.is_some_and(|seen| webhook.updated_at != seen);
            if is_outdated {
                return Err(BadWebhook { field: "updatedAt", problem: "has changed".to_owned() });
            }
            draft.apply(webhook, now_ms())
        };
        let changed = self.update(&store, id, draft.replaces(), apply).await;
        if is_outdated {
            let sentence = "Somebody has changed this webhook since you opened the page. Compare the settings with those of \
                            the webhook as it is now; if you save again, yours replace them.";
            return Err(Problem::conflict(sentence));
        }
        let changed = changed?;
        tracing::info!(webhook = %id, active = changed.active, "webhook changed");
        Ok(Saved { webhook: changed, unresolved, loss: None })
    }

    /// Replaces the secret, by a generated one if none is given. The old one also signs until the overlap ends. Returns
    /// the generated secret as well, if it is one that the receiver must know.
    pub async fn rotate(
        &self,
        webhook: &Webhook,
        rotation: Rotation,
        who: &Author,
    ) -> Result<(Webhook, Option<Secret>), Problem> {
        let Rotation { secret, signing, overlap } = rotation;
        let is_generated = secret.is_none();
        let secret = match secret {
            Some(secret) if secret.is_mask() => {
                return Err(Problem::field(
                    "secret",
                    "is the mask that stands for a secret; give a real one or leave it out",
                ));
            }
            Some(secret) => SigningSecret::parse(secret).map_err(|problem| Problem::field("secret", problem))?,
            None => {
                let current = webhook.secret.as_ref().map_or(Signing::Hmac, SigningSecret::signing);
                SigningSecret::generate(signing.unwrap_or(current))
            }
        };
        if signing.is_some_and(|signing| signing != secret.signing()) {
            return Err(Problem::field("signing", "doesn't fit the secret: a private key begins with whsk_"));
        }
        let id = webhook.id;
        if overlap > OVERLAP_MAX {
            let longest = humantime::format_duration(OVERLAP_MAX);
            return Err(Problem::field("overlap", format!("is too long; at most {longest} is allowed")));
        }
        let now = now_ms();
        let store = self.store.audited(&self.audit, who, Action::SecretRotated);
        let changed = self
            .update(&store, id, Replaces::default(), |webhook| {
                webhook.rotate(secret.clone(), overlap, now)?;
                webhook.updated_at = crate::clock::rfc3339(now);
                Ok(())
            })
            .await?;
        tracing::info!(webhook = %id, overlap_s = overlap.as_secs(), "secret rotated");
        let shown = is_generated && secret.signing() == Signing::Hmac;
        Ok((changed, shown.then(|| secret.text().clone())))
    }

    async fn update(
        &self,
        store: &WebhookStore,
        id: WebhookId,
        replaces: Replaces,
        mut change: impl FnMut(&mut Webhook) -> Result<(), BadWebhook>,
    ) -> Result<Webhook, Problem> {
        let policy = policy(&self.config.delivery);
        let checked = |webhook: &mut Webhook| {
            let url_before = webhook.url.clone();
            change(webhook).and_then(|()| webhook.check_change(&url_before, &policy))
        };
        let changed = store.change(id, replaces, checked).await?;
        Ok(changed.ok_or_else(|| Problem::no_webhook(id))??)
    }

    /// Removes a webhook and its delivery log, even if this version can't read the webhook.
    pub async fn remove(&self, id: &str, who: &Author) -> Result<(), Problem> {
        if !self.store.audited(&self.audit, who, Action::WebhookRemoved).remove(parse_id(id)?).await? {
            return Err(Problem::no_webhook(id));
        }
        tracing::info!(webhook = %id, "webhook removed");
        Ok(())
    }

    /// Sends a sample event at once.
    pub async fn test(&self, webhook: &Webhook, event: EventType, who: &Author) -> Result<Trial, Problem> {
        let (trials, audit, webhook, who) = (self.trials.clone(), self.audit.clone(), webhook.clone(), who.clone());
        // It is a task of its own, so that a client that hangs up neither frees the place of its test event nor keeps it
        // out of the logs.
        let sending = tokio::spawn(async move {
            let trial = trials.send(&webhook, event).await?;
            tracing::info!(webhook = %webhook.id, event = event.as_str(), "test event sent");
            audit.note(&Record::new(&who, Action::TestSent).of(webhook.id).to(&json!({ "event": event }))).await;
            Ok(trial)
        });
        sending.await.map_err(|error| Problem::away(&anyhow::Error::new(error).context("the test event failed")))?
    }

    /// The attempt that a path names: by the id of its entry, or by the id of its delivery. A delivery's id stands for
    /// the newest attempt of that delivery.
    pub async fn entry(&self, webhook: WebhookId, id: &str) -> Result<LogEntry<'static>, Problem> {
        let found = match (id.parse::<EntryId>(), id.parse()) {
            (Ok(entry), _) => self.log.entry(webhook, entry).await?,
            (Err(_), Ok(delivery)) => self.log.newest_of(webhook, delivery).await?,
            (Err(_), Err(_)) => None,
        };
        found.ok_or_else(|| Problem::no_delivery(webhook, id))
    }

    /// Writes a delivery to the replay topic, so that a worker sends it again. Returns its newest attempt.
    pub async fn redeliver(&self, webhook: &Webhook, id: &str, who: &Author) -> Result<LogEntry<'static>, Problem> {
        let entry = self.entry(webhook.id, id).await?;
        if !webhook.active {
            return Err(Problem::conflict("the webhook is inactive and gets nothing; set it active, then redeliver"));
        }
        self.redeliveries.send(&entry).await?;
        tracing::info!(webhook = %webhook.id, delivery = %entry.logged.delivery_id, "redelivered");
        let record = Record::new(who, Action::Redelivered).of(entry.logged.delivery_id);
        self.audit.note(&record.to(&json!({ "webhookId": webhook.id }))).await;
        Ok(entry)
    }

    /// Starts a replay of dead letters.
    pub async fn replay(&self, request: ReplayRequest, who: &Author) -> Result<ReplayStatus, Problem> {
        let replay = self.replays.begin(request).await?;
        tracing::info!(replay = %replay.id, "replay started");
        self.audit.note(&Record::new(who, Action::ReplayStarted).of(replay.id).to(&replay.request)).await;
        Ok(replay)
    }

    /// Stops a replay after its current batch.
    pub async fn stop_replay(&self, id: &str, who: &Author) -> Result<(), Problem> {
        let replay = self.replays.get(id)?;
        self.replays.stop(replay.id);
        tracing::info!(replay = %replay.id, "replay stopped");
        self.audit.note(&Record::new(who, Action::ReplayStopped).of(replay.id)).await;
        Ok(())
    }
}

fn parse_id(id: &str) -> Result<WebhookId, Problem> {
    id.parse().map_err(|_| Problem::no_webhook(id))
}
