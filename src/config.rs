//! The settings. `config/default.toml`, which is built in, documents each key and has its default; `check.rs` has the
//! bounds.

#![allow(missing_docs, reason = "config/default.toml describes each key, because users of the program look there")]

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

use crate::address::{Nat64Prefix, PortRange};
use crate::secret::Secret;

pub use admin::{ADMIN, Admin, Role, Token};
pub use load::{DEFAULT, ENV_PREFIX, variable};
pub use masked::{is_harmless, mask_secrets, masked_brokers, masked_url};
pub use secrets::Secrets;
pub use traces::Traces;

mod admin;
mod advice;
mod bounds;
mod check;
mod load;
mod masked;
pub(crate) mod proxy;
pub mod redis_servers;
mod redis_tls;
mod secrets;
pub mod tls_files;
mod traces;

/// The whole configuration. Serialized, it is what may be shown: its secrets are masked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub kafka: Kafka,
    pub events: Events,
    pub topics: Topics,
    pub redis: Redis,
    pub secrets: Secrets,
    pub traces: Traces,
    pub admin: Admin,
    pub worker: Worker,
    pub webhooks: Webhooks,
    pub delivery: DeliverySettings,
    pub log: Log,
}

/// `[kafka]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    #[serde(serialize_with = "masked::brokers")]
    pub brokers: String,
    pub topic: String,
    pub group: String,
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    pub open_offsets_max: usize,
    #[serde(with = "humantime_serde")]
    pub stall_after: Duration,
    pub offsets_lost: OffsetsLost,
    #[serde(deserialize_with = "properties", serialize_with = "masked::properties")]
    pub properties: BTreeMap<String, Secret>,
}

/// `kafka.offsets_lost`: where a consumer group that has lost its offsets begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OffsetsLost {
    /// Begin at the oldest record.
    Earliest,
    /// Begin with the records that are written from now on.
    Latest,
    /// Refuse to start the worker.
    Refuse,
}

/// `[events]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    pub bytes_max: usize,
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
    #[serde(serialize_with = "masked::url")]
    pub url: Secret,
    pub prefix: String,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    pub batch_bytes_max: usize,
    pub ca_file: String,
    pub client_certificate_file: String,
    pub client_key_file: String,
    pub sentinels: Vec<String>,
    pub sentinel_username: String,
    #[serde(serialize_with = "masked::secret")]
    pub sentinel_password: Secret,
    pub cluster_nodes: Vec<String>,
}

/// `[worker]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    pub in_flight_max: usize,
    pub retry_share: usize,
    pub wide_share: usize,
    pub slow_share: usize,
    pub waiting_bytes_max: usize,
    pub large_bytes_max: usize,
    pub parked_bytes_max: usize,
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub stuck_after: Duration,
}

/// `[webhooks]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    #[serde(with = "humantime_serde")]
    pub staleness_max: Duration,
    #[serde(with = "humantime_serde")]
    pub disable_after: Duration,
    #[serde(with = "humantime_serde")]
    pub failing_after: Duration,
    #[serde(with = "humantime_serde")]
    pub notice_interval: Duration,
    pub public_url: String,
}

/// `delivery.ordering`: the order that first attempts keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordering {
    /// First attempts of one task to one webhook keep their order.
    Task,
    /// First attempts keep no order.
    None,
}

/// `[delivery]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverySettings {
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub resolve_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub resolve_cache_max: Duration,
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub silence_max: Duration,
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
    pub response_headers_max: usize,
    pub response_body_max: usize,
    pub payload_max: usize,
    pub allow_http: bool,
    pub allow_ports: Vec<PortRange>,
    #[serde(deserialize_with = "networks")]
    pub allow_networks: Vec<IpNet>,
    #[serde(deserialize_with = "networks")]
    pub deny_networks: Vec<IpNet>,
    pub nat64_prefixes: Vec<Nat64Prefix>,
    #[serde(serialize_with = "masked::url")]
    pub proxy: Secret,
    pub ca_file: String,
    pub client_certificate_file: String,
    pub client_key_file: String,
    pub test_in_flight_max: usize,
    pub tests_per_minute: u32,
    pub tests_per_minute_to_host: u32,
    pub retry: Retry,
    pub breaker: Breaker,
}

impl DeliverySettings {
    /// The longest time for which an endpoint backs off: an open circuit or a `Retry-After`, whichever may last longer.
    #[must_use]
    pub fn back_off_max(&self) -> Duration {
        self.breaker.open_max.max(self.retry_after_max)
    }
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

/// A configuration that can't be used. The text names the key, its value and what is allowed. The exit code is 78.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// The value of a property. librdkafka takes only strings, but in a file a number or a boolean needs no quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Property {
    Text(String),
    Boolean(bool),
    Number(i64),
}

impl From<Property> for Secret {
    fn from(property: Property) -> Self {
        match property {
            Property::Text(text) => text.into(),
            Property::Boolean(value) => value.to_string().into(),
            Property::Number(value) => value.to_string().into(),
        }
    }
}

/// Reads `kafka.properties`. librdkafka's property names have dots, which environment variables can't have, so `_`
/// becomes a dot.
fn properties<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    let given = BTreeMap::<String, Property>::deserialize(deserializer)?;
    Ok(given.into_iter().map(|(key, value)| (key.replace('_', "."), value.into())).collect())
}

/// Reads a list of networks. An error of ipnet would name neither the value nor what is allowed.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |text: String| {
        let expected = "a network such as \"10.0.0.0/8\" or \"fd00::/8\"";
        text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(read).collect()
}
