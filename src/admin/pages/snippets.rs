//! The page that shows how to verify a signature in five languages.

use axum::Extension;
use axum::extract::{Path, State};
use maud::{Markup, html};

use super::layout::{NavItem, layout};
use super::webhook::{Tab, head};
use crate::admin::problem::Refusal;
use crate::admin::sessions::Session;
use crate::admin::state::Shared;

/// The element's id, the language and the code. Tests run each snippet against a real delivery.
const SNIPPETS: [(&str, &str, &str); 5] = [
    ("node", "Node.js", include_str!("../snippets/verify.mjs")),
    ("python", "Python", include_str!("../snippets/verify.py")),
    ("go", "Go", include_str!("../snippets/verify.go")),
    ("rust", "Rust", include_str!("../snippets/verify.rs")),
    ("ruby", "Ruby", include_str!("../snippets/verify.rb")),
];

/// `GET /settings/webhooks/{id}/verify`
pub async fn show(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
) -> Result<Markup, Refusal> {
    let webhook = admin.find(&id).await?;
    let newest = admin.log.page(webhook.id, Default::default(), None, 1).await?.entries.into_iter().next();
    let content = html! {
        (head(&webhook, Tab::Verify))
        @if webhook.secret.is_none() {
            p .flash.warn { "This webhook has no secret, so its requests carry no signature. Set one under Settings." }
        }
        p { "Every request to " span .url { (webhook.url) } " carries " code { "X-Optio-Signature" } ": the HMAC-SHA256 of the body, made with the secret. "
            "Compute it over the raw bytes of the body before you parse them, and compare in constant time." }
        @if let Some(entry) = &newest {
            h2 { "Headers of the newest request" }
            pre tabindex="0" { code { @for (name, value) in entry.logged.request_headers() { (name) ": " (value) "\n" } } }
        }
        @for (id, language, code) in SNIPPETS {
            details open[id == "node"] {
                summary { (language) }
                button .quiet type="button" data-copy=(id) { "Copy" }
                pre tabindex="0" { code id=(id) { (code) } }
            }
        }
    };
    Ok(layout("Verify signatures", Some(&session), Some(NavItem::Webhooks), &content))
}
