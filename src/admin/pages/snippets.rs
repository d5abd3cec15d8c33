//! The page that shows how to verify a signature.

use axum::Extension;
use axum::extract::{Path, State};
use maud::{Markup, html};

use super::layout::{NavItem, layout};
use super::webhook::{Tab, head};
use crate::admin::problem::Refusal;
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::payload::PayloadFormat;
use crate::webhook::Webhook;

/// The element's id, the language and the code. Tests run each snippet against a real delivery.
type Snippet = (&'static str, &'static str, &'static str);

/// The snippets for a shared secret.
const SNIPPETS: [Snippet; 5] = [
    ("node", "Node.js", include_str!("../snippets/verify.mjs")),
    ("python", "Python", include_str!("../snippets/verify.py")),
    ("go", "Go", include_str!("../snippets/verify.go")),
    ("rust", "Rust", include_str!("../snippets/verify.rs")),
    ("ruby", "Ruby", include_str!("../snippets/verify.rb")),
];

/// The snippet for a key pair.
const KEY_PAIR: Snippet = ("node", "Node.js", include_str!("../snippets/verify-v1a.mjs"));

/// `GET /settings/webhooks/{id}/verify`
pub async fn show(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
) -> Result<Markup, Refusal> {
    let webhook = admin.find(&id).await?;
    let newest = admin.log.page(webhook.id, Default::default(), None, 1).await?.entries.into_iter().next();
    let public_key = webhook.secret.as_ref().and_then(|secret| secret.public_key());
    let content = html! {
        (head(&webhook, Tab::Verify))
        @if webhook.secret.is_none() {
            p .flash.warn { "This webhook has no secret, so its requests carry no signature. Set one under Settings." }
        }
        @match &public_key {
            Some(key) => { (with_a_key_pair(&webhook, key)) }
            None => { (with_a_shared_secret(&webhook)) }
        }
        @if let Some(entry) = newest.as_ref().filter(|entry| !entry.logged.not_sent) {
            h2 { "Headers of the newest request" }
            pre tabindex="0" { code { @for (name, value) in entry.logged.request_headers() { (name) ": " (value) "\n" } } }
        }
        @if public_key.is_some() {
            (snippet(KEY_PAIR, true))
        } @else {
            @for (id, language, code) in SNIPPETS { (snippet((id, language, &of_format(code, webhook.format)), id == "node")) }
        }
    };
    Ok(layout("Verify signatures", Some(&session), Some(NavItem::Webhooks), &content))
}

fn with_a_shared_secret(webhook: &Webhook) -> Markup {
    html! {
        p { "Every request to " span .url { (webhook.url) } " carries " code { "X-Optio-Signature" } ": the HMAC-SHA256 of the body, made with the secret. "
            "Compute it over the raw bytes of the body before you parse them, and compare in constant time." }
        p { "The official libraries of Standard Webhooks verify " code { "webhook-id" } ", " code { "webhook-timestamp" } " and " code { "webhook-signature" }
            " instead. They take a secret as it is if it has the form " code { "whsec_…" } ", which is the form of a generated secret. "
            "A secret in any other form must be given to them as " code { "whsec_" } " and the base64 of its bytes." }
    }
}

fn with_a_key_pair(webhook: &Webhook, key: &str) -> Markup {
    html! {
        p { "Every request to " span .url { (webhook.url) } " carries " code { "webhook-id" } ", " code { "webhook-timestamp" } " and " code { "webhook-signature" }
            " of Standard Webhooks. The signature begins with " code { "v1a," } " and is made with Ed25519, so your endpoint needs only this public key:" }
        div .row { code #public-key { (key) } button .quiet type="button" data-copy="public-key" { "Copy" } }
        p { "Verify it over the raw bytes of the body before you parse them. Use a library only if it says that it verifies " code { "v1a" } "." }
    }
}

/// A snippet for a shared secret, for webhooks with this format. The signature of Optio's built-in worker has no prefix.
fn of_format(code: &str, format: PayloadFormat) -> String {
    if format != PayloadFormat::OptioClassic {
        return code.to_owned();
    }
    let without = code.replace(r#""sha256=" + "#, "");
    without.replace(
        r#"Some(Ok(given)) = header.strip_prefix("sha256=").map(hex::decode)"#,
        "Ok(given) = hex::decode(header)",
    )
}

fn snippet((id, language, code): (&str, &str, &str), is_open: bool) -> Markup {
    html! {
        details open[is_open] {
            summary { (language) }
            button .quiet type="button" data-copy=(id) { "Copy" }
            pre tabindex="0" { code id=(id) { (code) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snippets_of_a_classic_webhook_expect_a_bare_signature() {
        for (id, _, code) in SNIPPETS {
            assert!(of_format(code, PayloadFormat::Slack).contains("sha256="), "{id}");
            let classic = of_format(code, PayloadFormat::OptioClassic);
            assert!(!classic.contains("sha256=") && !classic.contains("strip_prefix"), "{id}: {classic}");
        }
    }
}
