//! The bounds of the settings.

use std::time::Duration;

use super::masked::{masked_brokers, masked_url, must_be_percent_encoded};
use super::{BadConfig, Config};
use crate::http::tunnel::Proxy;

/// The time reserved within a drain for the hand-off after a request. A request may begin right before a rebalance or
/// SIGTERM and take all of `delivery.timeout`. Its outcome must still be recorded or handed off within
/// `worker.drain_timeout`; otherwise the next owner of the partition repeats the request.
pub const HAND_OFF_MAX: Duration = Duration::from_secs(2);

impl Config {
    /// Checks the bounds that types can't express.
    ///
    /// # Errors
    /// [`BadConfig`] has one line for each key that is out of bounds.
    pub fn check(&self) -> Result<(), BadConfig> {
        let second = Duration::from_secs(1);
        let millisecond = Duration::from_millis(1);
        let mut bad = Vec::new();
        let mut require = |is_allowed: bool, key: &str, value: String, allowed: &str| {
            if !is_allowed {
                bad.push(format!("{key} = {value}: allowed is {allowed}"));
            }
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 200
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let time = |d: Duration| humantime::format_duration(d).to_string();
        let kafka = &self.kafka;
        require(
            !kafka.brokers.trim().is_empty() && !kafka.brokers.contains('@'),
            "kafka.brokers",
            format!("{:?}", masked_brokers(&kafka.brokers)),
            "host:port, separated by commas; a user name and password belong in kafka.properties",
        );
        for key in ["bootstrap.servers", "metadata.broker.list"] {
            require(
                kafka.properties.get(key).is_none_or(|brokers| !brokers.contains('@')),
                &format!("kafka.properties.{key:?}"),
                format!("{:?}", masked_brokers(kafka.properties.get(key).map_or("", String::as_str))),
                "host:port, separated by commas; a user name and password belong in sasl.username and sasl.password",
            );
        }
        require(is_name(&kafka.topic), "kafka.topic", format!("{:?}", kafka.topic), "1 to 200 of a-z A-Z 0-9 . _ -");
        require(is_name(&kafka.group), "kafka.group", format!("{:?}", kafka.group), "1 to 200 of a-z A-Z 0-9 . _ -");
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
            (second..=second * 3_600).contains(&kafka.stall_after),
            "kafka.stall_after",
            time(kafka.stall_after),
            "1s to 1h",
        );
        require(
            self.events.bytes_max == 0 || (1_024..=100_000_000).contains(&self.events.bytes_max),
            "events.bytes_max",
            self.events.bytes_max.to_string(),
            "0 (the limit is the topic's max.message.bytes) or 1024 to 100000000 (bytes)",
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
            "-1 (the broker's default), or 1 or more",
        );
        require(
            is_redis_url(&self.redis.url),
            "redis.url",
            format!("{:?}", masked_url(&self.redis.url)),
            &format!(
                "redis://[user:password@]host:port/ or rediss://…{}",
                if must_be_percent_encoded(&self.redis.url) { PERCENT_ENCODE } else { "" }
            ),
        );
        require(
            (millisecond * 10..=second * 60).contains(&self.redis.timeout),
            "redis.timeout",
            time(self.redis.timeout),
            "10ms to 60s",
        );
        require(
            (65_536..=256 << 20).contains(&self.redis.batch_bytes_max),
            "redis.batch_bytes_max",
            self.redis.batch_bytes_max.to_string(),
            "65536 to 268435456 (bytes)",
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
            worker.retry_share.saturating_add(worker.wide_share) <= 90,
            "worker.retry_share + worker.wide_share",
            format!("{} + {}", worker.retry_share, worker.wide_share),
            "90 (percent) together at most: the rest is reserved for first attempts of all other events",
        );
        require(
            (1..=90).contains(&worker.slow_share),
            "worker.slow_share",
            worker.slow_share.to_string(),
            "1 to 90 (percent)",
        );
        for (key, bytes) in [
            ("worker.waiting_bytes_max", worker.waiting_bytes_max),
            ("worker.large_bytes_max", worker.large_bytes_max),
            ("worker.parked_bytes_max", worker.parked_bytes_max),
        ] {
            let allowed = "1048576 to 17179869184 (bytes)";
            require((1 << 20..=16 << 30).contains(&bytes), key, bytes.to_string(), allowed);
        }
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
            delivery.timeout.saturating_add(HAND_OFF_MAX) <= worker.drain_timeout,
            "delivery.timeout",
            time(delivery.timeout),
            &format!(
                "up to {}, which is worker.drain_timeout = {} minus {} for the hand-off that may follow: a drain would \
                 abandon longer requests, and they would be repeated",
                time(worker.drain_timeout.saturating_sub(HAND_OFF_MAX)),
                time(worker.drain_timeout),
                time(HAND_OFF_MAX),
            ),
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
            (millisecond * 10..=second * 60).contains(&delivery.resolve_timeout),
            "delivery.resolve_timeout",
            time(delivery.resolve_timeout),
            "10ms to 60s",
        );
        require(
            (second..=second * 3_600).contains(&delivery.resolve_cache_max),
            "delivery.resolve_cache_max",
            time(delivery.resolve_cache_max),
            "1s to 1h",
        );
        require(
            (millisecond * 10..=second * 60).contains(&delivery.connect_timeout),
            "delivery.connect_timeout",
            time(delivery.connect_timeout),
            "10ms to 60s",
        );
        require(
            delivery.idle_timeout <= second * 3_600,
            "delivery.idle_timeout",
            time(delivery.idle_timeout),
            "0s to 1h",
        );
        require(
            (millisecond * 100..=second * 60).contains(&delivery.silence_max),
            "delivery.silence_max",
            time(delivery.silence_max),
            "100ms to 60s",
        );
        require(
            (8_192..=1 << 20).contains(&delivery.response_headers_max),
            "delivery.response_headers_max",
            delivery.response_headers_max.to_string(),
            "8192 to 1048576 (bytes)",
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
            delivery.proxy.is_empty() || is_proxy_url(&delivery.proxy),
            "delivery.proxy",
            format!("{:?}", masked_url(&delivery.proxy)),
            &format!(
                "http://[user:password@]host:port or https://…, or empty for none{}",
                if must_be_percent_encoded(&delivery.proxy) { PERCENT_ENCODE } else { "" }
            ),
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
}

/// Advice for a URL whose user name or password contains characters that must be percent-encoded.
const PERCENT_ENCODE: &str =
    "; percent-encode the user name and password: / is written %2F, # is %23, ? is %3F, @ is %40, % is %25";

fn is_redis_url(url: &str) -> bool {
    let schemes = ["redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "valkey+unix"];
    !must_be_percent_encoded(url)
        && url::Url::parse(url).is_ok_and(|parsed| schemes.contains(&parsed.scheme()))
        && redis::Client::open(url).is_ok()
}

fn is_proxy_url(url: &str) -> bool {
    !must_be_percent_encoded(url) && Proxy::parse(url).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_defaults_are_within_their_bounds() {
        Config::built_in().check().unwrap();
    }

    #[test]
    fn retry_share_and_wide_share_leave_permits_to_other_first_attempts() {
        let mut config = Config::built_in();
        (config.worker.retry_share, config.worker.wide_share) = (45, 46);
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("worker.retry_share + worker.wide_share = 45 + 46: allowed is 90"), "{error}");
        config.worker.wide_share = 45;
        config.check().unwrap();
    }

    #[test]
    fn a_timeout_that_a_drain_cannot_wait_for_is_refused() {
        let mut config = Config::built_in();
        let second = Duration::from_secs(1);
        (config.delivery.timeout, config.worker.drain_timeout) = (28 * second, 30 * second);
        config.check().unwrap();
        config.delivery.timeout += Duration::from_millis(1);
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("delivery.timeout = 28s 1ms: allowed is up to 28s, which is"), "{error}");
        config.worker.drain_timeout = second;
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("worker.drain_timeout = 1s"), "{error}");
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_key_value_and_bounds() {
        let mut config = Config::built_in();
        config.delivery.attempts_max = 0;
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "delivery.attempts_max = 0: allowed is 1 to 50");
    }
}
