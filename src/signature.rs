//! The signatures of requests: Optio's own, and the one of Standard Webhooks (`docs/reference.md`, section
//! "Signature").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::delivery::DeliveryId;

/// Returns the value of `X-Optio-Signature`: the HMAC-SHA256 of the body. The key is the UTF-8 bytes of the secret as
/// it was entered.
#[must_use]
pub fn optio(secret: &str, body: &[u8]) -> String {
    let mac = keyed(secret.as_bytes()).chain_update(body).finalize().into_bytes();
    let mut header = String::with_capacity(71);
    header.push_str("sha256=");
    header.push_str(&hex::encode(mac));
    header
}

/// Returns a signature for `webhook-signature`: the HMAC-SHA256 of `id.timestamp.body` (Standard Webhooks, "Signature
/// scheme").
#[must_use]
pub fn standard(secret: &str, id: DeliveryId, timestamp_s: i64, body: &[u8]) -> String {
    let mac = keyed(&standard_key(secret))
        .chain_update(format!("{id}.{timestamp_s}."))
        .chain_update(body)
        .finalize()
        .into_bytes();
    format!("v1,{}", STANDARD.encode(mac))
}

/// Generates a secret in the form of Standard Webhooks: `whsec_` and the base64 of 24 random bytes.
#[must_use]
pub fn generate_secret() -> String {
    format!("whsec_{}", STANDARD.encode(rand::random::<[u8; 24]>()))
}

/// Whether `header` is the right `X-Optio-Signature` of `body`. The comparison takes constant time.
#[must_use]
pub fn verify_optio(secret: &str, body: &[u8], header: &str) -> bool {
    header
        .strip_prefix("sha256=")
        .and_then(|digest| hex::decode(digest).ok())
        .is_some_and(|digest| keyed(secret.as_bytes()).chain_update(body).verify_slice(&digest).is_ok())
}

/// Returns the key for a secret: the decoded base64 after `whsec_`, or the UTF-8 bytes of any other secret.
fn standard_key(secret: &str) -> Vec<u8> {
    secret
        .strip_prefix("whsec_")
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .unwrap_or_else(|| secret.as_bytes().to_vec())
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    // Python computes the same signature:
    //   hmac.new(b"s3cret", b'{"a":1}', "sha256").hexdigest()
    #[test]
    fn optios_signature_is_the_one_that_python_computes() {
        assert_eq!(
            optio("s3cret", br#"{"a":1}"#),
            "sha256=5910e62016ef5034272c926c27071992a465c2335cecf41851bda071577f4f6d"
        );
        assert!(verify_optio("s3cret", br#"{"a":1}"#, &optio("s3cret", br#"{"a":1}"#)));
        assert!(!verify_optio("s3cret", br#"{"a":2}"#, &optio("s3cret", br#"{"a":1}"#)));
        assert!(!verify_optio("s3cret", b"", "sha256=zz"));
    }

    #[test]
    fn the_standard_signature_is_the_one_that_python_computes() {
        let id = DeliveryId(Uuid::from_u128(1));
        assert_eq!(
            standard("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id, 1_614_265_330, br#"{"a":1}"#),
            "v1,1mRqZK/rgj9clC3P5iI7CPpJmHnJEEywuotsRiyspfI="
        );
        assert_eq!(
            standard("plain", id, 1_614_265_330, br#"{"a":1}"#),
            "v1,J1aZGAMsZmapS1BxiSEUJacvczPsvjjFrf85ZbieH1M="
        );
    }
}
