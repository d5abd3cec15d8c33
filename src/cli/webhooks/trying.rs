//! `webhooks test`: sends a sample event at once and prints the result.

use serde_json::json;

use super::Output;
use crate::cli::{Failure, say, say_json};
use crate::config::Config;
use crate::event::EventType;
use crate::http;
use crate::store::connection::Connection;
use crate::trial::Trials;
use crate::webhook::Webhook;

/// Sends the event. An attempt that the endpoint did not accept is an error.
pub async fn test(
    config: &Config,
    redis: Connection,
    webhook: &Webhook,
    event: Option<EventType>,
    output: &Output,
) -> Result<(), Failure> {
    let event = event.or(webhook.events.first().copied()).unwrap_or(EventType::TaskCompleted);
    let client = http::client::new(&config.delivery).map_err(anyhow::Error::new)?;
    let trial = Trials::new(config, client, redis).send(webhook, event).await.map_err(anyhow::Error::new)?;
    let entry = trial.entry();
    let logged = &entry.logged;
    let mut result = match (logged.error, logged.status_code) {
        (None, Some(status)) => format!("delivered: {status}"),
        (Some(code), Some(status)) => format!("failed: {} {status}", code.as_str()),
        (Some(code), None) => format!("failed: {}", code.as_str()),
        (None, None) => unreachable!("an attempt without a failure has a status"),
    };
    if let Some(detail) = &logged.error_detail {
        result = format!("{result} ({detail})");
    }
    if output.json {
        say_json(&json!({ "delivery": entry.shown() }))?;
    } else {
        say(&format!("{event} to {}: {result} after {} ms", webhook.url, logged.duration_ms, event = event.as_str()));
    }
    if logged.success { Ok(()) } else { Err(anyhow::anyhow!("the endpoint did not accept it: {result}").into()) }
}
