//! Masks secrets in settings that are shown or logged. Values are masked unless they are known to be harmless.

use std::collections::BTreeMap;

use serde::Serializer;

use crate::secret::{MASK, Secret};

/// The librdkafka properties whose values are shown. All others are masked, including misspelled ones, because a name
/// doesn't show whether its value is secret.
const HARMLESS: [&str; 76] = [
    "acks",
    "allow.auto.create.topics",
    "api.version.fallback.ms",
    "api.version.request",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "batch.num.messages",
    "batch.size",
    "bootstrap.servers",
    "broker.address.family",
    "broker.address.ttl",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "coordinator.query.interval.ms",
    "debug",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "linger.ms",
    "log.connection.close",
    "log.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "metadata.recovery.strategy",
    "partition.assignment.strategy",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "security.protocol",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "topic.metadata.refresh.interval.ms",
];

/// Whether the value of a librdkafka property may be shown.
#[must_use]
pub fn is_harmless(property: &str) -> bool {
    HARMLESS.contains(&property)
}

/// Writes the mask instead of a secret.
pub fn secret<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.shown())
}

/// Writes a URL without its credentials.
pub fn url<S: Serializer>(url: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&masked_url(url.expose()))
}

/// Writes the addresses of brokers without credentials.
pub fn brokers<S: Serializer>(brokers: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&masked_brokers(brokers))
}

/// Writes librdkafka properties. Only the values of harmless ones are shown.
pub fn properties<S: Serializer>(properties: &BTreeMap<String, Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(properties.iter().map(|(key, value)| (key, shown_property(key, value))))
}

/// Returns what may be shown of a librdkafka property's value.
#[must_use]
pub fn shown_property(key: &str, value: &Secret) -> String {
    match key {
        "bootstrap.servers" => masked_brokers(value.expose()),
        key if is_harmless(key) => value.expose().to_owned(),
        _ => MASK.to_owned(),
    }
}

/// Masks everything before the last `@`. Kafka brokers have no credentials in their addresses, but somebody may have
/// written a password there by mistake.
#[must_use]
pub fn masked_brokers(brokers: &str) -> String {
    match brokers.rsplit_once('@') {
        Some((_, brokers)) => format!("{MASK}@{brokers}"),
        None => brokers.to_owned(),
    }
}

/// Masks the user name and password of a URL, and the values of its query. The text may also be a failed attempt at a
/// URL.
///
/// A password may contain `/`, `@`, `?` or `#` that should have been percent-encoded, so everything up to the last `@`
/// is masked. Without an `@`, a port that isn't a number may be a password and is masked.
#[must_use]
pub fn masked_url(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        _ if url.is_empty() => return String::new(),
        // Without a scheme, nothing says which part is harmless.
        _ => return MASK.to_owned(),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (format!("{MASK}@"), rest),
        None => (String::new(), rest),
    };
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_err() && !host.ends_with(']') => MASK,
        _ => host,
    };
    let masked_query = |query: &str| {
        let pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').map_or(MASK.to_owned(), |(name, _)| format!("{name}={MASK}")));
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    };
    format!("{scheme}://{user}{host}{path}{}", query.map(masked_query).unwrap_or_default())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character))
}

/// Whether the user name or password in a URL contains a character that must be percent-encoded. Unencoded, it ends
/// that part of the URL too early.
#[must_use]
pub fn must_be_percent_encoded(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let Some(at) = rest.rfind('@') else { return false };
    rest[..at].contains(['@', '/', '?', '#', '[', ']', '\\', ' ']) || is_badly_encoded(&rest[..at])
}

/// Whether a `%` isn't followed by two hexadecimal digits.
fn is_badly_encoded(text: &str) -> bool {
    text.split('%').skip(1).any(|after| {
        let digits = after.as_bytes().get(..2);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Masks every occurrence of the secrets in `text`.
#[must_use]
pub fn mask_secrets(text: &str, secrets: &[&str]) -> String {
    let secrets = secrets.iter().filter(|secret| !secret.is_empty());
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn secrets_are_masked_in_shown_and_debug_output() {
        let mut config = Config::built_in();
        config.admin.token = "hunter2".into();
        config.redis.url = "redis://me:hunter2@redis:6379/".into();
        config.delivery.proxy = "http://hunter2@proxy:3128".into();
        config.secrets.keys = "k1:hunter2".into();
        for property in [
            "sasl.password",
            "sasl.pasword",
            "sasl.username",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.jaas.config",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "ssl.certificate.pem",
            "ssl_key_pem",
        ] {
            config.kafka.properties.insert(property.into(), "hunter2".into());
        }
        config.kafka.properties.insert("client.id".into(), "worker-1".into());
        let shown = toml::to_string(&config).unwrap();
        assert!(!shown.contains("hunter2") && shown.contains("worker-1"), "{shown}");
        let debug = format!("{config:?}");
        assert!(!debug.contains("hunter2"), "{debug}");
    }

    #[test]
    fn a_url_is_shown_without_its_password_in_every_spelling() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/", "redis://127.0.0.1:6379/"),
            ("rediss://me:hunter2@redis:6379/0", "rediss://••••••@redis:6379/0"),
            ("redis://:p@hunter2/w#rd@redis:6379/", "redis://••••••@redis:6379/"),
            ("redis://redis:hunter2", "redis://••••••"),
            ("redis://redis/?password=hunter2&db=1", "redis://redis/?password=••••••&db=••••••"),
            ("redis+unix:///run/redis.sock?pass=hunter2", "redis+unix:///run/redis.sock?pass=••••••"),
            ("redis://redis/?hunter2", "redis://redis/?••••••"),
            ("redis://redis/#hunter2", "redis://redis/"),
            ("redis://[::1]:6379", "redis://[::1]:6379"),
            ("redis://[::1]", "redis://[::1]"),
            ("me:hunter2@redis", "••••••"),
            ("hunter2://", "hunter2://"),
            ("", ""),
        ] {
            assert_eq!(masked_url(url), shown, "{url}");
        }
    }

    #[test]
    fn a_password_that_needs_percent_encoding_is_noticed() {
        for url in ["redis://:p@ss@h/", "redis://:p/ss@h/", "redis://:p#ss@h/", "redis://:p?ss@h/", "http://u:100%@h/"]
        {
            assert!(must_be_percent_encoded(url), "{url}");
        }
        for url in ["redis://:p%40ss@h/", "redis://h/", "redis://u:p:q@h/0", "http://u:%2F@h:1/"] {
            assert!(!must_be_percent_encoded(url), "{url}");
        }
    }
}
