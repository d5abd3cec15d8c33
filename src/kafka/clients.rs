//! Client configurations of consumers and producers. `kafka.properties` overrides the properties that are set here.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::logging;
use crate::config::{BadConfig, Config, is_harmless, mask_secrets};
use crate::secret::{MASK, Secret};

/// The read-ahead of a consumer, in KiB. It is small because pausing a partition drops what was read ahead of it, which
/// is fetched again later.
const READ_AHEAD_KIB: &str = "8192";
/// The read-ahead of a partition, in records.
const READ_AHEAD_RECORDS: &str = "2000";
/// A member that sends no heartbeat for this long is removed from its group.
const SESSION_TIMEOUT_MS: &str = "20000";

/// New topics and partitions are noticed within this time. librdkafka's default takes minutes.
const METADATA_REFRESH_MS: &str = "10000";

/// A request that has no answer after this time fails, and its connection is made anew. librdkafka's default is a minute,
/// for which a connection that died without FIN would hold up commits and drains.
const SOCKET_TIMEOUT_MS: &str = "15000";

fn client(config: &Config, properties: &[(&str, &str)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Warning);
    client.set("bootstrap.servers", &config.kafka.brokers);
    client.set("client.id", "optio-webhooks");
    client.set("reconnect.backoff.max.ms", "2000");
    client.set("topic.metadata.refresh.interval.ms", METADATA_REFRESH_MS);
    client.set("socket.timeout.ms", SOCKET_TIMEOUT_MS);
    for (key, value) in properties {
        client.set(*key, *value);
    }
    for (key, value) in &config.kafka.properties {
        client.set(key, value.expose());
    }
    client
}

/// Returns the configuration of a consumer in `group`.
#[must_use]
pub fn consumer(config: &Config, group: &str) -> ClientConfig {
    let mut properties = vec![
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        // A group that is new or has lost its offsets begins at the oldest record, so that nothing is skipped.
        ("auto.offset.reset", "earliest"),
        ("queued.max.messages.kbytes", READ_AHEAD_KIB),
        ("queued.min.messages", READ_AHEAD_RECORDS),
        // The bound of one partition's data in one fetch response, before decompression. The decompressed data may
        // exceed the read-ahead above. A single larger record is still returned (KIP-74).
        ("fetch.message.max.bytes", "131072"),
        ("fetch.max.bytes", "8388608"),
        ("fetch.wait.max.ms", "100"),
        // The pause of fetching after the read-ahead was full. The default of one second would limit the throughput.
        ("fetch.queue.backoff.ms", "20"),
    ];
    // The new group protocol (KIP-848) refuses these two properties of the classic one.
    if config.kafka.properties.get("group.protocol").is_none_or(|protocol| protocol.expose() != "consumer") {
        properties.push(("partition.assignment.strategy", "cooperative-sticky"));
        properties.push(("session.timeout.ms", SESSION_TIMEOUT_MS));
    }
    let mut client = client(config, &properties);
    client.set("group.id", group);
    client
}

/// Returns how long the process may stand still before the group may have given its partitions to others. This is the
/// session timeout minus the heartbeat interval, because the last heartbeat may be that old.
#[must_use]
pub fn standstill_max(config: &Config) -> Duration {
    let property = |key: &str, default: &str| {
        let value = config.kafka.properties.get(key).map_or(default, Secret::expose);
        Duration::from_millis(value.parse().unwrap_or(0))
    };
    let is_new_protocol =
        config.kafka.properties.get("group.protocol").is_some_and(|protocol| protocol.expose() == "consumer");
    // With the new protocol the broker sets the session timeout. 45 s is the broker's default (KIP-848).
    let session = property("session.timeout.ms", if is_new_protocol { "45000" } else { SESSION_TIMEOUT_MS });
    session.saturating_sub(property("heartbeat.interval.ms", "3000")).max(session / 2)
}

/// Returns the producer's configuration. A hand-off is retried until all replicas acknowledge it, and is written once.
#[must_use]
pub fn producer(config: &Config) -> ClientConfig {
    client(
        config,
        &[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            // No timeout: the offset of a delivery can't be committed before its hand-off succeeds.
            ("message.timeout.ms", "0"),
            // Retries wait for seconds anyway, and a short delay makes fewer, larger requests.
            ("linger.ms", "10"),
            // The limit is the topic's `max.message.bytes`, so the client's own limit is out of the way.
            ("message.max.bytes", "104857600"),
            ("compression.type", "lz4"),
        ],
    )
}

/// Checks that librdkafka accepts each property of `kafka.properties`. Also masks values that may be secret in all
/// later lines of librdkafka's log.
///
/// # Errors
/// Names the first refused property and librdkafka's reason. Shows the value only if it is known to be harmless.
pub fn check_properties(config: &Config) -> Result<(), BadConfig> {
    let secrets = config.kafka.properties.iter().filter(|(key, _)| !is_harmless(key)).map(|(_, value)| value.clone());
    logging::set_secrets(secrets.collect());
    for (key, value) in &config.kafka.properties {
        let mut probe = ClientConfig::new();
        probe.set(key, value.expose());
        if let Err(error) = probe.create_native_config() {
            let (description, allowed) = (explained(&error, config), "use the properties and values of librdkafka");
            let shown = if is_harmless(key) { format!("{:?}", value.expose()) } else { MASK.to_owned() };
            return Err(BadConfig(format!("kafka.properties.{key:?} = {shown}: {description}; {allowed}")));
        }
    }
    Ok(())
}

/// Returns librdkafka's reason for refusing a client configuration, without property values that may be secret.
#[must_use]
pub fn explained(error: &KafkaError, config: &Config) -> String {
    let reason = match error {
        KafkaError::ClientConfig(_, description, _, _) => description.clone(),
        error => error.to_string(),
    };
    let secrets = config.kafka.properties.iter().filter(|(key, _)| !is_harmless(key)).map(|(_, value)| value.expose());
    mask_secrets(&reason, &secrets.collect::<Vec<_>>())
}
