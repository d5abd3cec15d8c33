//! One attempt: the request (`docs/reference.md`, section "The webhook request") and its outcome.

use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::{now_ms, now_ms_up};
use crate::config;
use crate::delivery::{Attempt, Delivery, FailureCode};
use crate::http::answer::Answer;
use crate::http::client::Client;
use crate::http::failure::SendError;
use crate::retry_after;
use crate::store::log::RESPONSE_BODY_MAX;
use crate::traceparent::TraceParent;
use crate::webhook::Webhook;
use crate::webhook::custom_header::CustomHeader;

/// Makes attempt number `delivery.attempts + 1`, with this trace context. Ends within `delivery.timeout`.
pub async fn attempt(
    client: &Client,
    webhook: &Webhook,
    delivery: &Delivery,
    context: Option<&TraceParent>,
    settings: &config::DeliverySettings,
) -> Attempt {
    let started = Instant::now();
    let mut attempt = Attempt {
        failure: None,
        detail: None,
        status: None,
        response_body: String::new(),
        duration: std::time::Duration::ZERO,
        retry_after: None,
        ended_at_ms: 0,
        is_sent: false,
        proofs: Vec::new(),
        custom_headers: webhook.headers.iter().map(|header| header.name.clone()).collect(),
    };
    let failed = match client.check_url(&webhook.url) {
        // The URL is checked again because the settings may have changed since the webhook was saved.
        Err(blocked) => Err(SendError::new(FailureCode::AddressBlocked, "the webhook's URL", blocked)),
        Ok(()) => {
            attempt.proofs = proofs(webhook, delivery, context, now_ms());
            let is_sent = AtomicBool::new(false);
            // The client asks for the headers when it has a connection.
            let request = || {
                is_sent.store(true, Ordering::Relaxed);
                headers(webhook, delivery, &attempt.proofs)
            };
            #[cfg(test)]
            if let Some(answer) = client.scripted_answer(&webhook.url, request).await {
                return scripted(attempt, answer, started);
            }
            let answer = client.post(&webhook.url, request, delivery.body.clone()).await;
            attempt.is_sent = is_sent.into_inner();
            match answer {
                Ok(answer) => read(answer, &mut attempt, settings).await,
                Err(error) => Err(error),
            }
        }
    };
    if let Err(SendError { code, detail }) = failed {
        (attempt.failure, attempt.detail) = (Some(code), Some(detail));
    }
    attempt.duration = started.elapsed();
    attempt.ended_at_ms = now_ms_up();
    attempt
}

async fn read(answer: Answer, attempt: &mut Attempt, settings: &config::DeliverySettings) -> Result<(), SendError> {
    let status = answer.status();
    attempt.status = Some(status.as_u16());
    attempt.retry_after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after::read(value, now_ms(), settings.retry_after_max));
    let (body, read_to_end) = answer.body(settings.response_body_max).await;
    attempt.response_body = String::from_utf8_lossy(&body).chars().take(RESPONSE_BODY_MAX).collect();
    let refused =
        |code, reason| Err(SendError::new(code, "reading the answer", format_args!("{reason} {}", status.as_u16())));
    if status.is_success() {
        read_to_end
    } else if status.is_redirection() {
        refused(FailureCode::Redirect, "redirects are never followed, and the endpoint answered with one:")
    } else {
        refused(FailureCode::Status, "the endpoint answered with the status")
    }
}

/// The headers that can't be derived from the delivery: the signatures with their time, if the webhook has a secret,
/// and the trace context.
fn proofs(
    webhook: &Webhook,
    delivery: &Delivery,
    context: Option<&TraceParent>,
    now_ms: i64,
) -> Vec<(&'static str, HeaderValue)> {
    let mut proofs = Vec::with_capacity(4);
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            proofs.push((name, value));
        }
    };
    if webhook.secret.is_some() {
        let timestamp_s = now_ms / 1_000;
        // Several signatures are separated by spaces (Standard Webhooks, "Multiple signatures").
        let mut standard = String::new();
        for secret in webhook.secrets(now_ms) {
            if !standard.is_empty() {
                standard.push(' ');
            }
            standard.push_str(&secret.standard(delivery.id.0, timestamp_s, &delivery.body));
        }
        // The header has room for one signature: that of the newest shared secret.
        if let Some(signature) = webhook.secrets(now_ms).find_map(|secret| secret.optio(&delivery.body)) {
            put("x-optio-signature", webhook.format.signature(&signature));
        }
        put("webhook-timestamp", &timestamp_s.to_string());
        put("webhook-signature", &standard);
    }
    if let Some(context) = context {
        put("traceparent", context.as_str());
    }
    proofs
}

/// All headers of the request (`docs/reference.md`, section "Request headers").
fn headers(webhook: &Webhook, delivery: &Delivery, proofs: &[(&'static str, HeaderValue)]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(10 + webhook.headers.len());
    // The headers of the owner come first, so that none of them can replace one of ours, whatever Redis holds.
    headers.extend(webhook.headers.iter().filter_map(CustomHeader::parts));
    let mut put = |name: &'static str, value: HeaderValue| headers.insert(HeaderName::from_static(name), value);
    let id = delivery_id(delivery);
    put("x-optio-event", HeaderValue::from_static(delivery.event_type.as_str()));
    put("x-optio-delivery", id.clone());
    put("x-optio-attempt", HeaderValue::from(delivery.attempts.saturating_add(1)));
    if webhook.secret.is_some() {
        put("webhook-id", id);
    }
    for (name, value) in proofs {
        put(name, value.clone());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(webhook.format.content_type()));
    headers
}

fn delivery_id(delivery: &Delivery) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = delivery.id.0.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("hexadecimal digits and dashes are allowed in a header")
}

/// An attempt whose answer a simulation decides.
#[cfg(test)]
fn scripted(attempt: Attempt, answer: Result<u16, SendError>, started: Instant) -> Attempt {
    let (status, failure) = match answer {
        Ok(status @ 200..300) => (Some(status), None),
        Ok(status) => (Some(status), Some(FailureCode::Status)),
        Err(error) => (None, Some(error.code)),
    };
    Attempt { status, failure, is_sent: true, duration: started.elapsed(), ended_at_ms: now_ms_up(), ..attempt }
}
