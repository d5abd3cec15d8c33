//! The conditions that keep this process from its work (`docs/reference.md`, sections "Conditions" and "Readiness").
//!
//! Every loop that waits for a dependency holds an [`Outage`]. Short outages stay quiet. An outage that lasts for
//! [`LOUD_AFTER`] raises a condition, which is logged as a warning once a minute and shown in `/readyz` until it ends.

use crate::metrics;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::schedule::Reconnect;

/// How long an outage may last before it is logged and shown.
pub const LOUD_AFTER: Duration = Duration::from_secs(5);
/// How often a condition that lasts is logged again.
pub const REMIND_EVERY: Duration = Duration::from_secs(60);

/// How much a condition matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Part of the work waits and the rest goes on. The process stays ready.
    Warning,
    /// The process can't do its work. It is not ready.
    NotReady,
}

/// A problem that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The highest severity that a holder has reported.
    pub severity: Severity,
    /// The problem in one line, for people.
    pub reason: String,
    /// The time when the condition began.
    pub since: Instant,
    /// The number of holders. The condition ends when the last one releases it.
    holders: usize,
    /// The time when the condition was last logged.
    logged: Option<Instant>,
}

/// The conditions of this process, by name. Clones share the same conditions.
#[derive(Debug, Clone, Default)]
pub struct Conditions(Arc<Mutex<BTreeMap<String, Condition>>>);

impl Conditions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Condition>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// Returns every condition with its name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Condition)> {
        self.lock().iter().map(|(name, condition)| (name.clone(), condition.clone())).collect()
    }

    /// Raises a condition that has a single holder, or replaces its reason.
    pub fn set(&self, name: &str, severity: Severity, reason: impl Into<String>) {
        self.raise(name, severity, reason.into(), false);
    }

    /// Ends a condition that was raised by [`Conditions::set`].
    pub fn clear(&self, name: &str) {
        self.release(name);
    }

    /// Creates an outage for a loop that waits for a dependency. `name` says which dependency and which work waits, for
    /// example `kafka: hand-off to task-events.dlq`.
    #[must_use]
    pub fn outage(&self, name: impl Into<String>, severity: Severity) -> Outage {
        Outage {
            conditions: self.clone(),
            name: name.into(),
            severity,
            loud_after: LOUD_AFTER,
            began: None,
            is_raised: false,
            reconnect: Reconnect::default(),
        }
    }

    /// Creates the condition if it doesn't exist, adds a holder if `is_new_holder`, and logs the condition if that is
    /// due.
    fn raise(&self, name: &str, severity: Severity, reason: String, is_new_holder: bool) {
        let now = Instant::now();
        let mut all = self.lock();
        let condition = all.entry(name.to_owned()).or_insert_with(|| Condition {
            severity,
            reason: String::new(),
            since: now,
            holders: usize::from(!is_new_holder),
            logged: None,
        });
        condition.holders += usize::from(is_new_holder);
        condition.severity = condition.severity.max(severity);
        condition.reason = reason;
        if condition.logged.is_none_or(|logged| now.duration_since(logged) >= REMIND_EVERY) {
            condition.logged = Some(now);
            let duration_s = now.duration_since(condition.since).as_secs();
            tracing::warn!(condition = name, reason = condition.reason, duration_s, "condition active");
        }
        metrics::CONDITION.set(label(name), 1.0);
    }

    fn release(&self, name: &str) {
        let mut all = self.lock();
        let Some(condition) = all.get_mut(name) else { return };
        condition.holders = condition.holders.saturating_sub(1);
        if condition.holders == 0 {
            let duration_s = condition.since.elapsed().as_secs();
            all.remove(name);
            tracing::info!(condition = name, duration_s, "condition ended");
            if all.keys().all(|other| label(other) != label(name)) {
                metrics::CONDITION.set(label(name), 0.0);
            }
        }
    }
}

/// The value of the metric's label. Each webhook has keys of its own in Redis, and a metric keeps every label that it ever
/// had.
fn label(name: &str) -> &str {
    const KEY: &str = "redis: key";
    if name.starts_with(KEY) { KEY } else { name }
}

/// The outage of a dependency, as one loop that waits for it sees it. Dropping it ends the outage.
#[derive(Debug)]
pub struct Outage {
    conditions: Conditions,
    name: String,
    severity: Severity,
    loud_after: Duration,
    began: Option<Instant>,
    is_raised: bool,
    reconnect: Reconnect,
}

impl Outage {
    /// Sets how long the outage may last before it is logged and shown.
    #[must_use]
    pub fn loud_after(mut self, loud_after: Duration) -> Self {
        self.loud_after = loud_after;
        self
    }

    /// Reports a try that failed or didn't end in time. The outage begins with the first of these reports.
    pub fn failed(&mut self, reason: impl Display) {
        let began = *self.began.get_or_insert_with(Instant::now);
        if began.elapsed() >= self.loud_after {
            self.conditions.raise(&self.name, self.severity, reason.to_string(), !self.is_raised);
            self.is_raised = true;
        } else {
            tracing::debug!(condition = self.name, %reason, "try failed, retrying");
        }
    }

    /// Waits before the next try, longer each time. Cancel safe.
    pub async fn wait(&mut self) {
        self.reconnect.wait().await;
    }

    /// Reports a try that succeeded. The outage ends, and the next failure begins a new one.
    pub fn over(&mut self) {
        if self.began.take().is_some() {
            self.reconnect = Reconnect::default();
        }
        if std::mem::take(&mut self.is_raised) {
            self.conditions.release(&self.name);
        }
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(conditions: &Conditions) -> Vec<String> {
        conditions.all().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_condition_lasts_until_its_last_holder_releases_it() {
        let conditions = Conditions::default();
        let outage = || conditions.outage("kafka", Severity::NotReady).loud_after(Duration::ZERO);
        let (mut one, mut other) = (outage(), outage());
        one.failed("away");
        one.failed("away");
        other.failed("away");
        one.over();
        assert_eq!(names(&conditions), ["kafka"]);
        drop(other);
        assert!(names(&conditions).is_empty());
    }

    #[test]
    fn a_short_outage_is_not_shown() {
        let conditions = Conditions::default();
        let mut outage = conditions.outage("redis", Severity::Warning);
        outage.failed("away");
        assert!(names(&conditions).is_empty());
    }

    #[test]
    fn one_clear_ends_a_condition_that_was_set_twice() {
        let conditions = Conditions::default();
        conditions.set("store", Severity::NotReady, "one");
        conditions.set("store", Severity::NotReady, "two");
        assert_eq!(conditions.all()[0].1.reason, "two");
        conditions.clear("store");
        conditions.clear("store");
        assert!(names(&conditions).is_empty());
    }
}
