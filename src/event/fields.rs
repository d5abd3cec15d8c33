//! Reads the optional fields of a message.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::transition::{NotUnderstood, Value, values};

/// Reads optional fields. A value that can't be understood becomes null, and its field is added to `not_understood`.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) not_understood: Vec<&'static str>,
}

impl Fields {
    fn take<T>(&mut self, field: &'static str, read: Result<Option<T>, NotUnderstood>) -> Option<T> {
        read.unwrap_or_else(|NotUnderstood| {
            self.not_understood.push(field);
            None
        })
    }

    pub(super) fn text<'a>(&mut self, field: &'static str, raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
        self.take(field, Value::of(raw).text())
    }

    pub(super) fn whole_number(&mut self, field: &'static str, raw: Option<&RawValue>) -> Option<u64> {
        self.take(field, Value::of(raw).whole_number())
    }

    pub(super) fn time<'a>(&mut self, field: &'static str, raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
        self.take(field, Value::of(raw).time())
    }

    pub(super) fn task<'a>(&mut self, raw: Option<&'a RawValue>) -> [Option<&'a RawValue>; TASK_KEYS.len()] {
        let read = match raw.map(RawValue::get) {
            None | Some("null") => Ok(None),
            Some(json) => values(json, TASK_KEYS).map(Some).map_err(|_| NotUnderstood),
        };
        self.take("task", read).unwrap_or_default()
    }
}

/// The fields of a message's task that are read.
const TASK_KEYS: [&str; 13] = [
    "id",
    "title",
    "state",
    "taskType",
    "repoUrl",
    "repoBranch",
    "prUrl",
    "prNumber",
    "agentType",
    "costUsd",
    "errorMessage",
    "createdAt",
    "completedAt",
];

/// The optional fields, as [`super::Event::not_understood`] names them.
pub const OPTIONAL_FIELDS: [&str; 17] = [
    "id",
    "timestamp",
    "fromState",
    "task",
    "task.id",
    "task.title",
    "task.state",
    "task.taskType",
    "task.repoUrl",
    "task.repoBranch",
    "task.prUrl",
    "task.prNumber",
    "task.agentType",
    "task.costUsd",
    "task.errorMessage",
    "task.createdAt",
    "task.completedAt",
];
