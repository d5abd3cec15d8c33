//! Passes librdkafka's log lines and errors on to `tracing`, with secrets masked.

use std::sync::{PoisonError, RwLock};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::suppressing;
use crate::secret::{MASK, Secret};

/// The context of clients that need only logging.
#[derive(Debug, Default, Clone, Copy)]
pub struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self::error(&error, reason);
    }
}

impl ConsumerContext for Logging {}

/// Values of properties that must not appear in the log. All clients of a process share one configuration.
static SECRETS: RwLock<Vec<Secret>> = RwLock::new(Vec::new());

/// Masks these values in all later log lines. Replaces the values that were set before.
pub fn set_secrets(secrets: Vec<Secret>) {
    *SECRETS.write().unwrap_or_else(PoisonError::into_inner) = secrets;
}

fn without_secrets(message: &str) -> String {
    masked(message, &SECRETS.read().unwrap_or_else(PoisonError::into_inner))
}

/// The shortest end of a secret that is masked, in characters. A shorter one reveals little, and ordinary words contain
/// it.
const SUFFIX_MIN: usize = 4;

/// Masks the secrets in `message`, and also the end of a secret: librdkafka quotes a value from the position where it
/// can't parse it.
fn masked(message: &str, secrets: &[Secret]) -> String {
    let mut message = message.to_owned();
    for secret in secrets.iter().map(Secret::expose) {
        let suffixes = secret.char_indices().map(|(at, _)| &secret[at..]);
        let mut suffixes = suffixes.take_while(|suffix| suffix.chars().count() >= SUFFIX_MIN);
        // The longest suffix comes first.
        if let Some(suffix) = suffixes.find(|suffix| message.contains(suffix)) {
            message = message.replace(suffix, MASK);
        }
    }
    message
}

/// Logs a line of librdkafka's log.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let message = without_secrets(message);
    match level {
        // `kafka.properties` go to consumers and producers alike, so librdkafka warns about properties of the other
        // kind.
        _ if facility == "CONFWARN" => tracing::debug!(target: "librdkafka", "{message}"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// Logs an error that concerns a whole client. librdkafka reconnects by itself. An error that is repeated is logged from
/// time to time, with the number of those that were suppressed. A fatal error is always logged.
pub fn error(error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code();
    // A client that reads a topic to its end asks for this event.
    if code == Some(RDKafkaErrorCode::PartitionEOF) {
        return;
    }
    let reason = without_secrets(reason);
    // With TLS 1.3 the broker judges a client certificate after the handshake, so its alert looks like a failure of the
    // transport.
    let is_refusal = match code {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => true,
        Some(RDKafkaErrorCode::BrokerTransportFailure) => super::refusal::is_tls_alert(&reason),
        _ => false,
    };
    if is_refusal {
        super::refusal::keep(&reason);
    }
    if code == Some(RDKafkaErrorCode::Fatal) {
        return tracing::error!(target: "librdkafka", %error, reason, "fatal client error");
    }
    let Some(suppressed) = suppressing::admit(code, is_refusal) else { return };
    let suppressed = Some(suppressed).filter(|suppressed| *suppressed > 0);
    match code {
        Some(code) if is_refusal => {
            tracing::warn!(target: "librdkafka", %code, reason, suppressed, "the broker refuses this client");
        }
        _ => tracing::warn!(target: "librdkafka", %error, reason, suppressed, "client error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_and_the_quoted_end_of_one_are_masked() {
        let secrets = ["principal=me scope=hunter2", "üter", "abc"].map(Secret::from);
        assert_eq!(masked("can't read: principal=me scope=hunter2", &secrets), "can't read: ••••••");
        assert_eq!(masked("beginning at: scope=hunter2, üter", &secrets), "beginning at:••••••, ••••••");
        assert_eq!(masked("abc is too short", &secrets), "abc is too short");
    }
}
