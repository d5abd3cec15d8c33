//! Why a broker refuses a client: a sentence that says what to change.
//!
//! A client that is refused gets no answer, like one whose broker is away. The reason comes only as an error of the whole
//! client (`logging.rs`), so the last one is kept here, for whoever waited for the answer.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::producer::{FutureProducer, Producer as _};

use super::clients;
use super::logging::Logging;
use crate::config::Config;

/// The last refusal of any client of this process. All of them have the same settings.
static LAST: RwLock<Option<String>> = RwLock::new(None);

/// The longest reason of librdkafka that is repeated, in characters.
const REASON_MAX: usize = 300;

/// Whether a failure of the transport is the broker's refusal in TLS (RFC 8446, section 6).
pub(super) fn is_tls_alert(reason: &str) -> bool {
    reason.contains("SSL routines") && reason.contains("alert")
}

/// Keeps a refusal. `reason` has no secrets.
pub(super) fn keep(reason: &str) {
    *LAST.write().unwrap_or_else(PoisonError::into_inner) = Some(explained(reason));
}

/// The last refusal, if there was one.
#[must_use]
pub fn last() -> Option<String> {
    LAST.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The time that a broker has to refuse a client.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Connects once more, with a client that reports its errors, and returns the reason if the broker refuses it. Blocks.
#[must_use]
pub fn ask(config: &Config) -> Option<String> {
    // The admin client reports no errors of its connections, because nothing polls them. A producer has a thread for it.
    let client: FutureProducer<Logging> = clients::producer(config).create_with_context(Logging).ok()?;
    let until = Instant::now() + ASK_MAX;
    while Instant::now() < until {
        if client.client().fetch_metadata(None, Duration::from_secs(1)).is_ok() {
            return None;
        }
        if let Some(refusal) = last() {
            return Some(refusal);
        }
    }
    None
}

/// Forgets the last refusal, because the broker answers.
pub fn forget() {
    *LAST.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Says what to change. librdkafka and the broker have no codes for this, so it is read from their words.
fn explained(reason: &str) -> String {
    let lower = reason.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let what = if has(&["hostname mismatch", "ip address mismatch", "name mismatch"]) {
        "the broker's certificate is for another name than the one in kafka.brokers"
    } else if has(&["certificate verify failed", "could not be verified", "unknown ca", "self-signed", "self signed"]) {
        "the broker's certificate isn't trusted; kafka.properties.\"ssl.ca.location\" names the file of its authority"
    } else if has(&["certificate required", "bad certificate", "certificate unknown"]) {
        "the broker asks for a client certificate that it trusts; see kafka.properties.\"ssl.certificate.location\" and \"ssl.key.location\""
    } else if has(&["oauthbearer", "token"]) {
        "no token can be had, or the broker refuses it; see kafka.properties.\"sasl.oauthbearer.…\""
    } else if has(&["invalid credentials", "authentication failed"]) {
        "the broker refuses the user or the password; see kafka.properties.\"sasl.username\" and \"sasl.password\""
    } else if has(&["ssl handshake", "wrong version number", "ssl_handshake"]) {
        "the TLS handshake fails; does the broker's listener speak TLS, and does kafka.properties.\"security.protocol\" fit it?"
    } else if has(&["mechanism"]) {
        "the broker doesn't take this SASL mechanism; see kafka.properties.\"sasl.mechanism\""
    } else {
        "the broker refuses the connection"
    };
    let reason: String = reason.chars().take(REASON_MAX).collect();
    format!("{what} ({reason})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_change() {
        for (reason, part) in [
            (
                "SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512",
                "user or the password",
            ),
            (
                "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured",
                "isn't trusted",
            ),
            ("SSL handshake failed: certificate verify failed: hostname mismatch", "another name"),
            (
                "SSL handshake failed: error:0A00045C:SSL routines::tlsv13 alert certificate required",
                "client certificate",
            ),
            (
                "Failed to acquire SASL OAUTHBEARER token: Failed to retrieve OIDC token from http://127.0.0.1/",
                "no token",
            ),
            ("SSL handshake failed: error:1408F10B:SSL routines:ssl3_get_record:wrong version number", "speak TLS"),
            ("Broker: Unsupported SASL mechanism", "SASL mechanism"),
            ("", "refuses the connection"),
        ] {
            let sentence = explained(reason);
            assert!(sentence.contains(part), "{reason}: {sentence}");
        }
        assert!(explained(&"é".repeat(10_000)).chars().count() < 1_000);
    }
}
