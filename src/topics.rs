//! The names of the topics, and the settings that they need (`docs/reference.md`, section "Topics").

use std::time::Duration;

use crate::config::Config;
use crate::schedule::{Schedule, Waits};

/// The names of topics and groups, which follow from `kafka.topic` and `kafka.group`.
#[derive(Debug, Clone)]
pub struct Names {
    topic: String,
    group: String,
}

impl Names {
    /// Reads the names from the settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { topic: config.kafka.topic.clone(), group: config.kafka.group.clone() }
    }

    /// Returns the topic of the events.
    #[must_use]
    pub fn events(&self) -> &str {
        &self.topic
    }

    /// Returns the topic of retry tier `tier`, from 1.
    #[must_use]
    pub fn retry(&self, tier: u32) -> String {
        format!("{}.retry.{tier}", self.topic)
    }

    /// Returns the number of the retry tier that has this topic, or `None` if no tier has it.
    #[must_use]
    pub fn tier_of(&self, topic: &str) -> Option<u32> {
        let number = topic.strip_prefix(&self.topic)?.strip_prefix(".retry.")?;
        number.parse().ok().filter(|tier| *tier >= 1 && self.retry(*tier) == topic)
    }

    /// Returns the topic of replays, rewinds and redeliveries.
    #[must_use]
    pub fn replays(&self) -> String {
        format!("{}.replay", self.topic)
    }

    /// Whether a topic is a retry tier or the replay topic. The retry group reads these.
    #[must_use]
    pub fn is_waiting(&self, topic: &str) -> bool {
        self.tier_of(topic).is_some() || topic.strip_prefix(&self.topic) == Some(".replay")
    }

    /// Returns the subscription of the retry group: a regular expression that matches the topics of
    /// [`Names::is_waiting`]. It also matches topics that are created later.
    #[must_use]
    pub fn waiting_pattern(&self) -> String {
        // Of the characters allowed in a topic's name, only the dot is special in a regular expression.
        format!("^{}[.](retry[.][1-9][0-9]*|replay)$", self.topic.replace('.', "[.]"))
    }

    /// Returns the dead-letter topic.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        format!("{}.dlq", self.topic)
    }

    /// Returns the group that reads the events.
    #[must_use]
    pub fn events_group(&self) -> &str {
        &self.group
    }

    /// Returns the group that reads dead letters, and past events during a rewind.
    #[must_use]
    pub fn replay_group(&self) -> String {
        format!("{}.replay", self.group)
    }

    /// Returns the group that reads the retry tiers and the replay topic.
    #[must_use]
    pub fn retry_group(&self) -> String {
        format!("{}.retry", self.group)
    }
}

/// A topic that the program needs.
#[derive(Debug, Clone)]
pub struct Needed {
    /// The topic's name.
    pub name: String,
    /// The settings with which the program creates the topic.
    pub settings: Vec<(&'static str, String)>,
    /// The contents of the topic, which decide what its settings must be.
    pub contents: Contents,
    /// The size of the largest record that the topic must accept, in bytes.
    pub record_bytes: u64,
}

/// The contents of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Events. Their producers decide on the settings.
    Events,
    /// Deliveries that wait for at most this long.
    Waiting(Duration),
    /// Dead letters.
    DeadLetters,
    /// Replays. They also record which dead letters were replayed, so they must be kept for at least this long.
    Replays(Duration),
}

/// The largest number of bytes that the worker's headers add to a record that couldn't be read.
const HEADERS_MAX: u64 = 64 << 10;
/// The largest number of bytes that a retry record has besides its body. Every id in its headers is bounded.
const RETRY_HEADERS_MAX: u64 = 16 << 10;
/// Kafka's default for `max.message.bytes`.
pub const MESSAGE_MAX: u64 = 1 << 20;

/// How much longer replays are kept than dead letters. A broker deletes whole segments, so a dead letter may outlive
/// its retention by the time that a segment spans (a week by default). The record of its replay must outlive it.
const SEGMENTS_MARGIN: Duration = Duration::from_secs(14 * 86_400);

/// Returns every topic that the settings require. The topic of the events accepts records of up to `events_bytes`.
#[must_use]
pub fn needed(config: &Config, events_bytes: u64) -> Vec<Needed> {
    let names = Names::new(config);
    let schedule = Schedule::new(&config.delivery);
    let common = |retention: Duration, bytes: u64| {
        vec![
            ("retention.ms", retention.as_millis().to_string()),
            ("retention.bytes", "-1".to_owned()),
            ("cleanup.policy", "delete".to_owned()),
            ("max.message.bytes", bytes.to_string()),
        ]
    };
    let mut topics =
        vec![Needed { name: names.events().to_owned(), settings: vec![], contents: Contents::Events, record_bytes: 0 }];
    let retry_bytes = config.delivery.payload_max as u64 + RETRY_HEADERS_MAX;
    for tier in 1..=schedule.tiers() {
        let wait = longest_wait(&schedule, tier, config);
        let retention = wait + config.topics.retry_retention_margin;
        topics.push(Needed {
            name: names.retry(tier),
            settings: common(retention, retry_bytes.max(MESSAGE_MAX)),
            contents: Contents::Waiting(wait),
            record_bytes: retry_bytes,
        });
    }
    // A record that can't be read must fit unchanged, with the worker's headers appended.
    let unread_bytes = largest_event(config, events_bytes) + HEADERS_MAX;
    let dead_letters = config.topics.dead_letter_retention;
    topics.push(Needed {
        name: names.replays(),
        settings: common(dead_letters + SEGMENTS_MARGIN, unread_bytes.max(MESSAGE_MAX * 8) + HEADERS_MAX),
        contents: Contents::Replays(dead_letters),
        record_bytes: unread_bytes,
    });
    topics.push(Needed {
        name: names.dead_letters(),
        settings: common(dead_letters, unread_bytes.max(MESSAGE_MAX * 8)),
        contents: Contents::DeadLetters,
        record_bytes: unread_bytes,
    });
    topics
}

/// Returns the size of the largest event that isn't refused for its size, in bytes.
fn largest_event(config: &Config, events_bytes: u64) -> u64 {
    match config.events.bytes_max as u64 {
        0 => events_bytes,
        bytes_max => bytes_max.min(events_bytes),
    }
}

/// Returns the waits of the records in a tier, or of the replays if `tier` is `None`.
#[must_use]
pub fn waits(config: &Config, tier: Option<u32>) -> Waits {
    let schedule = Schedule::new(&config.delivery);
    match tier {
        Some(tier) => Waits {
            // Records of a tier that the settings no longer name may have any wait, so its shortest wait is zero.
            shortest: schedule.shortest(tier).unwrap_or_default(),
            longest: longest_wait(&schedule, tier, config).max(config.delivery.retry.max),
        },
        // Replays are due when they are written.
        None => Waits { shortest: Duration::ZERO, longest: Duration::ZERO },
    }
}

/// Returns the longest wait in tier `tier`: its longest delay, or the longest `Retry-After` if that is longer.
fn longest_wait(schedule: &Schedule, tier: u32, config: &Config) -> Duration {
    schedule.longest(tier).unwrap_or_default().max(config.delivery.retry_after_max)
}

impl Needed {
    /// Returns why a topic with this `max.message.bytes` can't hold the largest record, or `None` if it can.
    #[must_use]
    pub fn too_small(&self, max_message_bytes: u64) -> Option<String> {
        (max_message_bytes < self.record_bytes).then(|| {
            format!(
                "topic {}: max.message.bytes = {max_message_bytes} can't hold the largest record that the settings allow; it must be {} or more (events.bytes_max, delivery.payload_max)",
                self.name, self.record_bytes
            )
        })
    }

    /// Returns why a topic with these settings would lose data, or `None` if it wouldn't.
    #[must_use]
    pub fn objection(&self, setting: impl Fn(&str) -> Option<String>) -> Option<String> {
        let number = |key: &str| setting(key).and_then(|value| value.parse::<i64>().ok());
        if self.contents == Contents::Events {
            return None;
        }
        if let Some(policy) = setting("cleanup.policy").filter(|policy| policy.contains("compact")) {
            return Some(format!(
                "topic {}: cleanup.policy = {policy} would delete all but the newest record of each key; it must be delete",
                self.name
            ));
        }
        if let Some(bytes) = number("retention.bytes").filter(|bytes| *bytes >= 0) {
            return Some(format!(
                "topic {}: retention.bytes = {bytes} would delete records too early; it must be -1",
                self.name
            ));
        }
        let (needed, what) = match self.contents {
            Contents::Waiting(wait) => (wait, "the longest wait of its records"),
            Contents::Replays(dead_letters) => {
                (dead_letters, "topics.dead_letter_retention, and dead letters would be replayed twice")
            }
            Contents::Events | Contents::DeadLetters => return None,
        };
        let shortest = i64::try_from(needed.as_millis()).unwrap_or(i64::MAX);
        let retention = number("retention.ms").filter(|retention| (0..shortest).contains(retention))?;
        Some(format!(
            "topic {}: retention.ms = {retention} is shorter than {what}; it must be {shortest} or more, or -1",
            self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_topic_and_the_group() {
        let names = Names::new(&Config::built_in());
        assert_eq!(names.retry(3), "task-events.retry.3");
        assert_eq!(names.dead_letters(), "task-events.dlq");
        assert_eq!(names.retry_group(), "optio-webhooks.retry");
        assert_eq!(names.tier_of("task-events.retry.12"), Some(12));
        assert_eq!(names.tier_of("task-events.retry.012"), None);
        assert_eq!(names.tier_of("task-events.dlq"), None);
        assert_eq!(needed(&Config::built_in(), MESSAGE_MAX).len(), 10);
        assert!(names.is_waiting("task-events.replay") && names.is_waiting("task-events.retry.1"));
        assert_eq!(names.waiting_pattern(), "^task-events[.](retry[.][1-9][0-9]*|replay)$");
        assert!(!names.is_waiting("task-events.dlq") && !names.is_waiting("task-events"));
    }

    #[test]
    fn a_topic_that_cannot_hold_the_largest_record_is_reported() {
        let all = needed(&Config::built_in(), 5 << 20);
        let of = |name: &str| all.iter().find(|needed| needed.name == name).unwrap();
        assert!(of("task-events.retry.1").too_small(100_000).unwrap().contains("max.message.bytes = 100000"));
        assert_eq!(of("task-events.retry.1").too_small(MESSAGE_MAX), None);
        assert!(of("task-events.dlq").too_small(MESSAGE_MAX).is_some(), "events may have 5 MiB");
        for needed in &all {
            let created = needed.settings.iter().find(|(key, _)| *key == "max.message.bytes");
            assert_eq!(created.and_then(|(_, bytes)| needed.too_small(bytes.parse().unwrap())), None);
        }
    }

    #[test]
    fn a_topic_that_would_lose_waiting_deliveries_is_refused() {
        let tier = needed(&Config::built_in(), MESSAGE_MAX).swap_remove(1);
        let with = |key: &'static str, value: &'static str| {
            tier.objection(move |asked| (asked == key).then(|| value.to_owned()))
        };
        assert!(with("retention.ms", "1000").unwrap().contains("retention.ms = 1000"));
        assert!(with("cleanup.policy", "compact,delete").is_some());
        assert!(with("retention.bytes", "1000000").is_some());
        assert_eq!(with("retention.ms", "-1"), None);
        assert_eq!(with("retention.ms", "604800000"), None);
    }
}
