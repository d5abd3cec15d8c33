//! The signatures of requests: Optio's own, and those of Standard Webhooks (`docs/reference.md`, section "Signature").

mod signing_secret;

pub use signing_secret::{BadSecret, SECRET_MAX, Signing, SigningSecret};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Whether `header` is the right `X-Optio-Signature` of `body`. The comparison takes constant time.
#[must_use]
pub fn verify_optio(secret: &str, body: &[u8], header: &str) -> bool {
    header
        .strip_prefix("sha256=")
        .and_then(|digest| hex::decode(digest).ok())
        .is_some_and(|digest| keyed(secret.as_bytes()).chain_update(body).verify_slice(&digest).is_ok())
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}
