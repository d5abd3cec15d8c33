//! The secret of a webhook, as a person or a program enters it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use optio_webhooks::signature::{SECRET_MAX, Signing, SigningSecret, verify_optio};

const BODY: &[u8] = b"{}";

fuzz_target!(|text: &str| {
    let stored = SigningSecret::stored(text.into());
    assert_eq!(stored.text().expose(), text);
    check_signatures(text, &stored);
    if let Some(warning) = stored.weakness() {
        check_silence(text, &warning);
    }
    match SigningSecret::parse(text.into()) {
        Ok(parsed) => {
            assert!((1..=SECRET_MAX).contains(&text.len()) && !text.chars().any(char::is_control));
            assert_eq!(parsed.signing(), stored.signing(), "a secret means the same when it is read from Redis");
            assert_eq!(sign(&parsed), sign(&stored));
        }
        Err(problem) => check_silence(text, &problem.to_string()),
    }
});

fn sign(secret: &SigningSecret) -> String {
    secret.standard(uuid::Uuid::nil(), 1_700_000_000, BODY)
}

fn check_signatures(text: &str, secret: &SigningSecret) {
    let (optio, standard) = (secret.optio(BODY), sign(secret));
    assert!(standard.is_ascii() && !standard.contains(' '), "signatures in a header are separated by spaces");
    match secret.signing() {
        Signing::Hmac => {
            assert!(verify_optio(text, BODY, &optio.expect("a shared secret makes Optio's own signature")));
            assert!(standard.starts_with("v1,") && secret.public_key().is_none());
        }
        Signing::Ed25519 => {
            assert!(optio.is_none() && standard.starts_with("v1a,"));
            let key = secret.public_key().expect("a private key has a public key");
            assert!(key.starts_with("whpk_") && key.len() == 49);
        }
    }
    let shown = format!("{:?}", secret.text());
    assert!(shown.is_empty() || shown == "••••••");
}

/// A sentence about a secret is short and has no part of it. A part with many digits can't be in a sentence by itself.
fn check_silence(text: &str, sentence: &str) {
    assert!(sentence.chars().count() <= 300);
    let parts = text.as_bytes().windows(8).filter(|part| part.iter().filter(|byte| byte.is_ascii_digit()).count() >= 6);
    for part in parts.filter_map(|part| std::str::from_utf8(part).ok()) {
        assert!(!sentence.contains(part), "{sentence}");
    }
}
