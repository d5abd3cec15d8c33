//! Every setting: its unit, its bounds. Defaults stand in `config/default.toml`, which is built in.

#![allow(missing_docs, reason = "each key is described in config/default.toml, where its users look")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

/// The defaults, as shipped.
pub const DEFAULT: &str = include_str!("../config/default.toml");
/// Environment variables that override settings begin with this.
pub const ENV_PREFIX: &str = "OPTIO_WEBHOOKS__";

/// The environment variable that sets `key` (`section.key`).
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// The whole configuration in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub kafka: Kafka,
    pub topics: Topics,
    pub redis: Redis,
    pub admin: Admin,
    pub worker: Worker,
    pub webhooks: Webhooks,
    pub delivery: Delivery,
    pub log: Log,
}

/// `[kafka]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub brokers: String,
    #[serde(deserialize_with = "text")]
    pub topic: String,
    #[serde(deserialize_with = "text")]
    pub group: String,
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    pub open_offsets_max: usize,
    #[serde(deserialize_with = "properties")]
    pub properties: BTreeMap<String, String>,
}

/// `[topics]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    pub create: bool,
    pub partitions: i32,
    pub replication_factor: i32,
    #[serde(with = "humantime_serde")]
    pub retry_retention_margin: Duration,
    #[serde(with = "humantime_serde")]
    pub dead_letter_retention: Duration,
}

/// `[redis]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: String,
    #[serde(deserialize_with = "text")]
    pub prefix: String,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// `[admin]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub listen: SocketAddr,
    #[serde(deserialize_with = "text")]
    pub token: String,
    #[serde(with = "humantime_serde")]
    pub session_max: Duration,
    pub body_max: usize,
}

/// `[worker]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    pub in_flight_max: usize,
    pub retry_share: usize,
    pub wide_share: usize,
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

/// `[webhooks]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    #[serde(with = "humantime_serde")]
    pub staleness_max: Duration,
    #[serde(with = "humantime_serde")]
    pub disable_after: Duration,
}

/// `delivery.ordering`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordering {
    /// First attempts of one task to one webhook keep their order.
    Task,
    /// They needn't.
    None,
}

/// `[delivery]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    pub attempts_max: u32,
    #[serde(with = "humantime_serde")]
    pub age_max: Duration,
    pub ordering: Ordering,
    #[serde(with = "humantime_serde")]
    pub retry_after_max: Duration,
    pub endpoint_in_flight_max: usize,
    pub endpoint_queue_max: usize,
    #[serde(with = "humantime_serde")]
    pub endpoint_wait_max: Duration,
    pub response_body_max: usize,
    pub payload_max: usize,
    pub allow_http: bool,
    pub allow_networks: Vec<IpNet>,
    pub proxy: String,
    pub retry: Retry,
    pub breaker: Breaker,
}

/// `[delivery.retry]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    #[serde(with = "humantime_serde")]
    pub initial: Duration,
    pub multiplier: f64,
    #[serde(with = "humantime_serde")]
    pub max: Duration,
    pub jitter: f64,
    pub window_max: usize,
}

/// `[delivery.breaker]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    pub failure_ratio: f64,
    pub attempts_min: u32,
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    #[serde(with = "humantime_serde")]
    pub open_initial: Duration,
    #[serde(with = "humantime_serde")]
    pub open_max: Duration,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub entries_max: usize,
    #[serde(with = "humantime_serde")]
    pub age_max: Duration,
}

/// A configuration that can't be used: which key, what it holds, what is allowed. Exit code 78.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

impl Config {
    /// Defaults, then `file`, then the environment; checked.
    ///
    /// # Errors
    /// [`BadConfig`] names the first key that can't be read, or all keys that are out of bounds.
    pub fn load(file: Option<&Path>) -> Result<Self, BadConfig> {
        let mut figment = Figment::from(Toml::string(DEFAULT));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(BadConfig(format!(
                    "--config {}: there is no such file; a TOML file is expected",
                    path.display()
                )));
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        let config: Self = figment
            .merge(Env::prefixed(ENV_PREFIX).split("__"))
            .extract()
            .map_err(|error| BadConfig(unreadable(error)))?;
        config.check()?;
        Ok(config)
    }

    /// The defaults alone.
    #[must_use]
    pub fn built_in() -> Self {
        Figment::from(Toml::string(DEFAULT)).extract().expect("the built-in defaults are read by a test")
    }

    /// The defaults with other values for some keys (`section.key`), written as in environment variables.
    ///
    /// # Errors
    /// [`BadConfig`] as [`Config::load`].
    pub fn with<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadConfig> {
        let defaults = Figment::from(Toml::string(DEFAULT));
        let figment = values.into_iter().fold(defaults, |figment, (key, value)| {
            figment.merge((key, value.parse::<figment::value::Value>().unwrap_or_else(|never| match never {})))
        });
        let config: Self = figment.extract().map_err(|error| BadConfig(unreadable(error)))?;
        config.check()?;
        Ok(config)
    }

    /// Holds every bound that a type can't.
    ///
    /// # Errors
    /// One line for each key out of bounds.
    pub fn check(&self) -> Result<(), BadConfig> {
        let second = Duration::from_secs(1);
        let millisecond = Duration::from_millis(1);
        let mut bad = Vec::new();
        let mut require = |holds: bool, key: &str, value: String, allowed: &str| {
            if !holds {
                bad.push(format!("{key} = {value}: allowed is {allowed}"));
            }
        };
        let named = |name: &str| {
            !name.is_empty()
                && name.len() <= 200
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let time = |d: Duration| humantime::format_duration(d).to_string();
        let kafka = &self.kafka;
        require(
            !kafka.brokers.trim().is_empty(),
            "kafka.brokers",
            format!("{:?}", kafka.brokers),
            "host:port, several with commas",
        );
        require(named(&kafka.topic), "kafka.topic", format!("{:?}", kafka.topic), "1 to 200 of a-z A-Z 0-9 . _ -");
        require(named(&kafka.group), "kafka.group", format!("{:?}", kafka.group), "1 to 200 of a-z A-Z 0-9 . _ -");
        require(
            (millisecond * 10..=second * 60).contains(&kafka.commit_interval),
            "kafka.commit_interval",
            time(kafka.commit_interval),
            "10ms to 60s",
        );
        require(
            (100..=10_000_000).contains(&kafka.open_offsets_max),
            "kafka.open_offsets_max",
            kafka.open_offsets_max.to_string(),
            "100 to 10000000",
        );
        require(
            (1..=10_000).contains(&self.topics.partitions),
            "topics.partitions",
            self.topics.partitions.to_string(),
            "1 to 10000",
        );
        require(
            self.topics.replication_factor == -1 || self.topics.replication_factor >= 1,
            "topics.replication_factor",
            self.topics.replication_factor.to_string(),
            "-1 (the broker's default) or 1 and more",
        );
        require(
            redis_url(&self.redis.url),
            "redis.url",
            format!("{:?}", masked_url(&self.redis.url)),
            "redis://[user:password@]host:port/ or rediss://…",
        );
        require(
            (millisecond * 10..=second * 60).contains(&self.redis.timeout),
            "redis.timeout",
            time(self.redis.timeout),
            "10ms to 60s",
        );
        require(
            (second * 60..=second * 86_400 * 30).contains(&self.admin.session_max),
            "admin.session_max",
            time(self.admin.session_max),
            "1m to 30days",
        );
        require(
            (4_096..=16 << 20).contains(&self.admin.body_max),
            "admin.body_max",
            self.admin.body_max.to_string(),
            "4096 to 16777216 (bytes)",
        );
        let worker = &self.worker;
        require(
            (2..=100_000).contains(&worker.in_flight_max),
            "worker.in_flight_max",
            worker.in_flight_max.to_string(),
            "2 to 100000",
        );
        require(
            (1..=90).contains(&worker.retry_share),
            "worker.retry_share",
            worker.retry_share.to_string(),
            "1 to 90 (percent)",
        );
        require(
            (1..=90).contains(&worker.wide_share),
            "worker.wide_share",
            worker.wide_share.to_string(),
            "1 to 90 (percent)",
        );
        require(
            (second..=second * 3600).contains(&worker.drain_timeout),
            "worker.drain_timeout",
            time(worker.drain_timeout),
            "1s to 1h",
        );
        require(
            (millisecond * 100..=second * 60).contains(&self.webhooks.staleness_max),
            "webhooks.staleness_max",
            time(self.webhooks.staleness_max),
            "100ms to 60s",
        );
        require(
            (second..=second * 86_400 * 365).contains(&self.webhooks.disable_after),
            "webhooks.disable_after",
            time(self.webhooks.disable_after),
            "1s to 365days",
        );
        let delivery = &self.delivery;
        require(
            (millisecond * 10..=second * 300).contains(&delivery.timeout),
            "delivery.timeout",
            time(delivery.timeout),
            "10ms to 5m",
        );
        require(
            (1..=50).contains(&delivery.attempts_max),
            "delivery.attempts_max",
            delivery.attempts_max.to_string(),
            "1 to 50",
        );
        require(
            (second..=second * 86_400 * 30).contains(&delivery.age_max),
            "delivery.age_max",
            time(delivery.age_max),
            "1s to 30days",
        );
        require(
            delivery.retry_after_max <= second * 86_400 * 7,
            "delivery.retry_after_max",
            time(delivery.retry_after_max),
            "0s to 7days",
        );
        require(
            (1..=10_000).contains(&delivery.endpoint_in_flight_max),
            "delivery.endpoint_in_flight_max",
            delivery.endpoint_in_flight_max.to_string(),
            "1 to 10000",
        );
        require(
            (1..=1_000_000).contains(&delivery.endpoint_queue_max),
            "delivery.endpoint_queue_max",
            delivery.endpoint_queue_max.to_string(),
            "1 to 1000000",
        );
        require(
            (millisecond * 10..=second * 60).contains(&delivery.endpoint_wait_max),
            "delivery.endpoint_wait_max",
            time(delivery.endpoint_wait_max),
            "10ms to 60s",
        );
        require(
            (2_000..=16 << 20).contains(&delivery.response_body_max),
            "delivery.response_body_max",
            delivery.response_body_max.to_string(),
            "2000 to 16777216 (bytes)",
        );
        require(
            (1_024..=900_000).contains(&delivery.payload_max),
            "delivery.payload_max",
            delivery.payload_max.to_string(),
            "1024 to 900000 (bytes)",
        );
        require(
            delivery.proxy.is_empty() || url::Url::parse(&delivery.proxy).is_ok(),
            "delivery.proxy",
            format!("{:?}", masked_url(&delivery.proxy)),
            "a URL, or empty for none",
        );
        let breaker = &delivery.breaker;
        require(
            breaker.failure_ratio > 0.0 && breaker.failure_ratio <= 1.0,
            "delivery.breaker.failure_ratio",
            breaker.failure_ratio.to_string(),
            "more than 0, up to 1",
        );
        require(
            (1..=100_000).contains(&breaker.attempts_min),
            "delivery.breaker.attempts_min",
            breaker.attempts_min.to_string(),
            "1 to 100000",
        );
        require(
            (second..=second * 3_600).contains(&breaker.window),
            "delivery.breaker.window",
            time(breaker.window),
            "1s to 1h",
        );
        require(
            (millisecond * 10..=second * 86_400).contains(&breaker.open_initial),
            "delivery.breaker.open_initial",
            time(breaker.open_initial),
            "10ms to 24h",
        );
        require(
            breaker.open_max >= breaker.open_initial && breaker.open_max <= second * 86_400,
            "delivery.breaker.open_max",
            time(breaker.open_max),
            "delivery.breaker.open_initial to 24h",
        );
        let retry = &delivery.retry;
        require(
            (millisecond..=second * 86_400).contains(&retry.initial),
            "delivery.retry.initial",
            time(retry.initial),
            "1ms to 24h",
        );
        require(
            (1.0..=100.0).contains(&retry.multiplier),
            "delivery.retry.multiplier",
            retry.multiplier.to_string(),
            "1 to 100",
        );
        require(
            retry.max >= retry.initial && retry.max <= second * 86_400 * 7,
            "delivery.retry.max",
            time(retry.max),
            "delivery.retry.initial to 7days",
        );
        require((0.0..=1.0).contains(&retry.jitter), "delivery.retry.jitter", retry.jitter.to_string(), "0 to 1");
        require(
            (10..=1_000_000).contains(&retry.window_max),
            "delivery.retry.window_max",
            retry.window_max.to_string(),
            "10 to 1000000",
        );
        require(
            (1..=1_000_000).contains(&self.log.entries_max),
            "log.entries_max",
            self.log.entries_max.to_string(),
            "1 to 1000000",
        );
        require(
            (second..=second * 86_400 * 365).contains(&self.log.age_max),
            "log.age_max",
            time(self.log.age_max),
            "1s to 365days",
        );
        if bad.is_empty() { Ok(()) } else { Err(BadConfig(bad.join("\n"))) }
    }

    /// The same with secrets masked, for showing.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut shown = self.clone();
        if !shown.admin.token.is_empty() {
            shown.admin.token = MASK.to_owned();
        }
        shown.redis.url = masked_url(&shown.redis.url);
        shown.delivery.proxy = masked_url(&shown.delivery.proxy);
        for (key, value) in &mut shown.kafka.properties {
            if ["password", "secret", ".pem", "sasl.jaas"].iter().any(|word| key.contains(word)) {
                MASK.clone_into(value);
            }
        }
        shown
    }
}

/// Each key that can't be read: what it holds, what is expected, where it comes from.
fn unreadable(errors: figment::Error) -> String {
    let line = |error: figment::Error| {
        let key = error.path.join(".").to_lowercase();
        let source = error.metadata.as_ref().map_or("", |metadata| &metadata.name);
        format!("{key}: {} (in {source}); `optio-webhooks config show --default` shows every key", error.kind)
    };
    errors.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Stands for every secret that is shown.
pub const MASK: &str = "••••••";

fn redis_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| ["redis", "rediss", "unix", "redis+unix"].contains(&url.scheme()))
}

fn masked_url(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return url.to_owned() };
    if parsed.password().is_none() {
        return url.to_owned();
    }
    match parsed.set_password(Some("xxxxxx")) {
        Ok(()) => parsed.to_string(),
        Err(()) => MASK.to_owned(),
    }
}

/// A scalar written as a number or a boolean is meant as its text: environment variables can't quote.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Bool(bool),
    Integer(i64),
    Float(f64),
}

impl From<Scalar> for String {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Text(text) => text,
            Scalar::Bool(value) => value.to_string(),
            Scalar::Integer(value) => value.to_string(),
            Scalar::Float(value) => value.to_string(),
        }
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Scalar::deserialize(deserializer).map(String::from)
}

/// librdkafka's names have dots; environment variables can't, so `_` stands for one.
fn properties<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let given = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
    Ok(given.into_iter().map(|(key, value)| (key.replace('_', "."), value.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_defaults_are_within_their_bounds() {
        Config::built_in().check().unwrap();
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_key_value_and_what_is_allowed() {
        let mut config = Config::built_in();
        config.delivery.attempts_max = 0;
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "delivery.attempts_max = 0: allowed is 1 to 50");
    }

    #[test]
    fn secrets_are_masked_when_shown() {
        let mut config = Config::built_in();
        config.admin.token = "hunter2".into();
        config.redis.url = "redis://me:hunter2@redis:6379/".into();
        config.kafka.properties.insert("sasl.password".into(), "hunter2".into());
        assert!(!toml::to_string(&config.masked()).unwrap().contains("hunter2"));
    }
}
