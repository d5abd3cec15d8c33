//! The form of a webhook: its fields, and what a person entered into them.

use maud::{Markup, html};
use serde::Deserialize;

use super::elements::option;
use super::filter_form::{EnteredFilter, filter_fields};
use crate::admin::problem::Problem;
use crate::event::EventType;
use crate::payload::PayloadFormat;
use crate::secret::{MASK, Secret};
use crate::signature::Signing;
use crate::webhook::Webhook;
use crate::webhook::custom_header::HeaderDraft;
use crate::webhook::draft::Draft;

/// The fields of a webhook's form, as a person entered them.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Entered {
    /// The `updatedAt` of the webhook when its form was shown; empty for a new webhook.
    pub updated_at: String,
    pub url: String,
    pub description: String,
    /// It is never written into a page, not even into a form that is shown again.
    pub secret: Secret,
    pub signing: String,
    pub events: Vec<String>,
    pub format: Option<String>,
    /// One header on each line. A page never gets the values back.
    pub headers: Secret,
    pub rate_per_second: String,
    pub filter_repo: String,
    pub filter_agent: String,
    pub filter_task_type: String,
    pub filter: String,
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
            hold: None,
            headers: Some(Some(read_headers(&self.headers)?)),
            filter: Some(self.filter().json()?),
            format,
            rate_per_second: Some(rate),
        })
    }

    /// The fields of the filter. They stand in this form by themselves, because a form reader can't read a list next to
    /// a part with fields of its own.
    pub fn filter(&self) -> EnteredFilter {
        EnteredFilter {
            filter_repo: self.filter_repo.clone(),
            filter_agent: self.filter_agent.clone(),
            filter_task_type: self.filter_task_type.clone(),
            filter: self.filter.clone(),
        }
    }

    /// The form of an existing webhook, without its secret.
    pub fn of(webhook: &Webhook) -> Self {
        let filter = EnteredFilter::of(webhook);
        Self {
            updated_at: webhook.updated_at.clone(),
            url: webhook.url.to_string(),
            description: webhook.description.clone().unwrap_or_default(),
            secret: Secret::default(),
            signing: String::new(),
            events: webhook.events.iter().map(|event| event.as_str().to_owned()).collect(),
            format: Some(webhook.format.as_str().to_owned()),
            headers: header_lines(webhook.headers.iter().map(|header| (header.name.as_str(), MASK))).into(),
            rate_per_second: webhook.rate_per_second.map_or(String::new(), |rate| rate.to_string()),
            filter_repo: filter.filter_repo,
            filter_agent: filter.filter_agent,
            filter_task_type: filter.filter_task_type,
            filter: filter.filter,
        }
    }
}

/// The fields of a webhook's form. Only the form of a new webhook has a field for the secret.
pub fn fields(entered: &Entered, problem: Option<&Problem>, is_new: bool) -> Markup {
    html! {
        @if let Some(problem) = problem { p #problem .flash.bad role="alert" { (problem.sentence) } }
        @if !is_new { input type="hidden" name="updated_at" value=(entered.updated_at); }
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
                @if Some(&event) == EventType::OPERATIONAL.first() {
                    p .hint { "The next events tell about other webhooks instead of tasks, each at most once an hour for a webhook. Filters don't apply to them." }
                }
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
            p .hint { "Chats accept only messages in their own format. If you don't choose one, the URL determines it: Slack, Discord and the workflows of Microsoft Teams are known by their hosts. Slack workflow triggers get the content as variables. CloudEvents wraps Optio's payload in an envelope that many event systems read. optio-classic is the payload of Optio's built-in worker, for receivers that have not moved yet." }
        }
        (filter_fields(&entered.filter()))
        (headers_field(&entered.headers))
        div .field {
            label for="rate" { "Requests per second " span .hint { "(optional)" } }
            input #rate name="rate_per_second" inputmode="numeric" pattern="[0-9]*" value=(entered.rate_per_second);
            p .hint { "The highest rate. If you leave it empty, only the endpoint's own pace limits the requests." }
        }
    }
}

/// The headers that were entered, one on each line.
fn read_headers(lines: &Secret) -> Result<Vec<HeaderDraft>, Problem> {
    let lines = lines.expose().lines().map(str::trim).filter(|line| !line.is_empty());
    let read = |line: &str| {
        // A line without a colon may be a value, so it isn't repeated.
        let (name, value) = line.split_once(':').ok_or_else(|| {
            Problem::field("headers", "a line has no colon; write each header on a line of its own, as Name: value")
        })?;
        Ok(HeaderDraft { name: name.trim().to_owned(), value: value.trim().into() })
    };
    lines.map(read).collect()
}

fn header_lines<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    headers.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n")
}

/// The field for the headers. A value that was entered isn't written into the page, so it must be entered again.
fn headers_field(entered: &Secret) -> Markup {
    let drafts = read_headers(entered).unwrap_or_default();
    let is_lost = drafts.iter().any(|header| !header.value.is_mask());
    let shown = header_lines(
        drafts.iter().map(|header| (header.name.as_str(), if header.value.is_mask() { MASK } else { "" })),
    );
    html! {
        div .field {
            label for="headers" { "Headers " span .hint { "(optional)" } }
            textarea #headers name="headers" rows="3" spellcheck="false" autocomplete="off" aria-describedby="headers-hint"
                placeholder="Authorization: Bearer …" { (shown) }
            p #headers-hint .hint {
                @if is_lost { "Enter the values again: they aren't sent back in a page. " }
                "Each request has these in addition, one on each line. Values are kept like secrets: " (MASK) " stands for the one that is stored. Remove a line to remove the header."
            }
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
