//! The topics' names and what they must be able to hold (contract section 1).

use std::time::Duration;

use crate::config::Config;
use crate::schedule::{Schedule, Waits};

/// Names that follow from `kafka.topic` and `kafka.group`.
#[derive(Debug, Clone)]
pub struct Names {
    topic: String,
    group: String,
}

impl Names {
    /// The names that the settings ask for.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { topic: config.kafka.topic.clone(), group: config.kafka.group.clone() }
    }

    /// Where task transitions come from.
    #[must_use]
    pub fn events(&self) -> &str {
        &self.topic
    }

    /// Tier `tier`, from 1.
    #[must_use]
    pub fn retry(&self, tier: u32) -> String {
        format!("{}.retry.{tier}", self.topic)
    }

    /// The tier that a topic is, if it is one.
    #[must_use]
    pub fn tier_of(&self, topic: &str) -> Option<u32> {
        let number = topic.strip_prefix(&self.topic)?.strip_prefix(".retry.")?;
        number.parse().ok().filter(|tier| *tier >= 1 && self.retry(*tier) == topic)
    }

    /// What was put back into delivery: dead letters that are replayed, and the past told anew.
    #[must_use]
    pub fn replays(&self) -> String {
        format!("{}.replay", self.topic)
    }

    /// Whether the retry group reads a topic: the tiers, and the replays.
    #[must_use]
    pub fn is_waiting(&self, topic: &str) -> bool {
        self.tier_of(topic).is_some() || topic.strip_prefix(&self.topic) == Some(".replay")
    }

    /// What the retry group subscribes to, as a regular expression: the same as [`Names::is_waiting`], of topics that are
    /// there and of those that are made later.
    #[must_use]
    pub fn waiting_pattern(&self) -> String {
        // Of what a topic's name may have only the dot means something else there.
        format!("^{}[.](retry[.][1-9][0-9]*|replay)$", self.topic.replace('.', "[.]"))
    }

    /// What won't be tried again by itself.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        format!("{}.dlq", self.topic)
    }

    /// Reads the events.
    #[must_use]
    pub fn events_group(&self) -> &str {
        &self.group
    }

    /// Reads dead letters, and the past, while a replay runs.
    #[must_use]
    pub fn replay_group(&self) -> String {
        format!("{}.replay", self.group)
    }

    /// Reads the retry tiers and the replays.
    #[must_use]
    pub fn retry_group(&self) -> String {
        format!("{}.retry", self.group)
    }
}

/// A topic that the program needs.
#[derive(Debug, Clone)]
pub struct Needed {
    /// Its name.
    pub name: String,
    /// What is set when the program creates it.
    pub settings: Vec<(&'static str, String)>,
    /// What must hold of one that is there.
    pub holds: Holds,
    /// Bytes of the largest record that it must take.
    pub record_bytes: u64,
}

/// What a topic is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Events: their producers decide.
    Events,
    /// Deliveries that wait up to so long.
    Waiting(Duration),
    /// Dead letters.
    DeadLetters,
    /// Replays, which also say which of the dead letters of so long were replayed.
    Replays(Duration),
}

/// Bytes that our headers may add to a record that couldn't be read, beside its own.
const HEADERS_MAX: u64 = 64 << 10;
/// Bytes of a retry record beside its body: every id in its headers is bounded.
const RETRY_HEADERS_MAX: u64 = 16 << 10;
/// Kafka's default `max.message.bytes`, with which event topics are made.
pub const MESSAGE_MAX: u64 = 1 << 20;

/// A broker drops whole segments: a dead letter may stay longer than its retention by a segment's time (a week by
/// default), and what says that it was replayed must outlive it.
const SEGMENTS_MARGIN: Duration = Duration::from_secs(14 * 86_400);

/// Every topic that the settings ask for, where the events' topic takes records of up to `events_bytes`.
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
        vec![Needed { name: names.events().to_owned(), settings: vec![], holds: Holds::Events, record_bytes: 0 }];
    let retry_bytes = config.delivery.payload_max as u64 + RETRY_HEADERS_MAX;
    for tier in 1..=schedule.tiers() {
        let wait = longest_wait(&schedule, tier, config);
        let retention = wait + config.topics.retry_retention_margin;
        topics.push(Needed {
            name: names.retry(tier),
            settings: common(retention, retry_bytes.max(MESSAGE_MAX)),
            holds: Holds::Waiting(wait),
            record_bytes: retry_bytes,
        });
    }
    // A record that can't be read must fit as it came, with our headers behind its own.
    let unread_bytes = largest_event(config, events_bytes) + HEADERS_MAX;
    let dead_letters = config.topics.dead_letter_retention;
    topics.push(Needed {
        name: names.replays(),
        settings: common(dead_letters + SEGMENTS_MARGIN, unread_bytes.max(MESSAGE_MAX * 8) + HEADERS_MAX),
        holds: Holds::Replays(dead_letters),
        record_bytes: unread_bytes,
    });
    topics.push(Needed {
        name: names.dead_letters(),
        settings: common(dead_letters, unread_bytes.max(MESSAGE_MAX * 8)),
        holds: Holds::DeadLetters,
        record_bytes: unread_bytes,
    });
    topics
}

/// Bytes of the largest event that isn't refused for its size at once.
fn largest_event(config: &Config, events_bytes: u64) -> u64 {
    match config.events.bytes_max as u64 {
        0 => events_bytes,
        bytes_max => bytes_max.min(events_bytes),
    }
}

/// How long records wait in a tier; None for the replays, and for a tier that the settings don't know any more.
#[must_use]
pub fn waits(config: &Config, tier: Option<u32>) -> Waits {
    let schedule = Schedule::new(&config.delivery);
    match tier {
        Some(tier) => Waits {
            // A tier that the settings don't know any more may hold anything: nothing is assumed of it.
            shortest: schedule.shortest(tier).unwrap_or_default(),
            longest: longest_wait(&schedule, tier, config).max(config.delivery.retry.max),
        },
        // Replays are due when they are written.
        None => Waits { shortest: Duration::ZERO, longest: Duration::ZERO },
    }
}

/// The longest that a record may wait in tier `tier`: its delay, or what a Retry-After asks for.
fn longest_wait(schedule: &Schedule, tier: u32, config: &Config) -> Duration {
    schedule.longest(tier).unwrap_or_default().max(config.delivery.retry_after_max)
}

impl Needed {
    /// Why a topic whose `max.message.bytes` is that can't hold what it must; None if it can.
    #[must_use]
    pub fn too_small(&self, max_message_bytes: u64) -> Option<String> {
        (max_message_bytes < self.record_bytes).then(|| {
            format!(
                "topic {}: max.message.bytes = {max_message_bytes} can't hold the largest record that the settings allow; allowed is {} or more (events.bytes_max, delivery.payload_max)",
                self.name, self.record_bytes
            )
        })
    }

    /// Why a topic with these settings would lose data; None if it wouldn't.
    #[must_use]
    pub fn objection(&self, setting: impl Fn(&str) -> Option<String>) -> Option<String> {
        let number = |key: &str| setting(key).and_then(|value| value.parse::<i64>().ok());
        if self.holds == Holds::Events {
            return None;
        }
        if let Some(policy) = setting("cleanup.policy").filter(|policy| policy.contains("compact")) {
            return Some(format!(
                "topic {}: cleanup.policy = {policy} would drop records of the same webhook; allowed is delete",
                self.name
            ));
        }
        if let Some(bytes) = number("retention.bytes").filter(|bytes| *bytes >= 0) {
            return Some(format!(
                "topic {}: retention.bytes = {bytes} would drop records that wait; allowed is -1",
                self.name
            ));
        }
        let (needed, what) = match self.holds {
            Holds::Waiting(wait) => (wait, "the wait it must hold"),
            Holds::Replays(dead_letters) => {
                (dead_letters, "topics.dead_letter_retention, so that dead letters would be replayed twice")
            }
            Holds::Events | Holds::DeadLetters => return None,
        };
        let shortest = i64::try_from(needed.as_millis()).unwrap_or(i64::MAX);
        let retention = number("retention.ms").filter(|retention| (0..shortest).contains(retention))?;
        Some(format!(
            "topic {}: retention.ms = {retention} is shorter than {what}; allowed is {shortest} or more, or -1",
            self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_topic_and_group() {
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
    fn a_topic_that_cannot_hold_the_largest_record_is_objected_to() {
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
    fn a_topic_that_would_lose_what_waits_is_objected_to() {
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
