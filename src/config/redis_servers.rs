//! The check of `redis.sentinels` and `redis.cluster_nodes`: how the server is found that takes the writes.

use super::{Redis, masked_brokers};

/// The largest number of entries in each list.
const ENTRIES_MAX: usize = 100;

impl Redis {
    /// What is wrong with the settings that say how the server is found, one sentence for each problem.
    pub(super) fn servers_problem(&self) -> Vec<String> {
        let mut bad = Vec::new();
        for (key, entries) in [("redis.sentinels", &self.sentinels), ("redis.cluster_nodes", &self.cluster_nodes)] {
            if entries.len() > ENTRIES_MAX {
                bad.push(format!("{key}: has {} entries; must be at most {ENTRIES_MAX}", entries.len()));
            }
            bad.extend(entries.iter().filter(|entry| host_and_port(entry).is_none()).map(|entry| {
                let shown = masked_brokers(entry);
                format!("{key}: {shown:?} isn't allowed; entries look like redis-1.example.com:26379 or [::1]:26379")
            }));
        }
        if !self.sentinels.is_empty() && !self.cluster_nodes.is_empty() {
            bad.push("redis.sentinels and redis.cluster_nodes: only one of them may be set".to_owned());
        }
        if self.sentinels.is_empty() && !(self.sentinel_username.is_empty() && self.sentinel_password.is_empty()) {
            bad.push("redis.sentinel_username, redis.sentinel_password: only with redis.sentinels".to_owned());
        }
        if self.finds_server() && self.url.expose().contains("unix:") {
            bad.push("redis.url: a Unix socket has no sentinels and is no cluster; begin it with redis://".to_owned());
        }
        if !self.cluster_nodes.is_empty() {
            if !has_hash_tag(&self.prefix) {
                bad.push(format!(
                    "redis.prefix = {:?}: must contain a hash tag with redis.cluster_nodes, as in \
                     \"{{optio-webhooks}}:\", so that all keys lie on one node",
                    self.prefix
                ));
            }
            let path = url::Url::parse(self.url.expose()).map(|url| url.path().trim_matches('/').to_owned());
            if path.is_ok_and(|database| !database.is_empty() && database != "0") {
                bad.push("redis.url: a Redis Cluster has database 0 only".to_owned());
            }
        }
        bad
    }

    /// Whether the server is found through sentinels or nodes of a cluster.
    fn finds_server(&self) -> bool {
        !self.sentinels.is_empty() || !self.cluster_nodes.is_empty()
    }
}

/// The host and the port of an entry, if it is a valid one.
#[must_use]
pub fn host_and_port(entry: &str) -> Option<(&str, u16)> {
    let (host, port) = entry.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => Some(host).filter(|host| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        })?,
    };
    Some((host, port.parse().ok().filter(|port| *port > 0)?))
}

/// Whether only the part in braces decides which node has a key that begins with `prefix`.
///
/// Source: the Redis Cluster specification, "Hash tags". The first `{` and the first `}` after it count, and what is
/// between them must not be empty.
#[must_use]
pub fn has_hash_tag(prefix: &str) -> bool {
    let rest = prefix.split_once('{').map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split_once('}')).is_some_and(|(tag, _)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn problem(settings: &[(&str, &str)]) -> String {
        Config::with(settings.iter().copied()).err().map(|problem| problem.to_string()).unwrap_or_default()
    }

    #[test]
    fn each_setting_that_cannot_work_is_refused_with_a_sentence() {
        let nodes = ("redis.cluster_nodes", r#"["b:6379", "[::1]:7000"]"#);
        let tagged = ("redis.prefix", "{optio}:");
        assert_eq!(problem(&[nodes, tagged]), "");
        assert_eq!(problem(&[("redis.sentinels", r#"["a:26379"]"#), ("redis.sentinel_password", "x")]), "");
        for (settings, says) in [
            (&[nodes][..], "must contain a hash tag"),
            (&[nodes, ("redis.prefix", "{}:")], "must contain a hash tag"),
            (&[nodes, ("redis.prefix", "}{:")], "must contain a hash tag"),
            (&[nodes, tagged, ("redis.url", "redis://a/3")], "database 0 only"),
            (&[nodes, tagged, ("redis.sentinels", r#"["a:1"]"#)], "only one of them"),
            (&[("redis.sentinels", r#"["a:1"]"#), ("redis.url", "unix:///r.sock")], "Unix socket"),
            (&[("redis.sentinels", r#"["a"]"#)], "entries look like"),
            (&[("redis.sentinels", r#"["a:0"]"#)], "entries look like"),
            (&[("redis.sentinels", r#"["redis://a:1"]"#)], "entries look like"),
            (&[("redis.sentinels", r#"["a b:1"]"#)], "entries look like"),
            (&[("redis.sentinel_username", "sam")], "only with redis.sentinels"),
        ] {
            assert!(problem(settings).contains(says), "{settings:?}: {}", problem(settings));
        }
    }
}
