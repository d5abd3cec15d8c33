//! The bounds of settings: one table, by which values are checked and errors are written.

use std::time::Duration;

use super::Config;

/// A setting that must lie between two values, both of them allowed.
pub struct Bound {
    /// The key, as `config/default.toml` names it.
    pub key: &'static str,
    range: Range,
}

enum Range {
    /// A duration. The bounds are in the form in which people write them.
    Duration(fn(&Config) -> Duration, &'static str, &'static str),
    /// A whole number, with its unit; the unit is empty for a plain count.
    Whole(fn(&Config) -> i128, i128, i128, &'static str),
    /// A number.
    Number(fn(&Config) -> f64, f64, f64),
}

impl Bound {
    /// The error line for `config`; None if the value is within its bounds.
    #[must_use]
    pub fn problem(&self, config: &Config) -> Option<String> {
        let (is_within, value, allowed) = match &self.range {
            Range::Duration(of, min, max) => {
                let value = of(config);
                let range = duration(min)..=duration(max);
                (range.contains(&value), humantime::format_duration(value).to_string(), format!("{min} to {max}"))
            }
            Range::Whole(of, min, max, unit) => {
                let value = of(config);
                let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
                ((*min..=*max).contains(&value), value.to_string(), format!("{min} to {max}{unit}"))
            }
            Range::Number(of, min, max) => {
                let value = of(config);
                ((*min..=*max).contains(&value), value.to_string(), format!("{min} to {max}"))
            }
        };
        (!is_within).then(|| format!("{} = {value}: must be {allowed}", self.key))
    }
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).expect("a test reads every bound of the table")
}

const fn time(key: &'static str, of: fn(&Config) -> Duration, min: &'static str, max: &'static str) -> Bound {
    Bound { key, range: Range::Duration(of, min, max) }
}

const fn count(key: &'static str, of: fn(&Config) -> i128, min: i128, max: i128) -> Bound {
    Bound { key, range: Range::Whole(of, min, max, "") }
}

const fn bytes(key: &'static str, of: fn(&Config) -> i128, min: i128, max: i128) -> Bound {
    Bound { key, range: Range::Whole(of, min, max, "bytes") }
}

/// A list, of which every attempt may read all entries.
const fn entries(key: &'static str, of: fn(&Config) -> i128) -> Bound {
    Bound { key, range: Range::Whole(of, 0, 1_000, "entries") }
}

const fn percent(key: &'static str, of: fn(&Config) -> i128) -> Bound {
    Bound { key, range: Range::Whole(of, 1, 90, "percent") }
}

const fn number(key: &'static str, of: fn(&Config) -> f64, min: f64, max: f64) -> Bound {
    Bound { key, range: Range::Number(of, min, max) }
}

/// Every setting with plain bounds. Rules about the relation of two settings are in `check.rs`.
pub const BOUNDS: &[Bound] = &[
    time("kafka.commit_interval", |c| c.kafka.commit_interval, "10ms", "60s"),
    count("kafka.open_offsets_max", |c| c.kafka.open_offsets_max as i128, 100, 10_000_000),
    time("kafka.stall_after", |c| c.kafka.stall_after, "1s", "1h"),
    count("topics.partitions", |c| c.topics.partitions.into(), 1, 10_000),
    time("topics.retry_retention_margin", |c| c.topics.retry_retention_margin, "0s", "365days"),
    time("topics.dead_letter_retention", |c| c.topics.dead_letter_retention, "1s", "3650days"),
    time("redis.timeout", |c| c.redis.timeout, "10ms", "60s"),
    bytes("redis.batch_bytes_max", |c| c.redis.batch_bytes_max as i128, 65_536, 256 << 20),
    time("admin.session_max", |c| c.admin.session_max, "1m", "30days"),
    time("admin.stream_max", |c| c.admin.stream_max, "1s", "24h"),
    count("admin.connections_max", |c| c.admin.connections_max as i128, 16, 100_000),
    time("admin.header_timeout", |c| c.admin.header_timeout, "100ms", "5m"),
    time("admin.body_timeout", |c| c.admin.body_timeout, "100ms", "10m"),
    time("admin.idle_timeout", |c| c.admin.idle_timeout, "100ms", "1h"),
    count("admin.audit_entries_max", |c| c.admin.audit_entries_max as i128, 100, 10_000_000),
    bytes("admin.body_max", |c| c.admin.body_max as i128, 4_096, 16 << 20),
    count("worker.in_flight_max", |c| c.worker.in_flight_max as i128, 2, 100_000),
    percent("worker.retry_share", |c| c.worker.retry_share as i128),
    percent("worker.wide_share", |c| c.worker.wide_share as i128),
    percent("worker.slow_share", |c| c.worker.slow_share as i128),
    bytes("worker.waiting_bytes_max", |c| c.worker.waiting_bytes_max as i128, 1 << 20, 16 << 30),
    bytes("worker.large_bytes_max", |c| c.worker.large_bytes_max as i128, 1 << 20, 16 << 30),
    bytes("worker.parked_bytes_max", |c| c.worker.parked_bytes_max as i128, 1 << 20, 16 << 30),
    time("worker.drain_timeout", |c| c.worker.drain_timeout, "1s", "1h"),
    time("worker.stuck_after", |c| c.worker.stuck_after, "5s", "1h"),
    number("traces.sample_ratio", |c| c.traces.sample_ratio, 0.0, 1.0),
    count("traces.queue_max", |c| c.traces.queue_max as i128, 64, 1_000_000),
    time("traces.timeout", |c| c.traces.timeout, "100ms", "60s"),
    time("webhooks.staleness_max", |c| c.webhooks.staleness_max, "100ms", "60s"),
    time("webhooks.disable_after", |c| c.webhooks.disable_after, "1s", "365days"),
    time("webhooks.failing_after", |c| c.webhooks.failing_after, "1s", "30days"),
    time("webhooks.notice_interval", |c| c.webhooks.notice_interval, "1s", "30days"),
    time("delivery.timeout", |c| c.delivery.timeout, "10ms", "5m"),
    count("delivery.attempts_max", |c| c.delivery.attempts_max.into(), 1, 50),
    time("delivery.age_max", |c| c.delivery.age_max, "1s", "30days"),
    time("delivery.retry_after_max", |c| c.delivery.retry_after_max, "0s", "7days"),
    count("delivery.endpoint_in_flight_max", |c| c.delivery.endpoint_in_flight_max as i128, 1, 10_000),
    count("delivery.endpoint_queue_max", |c| c.delivery.endpoint_queue_max as i128, 1, 1_000_000),
    time("delivery.endpoint_wait_max", |c| c.delivery.endpoint_wait_max, "10ms", "60s"),
    time("delivery.resolve_timeout", |c| c.delivery.resolve_timeout, "10ms", "60s"),
    time("delivery.resolve_cache_max", |c| c.delivery.resolve_cache_max, "1s", "1h"),
    time("delivery.connect_timeout", |c| c.delivery.connect_timeout, "10ms", "60s"),
    time("delivery.idle_timeout", |c| c.delivery.idle_timeout, "0s", "1h"),
    time("delivery.silence_max", |c| c.delivery.silence_max, "100ms", "60s"),
    bytes("delivery.response_headers_max", |c| c.delivery.response_headers_max as i128, 8_192, 1 << 20),
    bytes("delivery.response_body_max", |c| c.delivery.response_body_max as i128, 2_000, 16 << 20),
    bytes("delivery.payload_max", |c| c.delivery.payload_max as i128, 1_024, 900_000),
    count("delivery.test_in_flight_max", |c| c.delivery.test_in_flight_max as i128, 1, 1_000),
    count("delivery.tests_per_minute", |c| c.delivery.tests_per_minute.into(), 1, 10_000),
    count("delivery.tests_per_minute_to_host", |c| c.delivery.tests_per_minute_to_host.into(), 1, 100_000),
    entries("delivery.allow_ports", |c| c.delivery.allow_ports.len() as i128),
    entries("delivery.allow_networks", |c| c.delivery.allow_networks.len() as i128),
    entries("delivery.deny_networks", |c| c.delivery.deny_networks.len() as i128),
    entries("delivery.nat64_prefixes", |c| c.delivery.nat64_prefixes.len() as i128),
    count("delivery.breaker.attempts_min", |c| c.delivery.breaker.attempts_min as i128, 1, 100_000),
    time("delivery.breaker.window", |c| c.delivery.breaker.window, "1s", "1h"),
    time("delivery.breaker.open_initial", |c| c.delivery.breaker.open_initial, "10ms", "24h"),
    time("delivery.retry.initial", |c| c.delivery.retry.initial, "1ms", "24h"),
    number("delivery.retry.multiplier", |c| c.delivery.retry.multiplier, 1.0, 100.0),
    number("delivery.retry.jitter", |c| c.delivery.retry.jitter, 0.0, 1.0),
    count("delivery.retry.window_max", |c| c.delivery.retry.window_max as i128, 10, 1_000_000),
    count("log.entries_max", |c| c.log.entries_max as i128, 1, 1_000_000),
    time("log.age_max", |c| c.log.age_max, "1s", "365days"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_can_be_read_and_its_key_is_a_setting() {
        let config = Config::built_in();
        let settings = toml::Value::try_from(&config).unwrap();
        for bound in BOUNDS {
            assert_eq!(bound.problem(&config), None, "{}", bound.key);
            let found = bound.key.split('.').try_fold(&settings, |at, part| at.get(part));
            assert!(found.is_some(), "{} is no setting", bound.key);
        }
    }

    /// Numbers and durations whose rule is in `check.rs`, because it depends on another setting or has a special value.
    const CHECKED_OTHERWISE: [&str; 5] = [
        "events.bytes_max",
        "topics.replication_factor",
        "delivery.breaker.failure_ratio",
        "delivery.breaker.open_max",
        "delivery.retry.max",
    ];

    fn numbers(at: &str, value: &toml::Value, found: &mut Vec<String>) {
        let is_number = match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    numbers(&[at, key].join("."), value, found);
                }
                false
            }
            toml::Value::Integer(_) | toml::Value::Float(_) => true,
            toml::Value::String(text) => humantime::parse_duration(text).is_ok(),
            _ => false,
        };
        if is_number {
            found.push(at.trim_start_matches('.').to_owned());
        }
    }

    #[test]
    fn a_value_out_of_bounds_is_shown_as_it_is() {
        let mut config = Config::built_in();
        config.topics.partitions = -3;
        let problems: Vec<_> = BOUNDS.iter().filter_map(|bound| bound.problem(&config)).collect();
        assert_eq!(problems, ["topics.partitions = -3: must be 1 to 10000"]);
    }

    #[test]
    fn every_number_and_duration_has_a_bound() {
        let mut settings = Vec::new();
        numbers("", &toml::Value::try_from(Config::built_in()).unwrap(), &mut settings);
        assert!(settings.len() > BOUNDS.len());
        let is_bounded =
            |key: &String| BOUNDS.iter().any(|bound| bound.key == *key) || CHECKED_OTHERWISE.contains(&key.as_str());
        let unbounded: Vec<_> = settings.into_iter().filter(|key| !is_bounded(key)).collect();
        assert!(unbounded.is_empty(), "{unbounded:?}");
    }
}
