//! Settings that are allowed, and probably not what somebody wants.

use std::time::Duration;

use super::{BadConfig, Config};
use crate::secret::Secret;

/// The time reserved for the rest of a rebalance after its drain: the last commit, and the next poll.
const POLL_MARGIN: Duration = Duration::from_secs(10);
/// librdkafka's default of `max.poll.interval.ms`.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(300);

impl Config {
    /// How long a member of a group may go without a poll. A value that can't be read is refused elsewhere.
    fn poll_interval_max(&self) -> Duration {
        let text = self.kafka.properties.get("max.poll.interval.ms").map(Secret::expose);
        text.and_then(|text| text.trim().parse().ok()).map_or(POLL_INTERVAL_MAX, Duration::from_millis)
    }

    /// A sentence for each of these settings. `serves_pages` says whether the process serves the page and the API.
    ///
    /// # Errors
    /// [`BadConfig`] if the sealing keys can't be read.
    pub fn advice(&self, serves_pages: bool) -> Result<Vec<String>, BadConfig> {
        let mut advice = Vec::new();
        if self.secrets.keyring()?.is_empty() && !self.secrets.allow_plaintext {
            advice.push(
                "there is no sealing key in secrets.keys or secrets.keys_file: no webhook with a secret can be added, and \
                 deliveries wait for webhooks whose secret is sealed; `optio-webhooks secrets generate-key` prints a key"
                    .to_owned(),
            );
        }
        if serves_pages && self.admin.all_tokens().is_empty() {
            advice.push("there is no token in admin.token or admin.tokens: nobody can sign in to the settings page or use the API".to_owned());
        }
        let poll_max = self.poll_interval_max();
        if self.worker.drain_timeout.saturating_add(POLL_MARGIN) > poll_max {
            let time = |time: Duration| humantime::format_duration(time).to_string();
            advice.push(format!(
                "worker.drain_timeout = {} should be at most kafka.properties.\"max.poll.interval.ms\" = {} minus {}: a \
                 member of the group that drains for longer is removed from it, and its deliveries are repeated",
                time(self.worker.drain_timeout),
                time(poll_max),
                time(POLL_MARGIN),
            ));
        }
        Ok(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_that_is_longer_than_the_group_waits_gets_a_warning() {
        let advice = |settings: &[(&str, &str)]| {
            let all = Config::with(settings.iter().copied()).unwrap().advice(false).unwrap();
            all.into_iter().filter(|sentence| sentence.contains("worker.drain_timeout")).count()
        };
        assert_eq!(advice(&[]), 0);
        assert_eq!(advice(&[("worker.drain_timeout", "5m")]), 1);
        assert_eq!(advice(&[("kafka.properties.max_poll_interval_ms", "30000")]), 1);
    }
}
