//! The result of a replay or a rewind.

use std::collections::BTreeMap;

use crate::delivery::DeadReason;
use crate::event::EventType;
use crate::webhook::WebhookId;

/// Deliveries that a summary counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Dead letters of one webhook and reason. The webhook is None for records that could not be read.
    DeadLetters(Option<WebhookId>, DeadReason),
    /// Past events of one type.
    Events(EventType),
}

/// The result of a replay or a rewind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of records that were read.
    pub looked_at: u64,
    /// The number of deliveries that were sent again, or would be in a dry run, by group.
    pub replayed: BTreeMap<Group, u64>,
    /// The number of selected records that were skipped because an earlier run sent them again.
    pub before: u64,
    /// The number of selected dead letters that were skipped because their webhook is deleted or inactive, by webhook.
    pub gone: BTreeMap<WebhookId, u64>,
    /// The number of selected dead letters that were skipped because they were shortened. Their headers name the
    /// position of the original.
    pub shortened: u64,
    /// The number of records that are not what the topic holds: dead letters of this program, or task transitions.
    pub foreign: u64,
    /// Whether the run was stopped early.
    pub interrupted: bool,
}

impl Summary {
    /// The number of deliveries that were sent again, or would be in a dry run.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.replayed.values().sum()
    }

    /// Counts one delivery.
    pub fn count(&mut self, group: Group) {
        *self.replayed.entry(group).or_default() += 1;
    }

    /// Adds the counts of another part of the same run.
    pub fn add(&mut self, part: Self) {
        self.looked_at += part.looked_at;
        self.before += part.before;
        self.foreign += part.foreign;
        self.shortened += part.shortened;
        self.interrupted |= part.interrupted;
        for (group, count) in part.replayed {
            *self.replayed.entry(group).or_default() += count;
        }
        for (webhook, count) in part.gone {
            *self.gone.entry(webhook).or_default() += count;
        }
    }
}
