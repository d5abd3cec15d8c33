//! A webhook as Redis holds it: written by this version, by another one, or by anyone with access to Redis.

#![no_main]

use libfuzzer_sys::fuzz_target;
use optio_webhooks::event::EventType;
use optio_webhooks::fuzzing::Unsupported;
use optio_webhooks::secret::keyring::Keyring;
use optio_webhooks::webhook::WebhookId;
use optio_webhooks::webhook::stored::{Sealing, StoredWebhook};

/// The longest sentence about a webhook that can't be read, in characters.
const PROBLEM_MAX: usize = 200;
/// Secrets in the seeds begin with this, and nothing else does.
const MARKED: &str = "hunter2-";
/// The fields of a view that may have any text, even that of the secret.
const FREE_TEXTS: [&str; 5] = ["url", "description", "disabledReason", "createdAt", "updatedAt"];

fuzz_target!(|json: &[u8]| {
    match serde_json::from_slice::<StoredWebhook>(json) {
        Ok(stored) => check_supported(stored),
        Err(error) => check_unsupported(json, &error),
    }
});

fn check_supported(stored: StoredWebhook) {
    let written = serde_json::to_vec(&stored).expect("a webhook that was read can be written");
    let read: StoredWebhook = serde_json::from_slice(&written).expect("a webhook that was written can be read");
    assert_eq!(read, stored, "what is written and read again is equal");
    let sealing = Sealing::new(Keyring::default(), true);
    let has_sealed = sealing.open(stored.clone()).is_err();
    let opened = sealing.open_what_can_be(stored.clone());
    let mut shown = serde_json::to_value(opened.shown()).expect("a view can be written");
    let fields = shown.as_object_mut().expect("a view is an object");
    FREE_TEXTS.iter().for_each(|field| drop(fields.remove(*field)));
    let shown = shown.to_string();
    let secrets = opened.secret.iter().chain(opened.previous_secret.iter().map(|previous| &previous.secret));
    for secret in secrets.map(|secret| secret.text().expose()).filter(|secret| secret.starts_with(MARKED)) {
        assert!(!shown.contains(secret), "a view contains no secret");
    }
    if !has_sealed {
        let sealed = sealing.seal(&opened, Some(&stored)).expect("plain text is allowed");
        assert_eq!(sealed, stored, "a webhook that nobody changes stays as it is");
    }
}

fn check_unsupported(json: &[u8], error: &serde_json::Error) {
    let read = Unsupported::read(WebhookId(uuid::Uuid::nil()), json, error);
    assert!(read.problem.chars().count() <= PROBLEM_MAX);
    let text = String::from_utf8_lossy(json);
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(json)
        && let Some(secret) = value["secret"].as_str().filter(|secret| secret.starts_with(MARKED))
        && text.matches(secret).count() == 1
    {
        assert!(!read.problem.contains(secret), "a problem repeats no secret");
    }
    for event in EventType::TASKS {
        assert!(read.active || !read.may_want(event), "an inactive webhook wants nothing");
    }
}
