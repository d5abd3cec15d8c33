//! The fields of an event that filters look at.

use compact_str::CompactString;
use serde_json::Value;

use crate::event::Event;

/// The names of all fields: those of the payload, and those of the transition that only some formats have.
pub const FIELDS: [&str; 17] = [
    "event",
    "taskId",
    "timestamp",
    "fromState",
    "task.id",
    "task.title",
    "task.state",
    "task.repoUrl",
    "task.repoBranch",
    "task.prUrl",
    "task.prNumber",
    "task.agentType",
    "task.taskType",
    "task.costUsd",
    "task.createdAt",
    "task.completedAt",
    "task.errorMessage",
];

/// The fields of one event, read once for all filters.
#[derive(Debug)]
pub struct Fields(Value);

impl Fields {
    /// Reads the fields of an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let mut fields: Value = serde_json::from_slice(&event.body).unwrap_or_default();
        if let (Value::Object(fields), Some(parts)) = (&mut fields, &event.classic) {
            let text = |text: &Option<CompactString>| text.as_deref().map_or(Value::Null, Value::from);
            fields.insert("fromState".to_owned(), text(&parts.from_state));
            if let Some(Value::Object(task)) = fields.get_mut("task") {
                task.insert("repoBranch".to_owned(), text(&parts.repo_branch));
                task.insert("taskType".to_owned(), text(&parts.task_type));
            }
        }
        Self(fields)
    }

    /// The value of a field, unless it is missing or null.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        let found = match field.split_once('.') {
            Some((outer, inner)) => self.0.get(outer)?.get(inner),
            None => self.0.get(field),
        };
        found.filter(|value| !value.is_null())
    }
}
