//! Consumers and producers as the settings ask for; `kafka.properties` has the last word.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::logging;
use crate::config::{BadConfig, Config, MASK, is_harmless, without};

/// Records that librdkafka reads ahead per consumer; small, since a pause drops and fetches them again.
const READ_AHEAD_KIB: &str = "8192";
const READ_AHEAD_RECORDS: &str = "2000";
/// A member that says nothing for so long is thrown out of its group.
const SESSION_TIMEOUT_MS: &str = "20000";

/// How soon new topics and partitions are noticed.
const METADATA_REFRESH_MS: &str = "10000";

fn client(config: &Config, ours: &[(&str, &str)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Warning);
    client.set("bootstrap.servers", &config.kafka.brokers);
    client.set("client.id", "optio-webhooks");
    client.set("reconnect.backoff.max.ms", "2000");
    // Topics and partitions that are made while the process runs are noticed within this; by default it takes minutes.
    client.set("topic.metadata.refresh.interval.ms", METADATA_REFRESH_MS);
    for (key, value) in ours {
        client.set(*key, *value);
    }
    for (key, value) in &config.kafka.properties {
        client.set(key, value);
    }
    client
}

/// A consumer's configuration for `group`.
#[must_use]
pub fn consumer(config: &Config, group: &str) -> ClientConfig {
    let mut ours = vec![
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        // A group that is new, or whose offsets were lost, begins at the oldest record: nothing is skipped.
        ("auto.offset.reset", "earliest"),
        ("queued.max.messages.kbytes", READ_AHEAD_KIB),
        ("queued.min.messages", READ_AHEAD_RECORDS),
        // Per partition and answer, as compressed: what it unpacks to may overshoot the bound above. A record that
        // is larger comes all the same, alone (KIP-74).
        ("fetch.message.max.bytes", "131072"),
        ("fetch.max.bytes", "8388608"),
        ("fetch.wait.max.ms", "100"),
        // How long a partition isn't fetched once the read-ahead is full: its default of a second would be the pace.
        ("fetch.queue.backoff.ms", "20"),
    ];
    // The new protocol refuses the classic one's properties (KIP-848).
    if config.kafka.properties.get("group.protocol").is_none_or(|protocol| protocol != "consumer") {
        ours.push(("partition.assignment.strategy", "cooperative-sticky"));
        ours.push(("session.timeout.ms", SESSION_TIMEOUT_MS));
    }
    let mut client = client(config, &ours);
    client.set("group.id", group);
    client
}

/// How long the process may stand still before its group has given its partitions to others: the session's timeout, less
/// the time since the last heartbeat.
#[must_use]
pub fn standstill_max(config: &Config) -> Duration {
    let property = |key: &str, default: &str| {
        let value = config.kafka.properties.get(key).map_or(default, String::as_str);
        Duration::from_millis(value.parse().unwrap_or(0))
    };
    let is_new_protocol = config.kafka.properties.get("group.protocol").is_some_and(|protocol| protocol == "consumer");
    // With the new protocol the broker decides; this is its default (KIP-848).
    let session = property("session.timeout.ms", if is_new_protocol { "45000" } else { SESSION_TIMEOUT_MS });
    session.saturating_sub(property("heartbeat.interval.ms", "3000")).max(session / 2)
}

/// The producer's configuration: every hand-off is acknowledged by all replicas, tried until it is, and written once.
#[must_use]
pub fn producer(config: &Config) -> ClientConfig {
    client(
        config,
        &[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            // Without an end: a hand-off holds its offset until it is made.
            ("message.timeout.ms", "0"),
            // A retry waits for seconds at least: a moment more, for fewer and fuller requests.
            ("linger.ms", "10"),
            // What a topic allows is the bound, not this.
            ("message.max.bytes", "104857600"),
            ("compression.type", "lz4"),
        ],
    )
}

/// Names a property that librdkafka refuses, and sees to it that no value that may be secret comes into the log.
///
/// # Errors
/// The property's key, librdkafka's word on it, and its value where that is known to be harmless.
pub fn check_properties(config: &Config) -> Result<(), BadConfig> {
    let secrets = config.kafka.properties.iter().filter(|(key, _)| !is_harmless(key)).map(|(_, value)| value.clone());
    logging::keep_secret(secrets.collect());
    for (key, value) in &config.kafka.properties {
        let mut probe = ClientConfig::new();
        probe.set(key, value);
        if let Err(error) = probe.create_native_config() {
            let (description, allowed) = (explained(&error, config), "allowed are librdkafka's properties and values");
            let shown = if is_harmless(key) { format!("{value:?}") } else { MASK.to_owned() };
            return Err(BadConfig(format!("kafka.properties.{key:?} = {shown}: {description}; {allowed}")));
        }
    }
    Ok(())
}

/// What librdkafka says of a client that can't be made, without the values of properties that may be secret.
#[must_use]
pub fn explained(error: &KafkaError, config: &Config) -> String {
    let words = match error {
        KafkaError::ClientConfig(_, description, _, _) => description.clone(),
        error => error.to_string(),
    };
    let secrets = config.kafka.properties.iter().filter(|(key, _)| !is_harmless(key)).map(|(_, value)| value.as_str());
    without(&words, &secrets.collect::<Vec<_>>())
}
