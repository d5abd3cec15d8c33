//! The two consumer groups.

use std::sync::Arc;

use super::intake::{Intake, Retries};
use crate::config::Config;
use crate::event;
use crate::topics::Names;

/// Whether a group reads the topic with this name.
pub(super) type Reads = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// One of the two consumer groups: its name, its topics, and the kind of its records.
pub struct Group {
    pub(super) thread_name: &'static str,
    pub(super) group_id: String,
    pub(super) topics: Vec<String>,
    /// Whether it reads a topic.
    pub(super) reads: Reads,
    pub(super) intake: Intake,
}

impl Group {
    /// The group that reads `task-events`.
    #[must_use]
    pub fn events(config: &Config, names: &Names) -> Self {
        Self {
            thread_name: "events",
            group_id: names.events_group().to_owned(),
            topics: vec![names.events().to_owned()],
            reads: reads(names, |names, topic| topic == names.events()),
            intake: Intake::Events { limits: event::Limits::new(config) },
        }
    }

    /// The group that reads the retry tiers and the replay topic.
    #[must_use]
    pub fn retries(config: &Arc<Config>, names: &Names) -> Self {
        Self {
            thread_name: "retries",
            group_id: names.retry_group(),
            // With a pattern the group also reads tiers of earlier settings, and tiers that are created while it runs.
            topics: vec![names.waiting_pattern()],
            reads: reads(names, Names::is_waiting),
            intake: Intake::Retries(Retries::new(config)),
        }
    }

    /// Whether it reads `task-events`.
    #[must_use]
    pub fn reads_events(&self) -> bool {
        matches!(self.intake, Intake::Events { .. })
    }
}

fn reads(names: &Names, of_group: fn(&Names, &str) -> bool) -> Reads {
    let names = names.clone();
    Arc::new(move |topic| of_group(&names, topic))
}
