//! What keeps this process from doing its work at the moment. `/readyz` shows it.
//!
//! Every loop that waits for a dependency holds an [`Outage`]. A short one is nobody's business; one that lasts for
//! [`LOUD_AFTER`] is logged as a warning, then once a minute, and stands in `/readyz` until it is over.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::schedule::Reconnect;

/// How long a dependency may be away before that is logged and shown.
pub const LOUD_AFTER: Duration = Duration::from_secs(5);
/// How often a condition that lasts is logged again.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// How much a condition matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Part of the work waits, the rest goes on: the process stays ready.
    Warning,
    /// The process can't do its work: it is not ready.
    NotReady,
}

/// Something that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// How much it matters.
    pub severity: Severity,
    /// For people: what is wrong, in one line.
    pub reason: String,
    /// When it began.
    pub since: Instant,
    /// How many hold it; it is over when the last one lets go.
    holders: usize,
    /// When it was last logged.
    logged: Option<Instant>,
}

/// The conditions of this process, by name. A clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Conditions(Arc<Mutex<BTreeMap<String, Condition>>>);

impl Conditions {
    fn all_of_them(&self) -> MutexGuard<'_, BTreeMap<String, Condition>> {
        self.0.lock().expect("nothing panics while it holds the conditions")
    }

    /// Every condition, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Condition)> {
        self.all_of_them().iter().map(|(name, condition)| (name.clone(), condition.clone())).collect()
    }

    /// Sets a condition that has a single holder, or replaces its reason.
    pub fn set(&self, name: &str, severity: Severity, reason: impl Into<String>) {
        self.raise(name, severity, reason.into(), false);
    }

    /// Ends a condition that was [`Conditions::set`].
    pub fn clear(&self, name: &str) {
        self.release(name);
    }

    /// For a loop that waits for a dependency. `name` says what waits for what, like `kafka: hand-off to task-events.dlq`.
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

    /// Adds a holder if `is_new`, or makes the condition if there is none; logs it where that is due.
    fn raise(&self, name: &str, severity: Severity, reason: String, is_new: bool) {
        let now = Instant::now();
        let mut all = self.all_of_them();
        let condition = all.entry(name.to_owned()).or_insert_with(|| Condition {
            severity,
            reason: String::new(),
            since: now,
            holders: usize::from(!is_new),
            logged: None,
        });
        condition.holders += usize::from(is_new);
        condition.severity = condition.severity.max(severity);
        condition.reason = reason;
        if condition.logged.is_none_or(|logged| now.duration_since(logged) >= REMIND_EVERY) {
            condition.logged = Some(now);
            let lasts_s = now.duration_since(condition.since).as_secs();
            tracing::warn!(condition = name, reason = condition.reason, lasts_s, "something waits and is tried again");
        }
        metrics::gauge!("optio_webhooks_condition", "condition" => name.to_owned()).set(1.0);
    }

    fn release(&self, name: &str) {
        let mut all = self.all_of_them();
        let Some(condition) = all.get_mut(name) else { return };
        condition.holders = condition.holders.saturating_sub(1);
        if condition.holders == 0 {
            let lasted_s = condition.since.elapsed().as_secs();
            all.remove(name);
            tracing::info!(condition = name, lasted_s, "it goes on");
            metrics::gauge!("optio_webhooks_condition", "condition" => name.to_owned()).set(0.0);
        }
    }
}

/// One loop that waits for a dependency. It ends when it is dropped.
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
    /// With another time before it is logged and shown.
    #[must_use]
    pub fn loud_after(mut self, loud_after: Duration) -> Self {
        self.loud_after = loud_after;
        self
    }

    /// A try failed, or didn't end in time.
    pub fn failed(&mut self, reason: impl Display) {
        let began = *self.began.get_or_insert_with(Instant::now);
        if began.elapsed() >= self.loud_after {
            self.conditions.raise(&self.name, self.severity, reason.to_string(), !self.is_raised);
            self.is_raised = true;
        } else {
            tracing::debug!(condition = self.name, %reason, "tried again");
        }
    }

    /// Waits before the next try, longer each time. Cancel safe.
    pub async fn wait(&mut self) {
        self.reconnect.wait().await;
    }

    /// A try succeeded.
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
    fn a_condition_lasts_until_its_last_holder_lets_go() {
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
    fn a_condition_that_is_set_twice_is_cleared_at_once() {
        let conditions = Conditions::default();
        conditions.set("store", Severity::NotReady, "one");
        conditions.set("store", Severity::NotReady, "two");
        assert_eq!(conditions.all()[0].1.reason, "two");
        conditions.clear("store");
        conditions.clear("store");
        assert!(names(&conditions).is_empty());
    }
}
