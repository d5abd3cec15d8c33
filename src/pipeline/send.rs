//! One attempt: the request of contract section 3, and what it came to.

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Request, Response};
use tokio::time::Instant;

use crate::config;
use crate::delivery::{Attempt, Delivery, FailureCode, now_ms, now_ms_up, retry_after};
use crate::http::client::{failure_code, policy};
use crate::signature;
use crate::store::log::RESPONSE_BODY_MAX;
use crate::webhook::Webhook;

/// Sends attempt number `delivery.attempts + 1`. Ends within `delivery.timeout`.
pub async fn attempt(
    client: &reqwest::Client,
    webhook: &Webhook,
    delivery: &Delivery,
    settings: &config::Delivery,
) -> Attempt {
    let started = Instant::now();
    let mut attempt = Attempt {
        failure: None,
        status: None,
        response_body: String::new(),
        duration: std::time::Duration::ZERO,
        retry_after: None,
        ended_at_ms: 0,
        proofs: Vec::new(),
    };
    // An address as host never reaches the guarded resolver; the settings may have changed since it was saved.
    if policy(settings).check_url(&webhook.url).is_err() {
        attempt.failure = Some(FailureCode::AddressBlocked);
    } else {
        attempt.proofs = proofs(webhook, delivery, now_ms());
        let mut request = Request::new(Method::POST, webhook.url.clone());
        *request.headers_mut() = headers(webhook, delivery, &attempt.proofs);
        *request.body_mut() = Some(delivery.body.clone().into());
        let answer = client.execute(request);
        attempt.failure = exchange(answer, &mut attempt, settings.response_body_max).await.err();
    }
    attempt.duration = started.elapsed();
    attempt.ended_at_ms = now_ms_up();
    attempt
}

async fn exchange(
    answer: impl Future<Output = reqwest::Result<Response>>,
    attempt: &mut Attempt,
    body_max: usize,
) -> Result<(), FailureCode> {
    let mut response = answer.await.map_err(|error| failure_code(&error))?;
    let status = response.status();
    attempt.status = Some(status.as_u16());
    attempt.retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value, now_ms()));
    let mut body = Vec::new();
    // What is over the bound stays unread: an endless body can't hold the attempt.
    let read = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = body_max - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if body.len() >= body_max {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) if error.is_timeout() => break Err(FailureCode::Timeout),
            Err(_) => break Err(FailureCode::Body),
        }
    };
    attempt.response_body = String::from_utf8_lossy(&body).chars().take(RESPONSE_BODY_MAX).collect();
    if status.is_success() {
        read
    } else if status.is_redirection() {
        Err(FailureCode::Redirect)
    } else {
        Err(FailureCode::Status)
    }
}

/// Who sent it, and when: only where there is a secret.
fn proofs(webhook: &Webhook, delivery: &Delivery, now_ms: i64) -> Vec<(&'static str, String)> {
    let mut proofs = Vec::with_capacity(4);
    if let Some(secret) = &webhook.secret {
        let timestamp_s = now_ms / 1_000;
        // Several signatures are separated by spaces (Standard Webhooks, "Multiple signatures").
        let mut standard = String::new();
        for secret in webhook.secrets(now_ms) {
            if !standard.is_empty() {
                standard.push(' ');
            }
            standard.push_str(&signature::standard(secret, delivery.id, timestamp_s, &delivery.body));
        }
        proofs.push(("x-optio-signature", signature::optio(secret, &delivery.body)));
        proofs.push(("webhook-timestamp", timestamp_s.to_string()));
        proofs.push(("webhook-signature", standard));
    }
    if let Some(traceparent) = &delivery.traceparent {
        proofs.push(("traceparent", traceparent.clone()));
    }
    proofs
}

/// The headers of contract section 3.
fn headers(webhook: &Webhook, delivery: &Delivery, proofs: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(10);
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let id = delivery.id.to_string();
    put("x-optio-event", delivery.event_type.as_str());
    put("x-optio-delivery", &id);
    put("x-optio-attempt", &delivery.attempts.saturating_add(1).to_string());
    if webhook.secret.is_some() {
        put("webhook-id", &id);
    }
    for (name, value) in proofs {
        put(name, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}
