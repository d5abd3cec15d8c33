//! The form of a webhook: its fields, and what a person entered into them.

use maud::{Markup, html};
use serde::Deserialize;

use super::elements::option;
use crate::admin::problem::Problem;
use crate::event::EventType;
use crate::payload::PayloadFormat;
use crate::secret::Secret;
use crate::signature::Signing;
use crate::webhook::Webhook;
use crate::webhook::draft::Draft;

/// The fields of a webhook's form, as a person entered them.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Entered {
    pub url: String,
    pub description: String,
    /// It is never written into a page, not even into a form that is shown again.
    pub secret: Secret,
    pub signing: String,
    pub events: Vec<String>,
    pub format: Option<String>,
    pub rate_per_second: String,
}

impl Entered {
    /// The draft, as the API would receive it. It has a secret only if one was entered.
    ///
    /// # Errors
    /// 400: the rate is not a whole number.
    pub fn draft(&self) -> Result<Draft, Problem> {
        let rate = match self.rate_per_second.trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                Problem::field(
                    "ratePerSecond",
                    format!("{text:?} isn't allowed; enter a whole number, or leave it empty"),
                )
            })?),
        };
        let format = self.format.as_deref().and_then(PayloadFormat::named);
        Ok(Draft {
            url: Some(self.url.clone()),
            events: Some(self.events.clone()),
            secret: Some(self.secret.clone()).filter(|secret| !secret.is_empty()).map(Some),
            // A shared secret may be left empty, for unsigned requests.
            signing: signing(&self.signing).filter(|signing| *signing == Signing::Ed25519),
            description: Some(Some(self.description.clone())),
            active: None,
            format,
            rate_per_second: Some(rate),
        })
    }

    /// The form of an existing webhook, without its secret.
    pub fn of(webhook: &Webhook) -> Self {
        Self {
            url: webhook.url.to_string(),
            description: webhook.description.clone().unwrap_or_default(),
            secret: Secret::default(),
            signing: String::new(),
            events: webhook.events.iter().map(|event| event.as_str().to_owned()).collect(),
            format: Some(webhook.format.as_str().to_owned()),
            rate_per_second: webhook.rate_per_second.map_or(String::new(), |rate| rate.to_string()),
        }
    }
}

/// The fields of a webhook's form. Only the form of a new webhook has a field for the secret.
pub fn fields(entered: &Entered, problem: Option<&Problem>, is_new: bool) -> Markup {
    html! {
        @if let Some(problem) = problem { p #problem .flash.bad role="alert" { (problem.sentence) } }
        div .field {
            label for="url" { "Endpoint URL" }
            input #url name="url" type="url" required maxlength="2048" value=(entered.url) placeholder="https://example.com/hooks"
                data-format-preset aria-describedby=(if problem.is_some() { "problem url-hint" } else { "url-hint" });
            p #url-hint .hint { "The HTTPS URL that receives the events. Each arrives as JSON in a POST request." }
        }
        div .field {
            label for="description" { "Description " span .hint { "(optional)" } }
            input #description name="description" maxlength="500" value=(entered.description);
        }
        fieldset {
            legend { "Events" }
            @for event in EventType::ALL {
                div .choice {
                    input type="checkbox" name="events" id=(event.as_str()) value=(event.as_str())
                        checked[entered.events.iter().any(|name| name == event.as_str())] aria-describedby={ (event.as_str()) "-hint" };
                    label for=(event.as_str()) { (event.as_str()) }
                    p .hint id={ (event.as_str()) "-hint" } { (event.explanation()) }
                }
            }
        }
        @if is_new {
            (signing_field(signing(&entered.signing)))
            (secret_field("Signing secret (recommended)", if entered.secret.is_empty() { "Each request carries an X-Optio-Signature that is made with the secret, so that your endpoint can verify that Optio sent it. The secret isn't shown again. Leave it empty for unsigned requests, or for a key pair, which is generated." } else { "Enter the secret again: it isn't sent back in a page." }))
        }
        div .field {
            label for="format" { "Format" }
            select #format name="format" {
                @let selected = entered.format.as_deref().unwrap_or_default();
                @if is_new { (option("", "Determined by the URL", selected)) }
                @for format in PayloadFormat::ALL {
                    option value=(format.as_str()) data-hosts=(format.hosts().join(" ")) selected[format.as_str() == selected] {
                        (format.label())
                    }
                }
            }
            p .hint { "Slack's incoming webhooks (hooks.slack.com) accept only Slack messages. Slack workflow triggers get the same content as variables. If you don't choose a format, the URL determines it. optio-classic is the payload of Optio's built-in worker, for receivers that have not moved yet." }
        }
        div .field {
            label for="rate" { "Requests per second " span .hint { "(optional)" } }
            input #rate name="rate_per_second" inputmode="numeric" pattern="[0-9]*" value=(entered.rate_per_second);
            p .hint { "The highest rate. If you leave it empty, only the endpoint's own pace limits the requests." }
        }
    }
}

/// Reads the choice of `signing_field`.
pub fn signing(text: &str) -> Option<Signing> {
    match text {
        "hmac" => Some(Signing::Hmac),
        "ed25519" => Some(Signing::Ed25519),
        _ => None,
    }
}

/// The field that chooses how requests are signed.
pub fn signing_field(current: Option<Signing>) -> Markup {
    let selected = if current == Some(Signing::Ed25519) { "ed25519" } else { "hmac" };
    html! {
        div .field {
            label for="signing" { "Signature" }
            select #signing name="signing" aria-describedby="signing-hint" {
                (option("hmac", "Shared secret (HMAC-SHA256)", selected))
                (option("ed25519", "Key pair (Ed25519)", selected))
            }
            p #signing-hint .hint { "With a shared secret, your endpoint needs the same secret. With a key pair, Optio keeps the private key and your endpoint needs only the public key; the signature is " code { "v1a" } " of Standard Webhooks." }
        }
    }
}

/// The field for a secret, with a button that generates one.
pub fn secret_field(label: &str, hint: &str) -> Markup {
    html! {
        div .field {
            label for="secret" { (label) }
            div .row {
                input #secret name="secret" type="password" maxlength="512" autocomplete="off" aria-describedby="secret-hint";
                button .quiet type="button" data-generate="secret" { "Generate" }
            }
            p #secret-hint .hint { (hint) }
        }
    }
}
