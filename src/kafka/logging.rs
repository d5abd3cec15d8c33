//! What librdkafka says, passed on at the level that it deserves.

use std::sync::{PoisonError, RwLock};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::config::MASK;

/// The context of clients that need nothing else.
#[derive(Debug, Default, Clone, Copy)]
pub struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self::error(&error, reason);
    }
}

impl ConsumerContext for Logging {}

/// What librdkafka may not say, as properties have it. The clients of a process have one configuration.
static SECRETS: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// From now on none of these stands in the log.
pub fn keep_secret(secrets: Vec<String>) {
    *SECRETS.write().unwrap_or_else(PoisonError::into_inner) = secrets;
}

fn said(words: &str) -> String {
    masked(words, &SECRETS.read().unwrap_or_else(PoisonError::into_inner))
}

/// A shorter end of a secret tells nothing, and would be found in many words.
const END_MIN: usize = 4;

/// `words` without the secrets, nor the end of one: librdkafka quotes a value from where it can't read on.
fn masked(words: &str, secrets: &[String]) -> String {
    let mut words = words.to_owned();
    for secret in secrets {
        let ends = secret.char_indices().map(|(at, _)| &secret[at..]).take_while(|end| end.chars().count() >= END_MIN);
        // The longest that is there.
        if let Some(end) = ends.into_iter().find(|end| words.contains(end)) {
            words = words.replace(end, MASK);
        }
    }
    words
}

/// A line of librdkafka's log.
pub fn log(level: RDKafkaLogLevel, facility: &str, words: &str) {
    let words = said(words);
    match level {
        // `kafka.properties` go to consumers and producers alike: that some don't concern one of them is meant.
        _ if facility == "CONFWARN" => tracing::debug!(target: "librdkafka", "{words}"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{words}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{words}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{words}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{words}"),
    }
}

/// An error of a whole client. It reconnects by itself.
pub fn error(error: &KafkaError, reason: &str) {
    let reason = said(reason);
    match error.rdkafka_error_code() {
        // Asked for by who reads a topic to its end.
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(RDKafkaErrorCode::Fatal) => tracing::error!(target: "librdkafka", %error, reason, "kafka"),
        _ => tracing::warn!(target: "librdkafka", %error, reason, "kafka"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_quotes_of_a_secret_is_masked() {
        let secrets = ["principal=me scope=hunter2".to_owned(), "üter".to_owned(), "abc".to_owned()];
        assert_eq!(masked("can't read: principal=me scope=hunter2", &secrets), "can't read: ••••••");
        assert_eq!(masked("beginning at: scope=hunter2, üter", &secrets), "beginning at:••••••, ••••••");
        assert_eq!(masked("abc is too short", &secrets), "abc is too short");
    }
}
