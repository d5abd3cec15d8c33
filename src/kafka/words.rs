//! What librdkafka says, passed on at the level that it deserves.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// The context of clients that need nothing else.
#[derive(Debug, Default, Clone, Copy)]
pub struct Words;

impl ClientContext for Words {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self::error(&error, reason);
    }
}

impl ConsumerContext for Words {}

/// A line of librdkafka's log.
pub fn log(level: RDKafkaLogLevel, facility: &str, words: &str) {
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
    match error.rdkafka_error_code() {
        // Asked for by who reads a topic to its end.
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(RDKafkaErrorCode::Fatal) => tracing::error!(target: "librdkafka", %error, reason, "kafka"),
        _ => tracing::warn!(target: "librdkafka", %error, reason, "kafka"),
    }
}
