//! Operational events: they tell the owners of webhooks that a webhook was disabled, fails or works again, or that
//! deliveries to it became dead letters.
//!
//! One worker at a time compares what Redis says about each webhook with what was told before (`telling.rs`). It writes
//! the deliveries first and remembers second. After a crash between the two, the same events are written again with the
//! same ids.

pub mod telling;

use serde::Serialize;
use url::Url;

use crate::clock::rfc3339;
use crate::event::{Event, EventType};
use crate::webhook::{Webhook, WebhookId};
use telling::Finding;

/// The payload in Optio's own format. The fields are in the documented order.
#[derive(Serialize)]
struct Payload<'a> {
    event: EventType,
    webhook: Subject<'a>,
    reason: &'a str,
    since: String,
    affected: u64,
    url: Option<String>,
    timestamp: String,
}

/// The webhook that the event is about. A URL may have a secret in its path, so only its host is told.
#[derive(Serialize)]
struct Subject<'a> {
    id: WebhookId,
    description: Option<&'a str>,
    host: Option<&'a str>,
}

/// Makes the event that tells `finding` about `webhook`. `admin_url` is `admin.public_url`.
#[must_use]
pub fn event(finding: &Finding, webhook: &Webhook, affected: u64, admin_url: &str, now_ms: i64) -> Event {
    let payload = Payload {
        event: finding.event,
        webhook: Subject { id: webhook.id, description: webhook.description.as_deref(), host: webhook.url.host_str() },
        reason: &finding.reason,
        since: rfc3339(finding.since_ms),
        affected,
        url: link(admin_url, webhook.id).map(String::from),
        timestamp: rfc3339(now_ms),
    };
    Event {
        id: format!("{}:{}:{}", finding.event.as_str(), webhook.id, finding.since_ms).into(),
        task_id: webhook.id.to_string().into(),
        event_type: finding.event,
        body: serde_json::to_vec(&payload).expect("texts and numbers always serialize").into(),
        classic: None,
        not_understood: Vec::new(),
    }
}

/// A sample event about `webhook` itself, for test events.
#[must_use]
pub fn sample(event_type: EventType, webhook: &Webhook, admin_url: &str, now_ms: i64) -> Event {
    let reason = "This is a test event from Optio; nothing happened.".to_owned();
    let finding = Finding { event: event_type, reason, since_ms: now_ms };
    event(&finding, webhook, 1, admin_url, now_ms)
}

/// The page of a webhook.
fn link(admin_url: &str, webhook: WebhookId) -> Option<Url> {
    let mut url = Url::parse(admin_url).ok()?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(["settings", "webhooks", &webhook.to_string()]);
    Some(url)
}
