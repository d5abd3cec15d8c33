//! The bounds of the settings.

use std::time::Duration;

use super::bounds::BOUNDS;
use super::masked::{masked_brokers, masked_url, must_be_percent_encoded};
use super::proxy::Proxy;
use super::{BadConfig, Config};
use crate::secret::Secret;

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
        let mut bad = Vec::new();
        let mut require = |is_allowed: bool, key: &str, value: String, allowed: &str| {
            if !is_allowed {
                bad.push(format!("{key} = {value}: must be {allowed}"));
            }
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 200
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let time = |d: Duration| humantime::format_duration(d).to_string();
        let public_url = &self.webhooks.public_url;
        require(
            public_url.is_empty() || is_web_app(public_url),
            "webhooks.public_url",
            format!("{:?}", masked_url(public_url)),
            "empty, or the http or https address of Optio's web app without a user name, a query or a fragment",
        );
        let public_url = &self.admin.public_url;
        require(
            public_url.is_empty() || is_web_app(public_url),
            "admin.public_url",
            format!("{:?}", masked_url(public_url)),
            "empty, or the http or https address of the settings page without a user name, a query or a fragment",
        );
        require(
            is_base_path(&self.admin.base_path),
            "admin.base_path",
            format!("{:?}", self.admin.base_path),
            "empty, or a path such as /webhooks: parts of letters, digits, '-', '_', '.' and '~', each after a '/', and not one \
             that the server has itself, such as /settings, /api or /status",
        );
        let kafka = &self.kafka;
        require(
            !kafka.brokers.trim().is_empty() && !kafka.brokers.contains('@'),
            "kafka.brokers",
            format!("{:?}", masked_brokers(&kafka.brokers)),
            "host:port pairs separated by commas; a user name and password belong in kafka.properties",
        );
        for key in ["bootstrap.servers", "metadata.broker.list"] {
            require(
                kafka.properties.get(key).is_none_or(|brokers| !brokers.expose().contains('@')),
                &format!("kafka.properties.{key:?}"),
                format!("{:?}", masked_brokers(kafka.properties.get(key).map_or("", Secret::expose))),
                "host:port pairs separated by commas; a user name and password belong in sasl.username and sasl.password",
            );
        }
        require(
            is_name(&kafka.topic),
            "kafka.topic",
            format!("{:?}", kafka.topic),
            "1 to 200 characters from a-z A-Z 0-9 . _ -",
        );
        require(
            is_name(&kafka.group),
            "kafka.group",
            format!("{:?}", kafka.group),
            "1 to 200 characters from a-z A-Z 0-9 . _ -",
        );
        require(
            self.events.bytes_max == 0 || (1_024..=100_000_000).contains(&self.events.bytes_max),
            "events.bytes_max",
            self.events.bytes_max.to_string(),
            "0 (the limit is the topic's max.message.bytes) or 1024 to 100000000 (bytes)",
        );
        require(
            self.topics.replication_factor == -1 || self.topics.replication_factor >= 1,
            "topics.replication_factor",
            self.topics.replication_factor.to_string(),
            "-1 (the broker's default), or 1 or more",
        );
        let url = self.redis.url.expose();
        require(
            is_redis_url(url),
            "redis.url",
            format!("{:?}", masked_url(url)),
            &format!(
                "redis://[user:password@]host:port/ or rediss://…{}",
                if must_be_percent_encoded(url) { PERCENT_ENCODE } else { "" }
            ),
        );
        require(
            !self.redis.has_tls_files() || ["rediss:", "valkeys:"].iter().any(|scheme| url.starts_with(scheme)),
            "redis.ca_file, redis.client_certificate_file, redis.client_key_file",
            "set".to_owned(),
            "only with TLS: a redis.url that begins with rediss://",
        );
        let worker = &self.worker;
        require(
            worker.retry_share.saturating_add(worker.wide_share) <= 90,
            "worker.retry_share + worker.wide_share",
            format!("{} + {}", worker.retry_share, worker.wide_share),
            "at most 90 (percent) together: the rest is reserved for first attempts of all other events",
        );
        let delivery = &self.delivery;
        require(
            delivery.timeout.saturating_add(HAND_OFF_MAX) <= worker.drain_timeout,
            "delivery.timeout",
            time(delivery.timeout),
            &format!(
                "at most {}, which is worker.drain_timeout = {} minus {} for the hand-off that may follow: a drain would \
                 abandon longer requests, and they would be repeated",
                time(worker.drain_timeout.saturating_sub(HAND_OFF_MAX)),
                time(worker.drain_timeout),
                time(HAND_OFF_MAX),
            ),
        );
        require(
            !delivery.allow_ports.is_empty(),
            "delivery.allow_ports",
            "[]".to_owned(),
            "one or more ports or ranges of ports: without any, no request could be sent",
        );
        for (key, networks) in
            [("delivery.allow_networks", &delivery.allow_networks), ("delivery.deny_networks", &delivery.deny_networks)]
        {
            let mapped = networks.iter().find(|network| is_ipv4_mapped(network));
            require(
                mapped.is_none(),
                key,
                mapped.map(|network| format!("[\"{network}\"]")).unwrap_or_default(),
                "written as IPv4 networks where it holds IPv4-mapped ones: ::ffff:10.0.0.0/104 is 10.0.0.0/8",
            );
        }
        let proxy = delivery.proxy.expose();
        require(
            proxy.is_empty() || is_proxy_url(proxy),
            "delivery.proxy",
            format!("{:?}", masked_url(proxy)),
            &format!(
                "http://[user:password@]host:port or https://…, or empty for none{}",
                if must_be_percent_encoded(proxy) { PERCENT_ENCODE } else { "" }
            ),
        );
        let breaker = &delivery.breaker;
        require(
            breaker.failure_ratio > 0.0 && breaker.failure_ratio <= 1.0,
            "delivery.breaker.failure_ratio",
            breaker.failure_ratio.to_string(),
            "more than 0 and at most 1",
        );
        require(
            breaker.open_max >= breaker.open_initial && breaker.open_max <= second * 86_400,
            "delivery.breaker.open_max",
            time(breaker.open_max),
            "from delivery.breaker.open_initial to 24h",
        );
        let retry = &delivery.retry;
        require(
            retry.max >= retry.initial && retry.max <= second * 86_400 * 7,
            "delivery.retry.max",
            time(retry.max),
            "from delivery.retry.initial to 7days",
        );
        bad.extend(self.secrets.keyring().err().map(|problem| problem.0));
        bad.extend(self.delivery.lone_tls_file());
        bad.extend(self.admin.problems());
        bad.extend(self.redis.servers_problem());
        bad.extend(self.traces.problems());
        bad.extend(BOUNDS.iter().filter_map(|bound| bound.problem(self)));
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

/// Whether the network lies within ::ffff:0:0/96. Such addresses are compared as IPv4 addresses, so it would match none.
fn is_ipv4_mapped(network: &ipnet::IpNet) -> bool {
    matches!(network, ipnet::IpNet::V6(network) if network.prefix_len() >= 96 && network.addr().to_ipv4_mapped().is_some())
}

fn is_proxy_url(url: &str) -> bool {
    !must_be_percent_encoded(url) && Proxy::parse(url).is_some()
}

/// The first parts of the server's own paths. It answers them at the root as well, so they can't be the base of others.
pub const OWN_PATHS: [&str; 14] = [
    "api",
    "assets",
    "audit",
    "dead-letters",
    "deliveries",
    "events",
    "healthz",
    "metrics",
    "openapi.json",
    "readyz",
    "settings",
    "sign-in",
    "sign-out",
    "status",
];

/// Whether the text is an address to which a path can be added.
fn is_base_path(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(is_allowed)
    };
    let is_free = |rest: &str| !OWN_PATHS.contains(&rest.split('/').next().unwrap_or_default());
    let is_path = |rest: &str| rest.split('/').all(is_part) && is_free(rest);
    text.is_empty() || (text.len() <= 200 && text.strip_prefix('/').is_some_and(is_path))
}

fn is_web_app(text: &str) -> bool {
    text.parse::<url::Url>().is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
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
        assert!(error.starts_with("worker.retry_share + worker.wide_share = 45 + 46: must be at most 90"), "{error}");
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
        assert!(error.starts_with("delivery.timeout = 28s 1ms: must be at most 28s, which is"), "{error}");
        config.worker.drain_timeout = second;
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("worker.drain_timeout = 1s"), "{error}");
    }

    #[test]
    fn networks_that_would_match_nothing_and_an_empty_list_of_ports_are_refused() {
        let mut config = Config::built_in();
        config.delivery.allow_ports.clear();
        config.delivery.deny_networks = ["10.0.0.0/8", "::ffff:10.0.0.0/104"].map(|n| n.parse().unwrap()).to_vec();
        config.delivery.allow_networks = vec!["::/0".parse().unwrap()];
        let error = config.check().unwrap_err().to_string();
        let (ports, networks) = error.split_once('\n').unwrap();
        assert!(ports.starts_with("delivery.allow_ports = []: must be one or more ports"), "{error}");
        assert!(networks.starts_with("delivery.deny_networks = [\"::ffff:"), "{error}");
        assert!(networks.contains("written as IPv4 networks") && !networks.contains('\n'), "{error}");
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_key_value_and_bounds() {
        let mut config = Config::built_in();
        config.delivery.attempts_max = 0;
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "delivery.attempts_max = 0: must be 1 to 50");
    }
}
