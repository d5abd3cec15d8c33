//! Webhooks as the command line shows them.

use serde_json::json;

use super::Output;
use crate::cli::{Failure, say, say_json};
use crate::store::webhooks::{Listing, WebhookStore};
use crate::webhook::{Webhook, WebhookView};

pub(super) async fn list(store: &WebhookStore, output: &Output) -> Result<(), Failure> {
    let Listing { webhooks, unsupported, .. } = store.listing().await?;
    let shown: Vec<WebhookView> = webhooks.iter().map(Webhook::shown).collect();
    if output.json {
        let mut answer = json!({ "webhooks": shown });
        if !unsupported.is_empty() {
            answer["unreadable"] = unsupported
                .iter()
                .map(|unsupported| json!({ "id": unsupported.id, "problem": unsupported.problem }))
                .collect();
        }
        return say_json(&answer);
    }
    for webhook in &shown {
        say(&line(webhook));
    }
    for unsupported in &unsupported {
        say(&format!("{}  can't be read, and events for it wait: {}", unsupported.id, unsupported.problem));
    }
    if shown.is_empty() && unsupported.is_empty() {
        say("no webhooks yet; `optio-webhooks webhooks add --help` says how to add one");
    }
    Ok(())
}

pub(super) fn show(webhook: &Webhook, output: &Output) -> Result<(), Failure> {
    if output.json {
        return say_json(&json!({ "webhook": webhook.shown() }));
    }
    let shown = webhook.shown();
    say(&line(&shown));
    if let Some(public_key) = &shown.public_key {
        say(&format!("public key: {public_key}"));
    }
    Ok(())
}

fn line(webhook: &WebhookView) -> String {
    let events: Vec<&str> = webhook.events.iter().map(|event| event.as_str()).collect();
    let state = match (&webhook.disabled_reason, webhook.active) {
        (Some(reason), false) => format!("disabled ({reason})"),
        (None, false) => "inactive".to_owned(),
        (_, true) => "active".to_owned(),
    };
    let signed = if webhook.secret.is_some() { "signed" } else { "unsigned" };
    let description = webhook.description.as_deref().map_or(String::new(), |text| format!("  {text}"));
    format!("{}  {state:<8}  {signed:<8}  {}  {}{description}", webhook.id, webhook.url, events.join(","))
}
