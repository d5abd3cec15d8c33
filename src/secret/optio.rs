//! Opens the secrets of webhooks as Optio's own database stores them, for the import of its webhooks.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{Aead as _, Nonce, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, KeyInit as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Secret;

/// The key of Optio's installation (`OPTIO_ENCRYPTION_KEY`): 64 hex digits, or any text, of which the SHA-256 counts.
pub struct OptioKey(Zeroizing<[u8; 32]>);

/// A sealed secret: the columns `encrypted_secret`, `secret_iv` and `secret_auth_tag` of Optio's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedByOptio {
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
    /// The nonce: 12 bytes, or 16 in older rows.
    pub nonce: Vec<u8>,
    /// The tag, 16 bytes.
    pub tag: Vec<u8>,
}

impl OptioKey {
    /// Reads the key as Optio does.
    #[must_use]
    pub fn new(text: &Secret) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        if hex::decode_to_slice(text.expose(), key.as_mut_slice()).is_err() {
            key.copy_from_slice(&Sha256::digest(text.expose().as_bytes()));
        }
        Self(key)
    }

    /// Opens the secret of the webhook with this URL. Newer rows are bound to the URL, older ones to nothing. None if
    /// the key is another one, or the row was changed.
    #[must_use]
    pub fn open(&self, sealed: &SealedByOptio, url: &str) -> Option<Secret> {
        let bound = format!("webhook:{url}:secret");
        let text = Zeroizing::new([sealed.ciphertext.as_slice(), &sealed.tag].concat());
        let opened = [bound.as_bytes(), b""].into_iter().find_map(|aad| {
            let payload = Payload { msg: &text, aad };
            match sealed.nonce.len() {
                12 => {
                    let nonce: &Nonce<AesGcm<Aes256, U12>> = sealed.nonce.as_slice().try_into().ok()?;
                    AesGcm::<Aes256, U12>::new((&*self.0).into()).decrypt(nonce, payload).ok()
                }
                16 => {
                    let nonce: &Nonce<AesGcm<Aes256, U16>> = sealed.nonce.as_slice().try_into().ok()?;
                    AesGcm::<Aes256, U16>::new((&*self.0).into()).decrypt(nonce, payload).ok()
                }
                _ => None,
            }
        })?;
        let opened = Zeroizing::new(opened);
        std::str::from_utf8(&opened).ok().filter(|text| !text.is_empty()).map(Secret::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sealed by Node's `crypto` with `createCipheriv("aes-256-gcm", …)`, as Optio does it.
    fn sealed(nonce: &str, ciphertext: &str, tag: &str) -> SealedByOptio {
        let [nonce, ciphertext, tag] = [nonce, ciphertext, tag].map(|text| hex::decode(text).unwrap());
        SealedByOptio { ciphertext, nonce, tag }
    }

    const URL: &str = "https://example.com/hooks";

    #[test]
    fn newer_and_older_rows_are_opened_and_no_others() {
        let hex_key = OptioKey::new(&"00".repeat(32).as_str().into());
        let text_key = OptioKey::new(&"a passphrase".into());
        let newer = sealed(NEWER[0], NEWER[1], NEWER[2]);
        let older = sealed(OLDER[0], OLDER[1], OLDER[2]);
        assert_eq!(hex_key.open(&newer, URL).unwrap().expose(), "hunter2 ünïcödé");
        assert_eq!(text_key.open(&older, URL).unwrap().expose(), "hunter2 ünïcödé");
        assert!(hex_key.open(&newer, "https://example.com/other").is_none(), "it is bound to its URL");
        assert!(text_key.open(&newer, URL).is_none() && hex_key.open(&older, URL).is_none(), "another key");
        for broken in [sealed("", NEWER[1], NEWER[2]), sealed(NEWER[0], NEWER[1], ""), sealed(NEWER[0], "", NEWER[2])] {
            assert!(hex_key.open(&broken, URL).is_none());
        }
    }

    const NEWER: [&str; 3] =
        ["070707070707070707070707", "15bdc6bf0d543202240b1595dfb62a41a54488", "19dfd4c4b643932f043765f7b1092927"];
    const OLDER: [&str; 3] = [
        "07070707070707070707070707070707",
        "358a8c20ef05ca1d5c3dfd532a5dd296d34251",
        "069a0a5a5d9e11322e6a910ce2552b46",
    ];
}
