use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// `body` is the raw request body, before any JSON parser has touched it.
pub fn is_genuine(secret: &str, body: &[u8], header: &str) -> bool {
    let Some(Ok(given)) = header.strip_prefix("sha256=").map(hex::decode) else {
        return false;
    };
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.chain_update(body).verify_slice(&given).is_ok()
}
