//! Redis keys that refuse the data of a batch. Each is named in `/readyz` until it takes data again.

use crate::metrics;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::conditions::{Conditions, Severity};

/// The most keys that are named.
const NAMED_MAX: usize = 20;
/// A key that hasn't refused anything for this time is no longer in use, and is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// The condition for the keys that aren't named.
const MORE: &str = "redis: more keys refuse what is recorded";

/// The keys that refuse data.
pub struct Refusals {
    conditions: Conditions,
    /// The time of the last refusal, by key.
    named: HashMap<String, Instant>,
    /// The time of the last refusal of a key that isn't named.
    more: Option<Instant>,
}

impl Refusals {
    /// Creates an empty set. Keys that refuse data are shown in `conditions`.
    #[must_use]
    pub fn new(conditions: Conditions) -> Self {
        Self { conditions, named: HashMap::new(), more: None }
    }

    /// Whether no key refuses data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.more.is_none()
    }

    /// Notes the result of a batch: the keys that it used, and those that refused data, with the error.
    pub fn note<'a>(&mut self, used: impl Iterator<Item = &'a str>, refused: &[(String, String)]) {
        if refused.is_empty() && self.is_empty() {
            return;
        }
        let now = Instant::now();
        for (key, error) in refused {
            metrics::SETTLE_REFUSED.increment();
            if self.named.len() < NAMED_MAX || self.named.contains_key(key) {
                self.named.insert(key.clone(), now);
                let reason = format!("what is recorded there is lost, the rest goes on: {error}");
                self.conditions.set(&condition(key), Severity::Warning, reason);
            } else {
                self.more = Some(now);
                self.conditions.set(MORE, Severity::Warning, format!("{key}: {error}"));
            }
        }
        for key in used.filter(|key| refused.iter().all(|(refused, _)| refused != key)) {
            if self.named.remove(key).is_some() {
                self.conditions.clear(&condition(key));
            }
        }
        self.named.retain(|key, at| {
            let is_used = now.duration_since(*at) < FORGOTTEN_AFTER;
            if !is_used {
                self.conditions.clear(&condition(key));
            }
            is_used
        });
        if self.more.is_some_and(|at| now.duration_since(at) >= FORGOTTEN_AFTER) {
            self.more = None;
            self.conditions.clear(MORE);
        }
    }
}

fn condition(key: &str) -> String {
    format!("redis: key {key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_refuses_data_is_named_until_it_takes_data() {
        let conditions = Conditions::default();
        let mut refusals = Refusals::new(conditions.clone());
        refusals.note(["a", "b"].into_iter(), &[("a".to_owned(), "WRONGTYPE".to_owned())]);
        let all = conditions.all();
        assert_eq!(all.len(), 1);
        assert!(all[0].0.ends_with("key a") && all[0].1.reason.contains("WRONGTYPE"));
        refusals.note(["b"].into_iter(), &[]);
        assert_eq!(conditions.all().len(), 1, "the key wasn't used");
        refusals.note(["a"].into_iter(), &[]);
        assert!(conditions.all().is_empty());
    }

    #[test]
    fn thousands_of_refusing_keys_do_not_fill_the_page() {
        let conditions = Conditions::default();
        let refused: Vec<(String, String)> = (0..5_000).map(|key| (key.to_string(), "NOPERM".to_owned())).collect();
        Refusals::new(conditions.clone()).note(std::iter::empty(), &refused);
        assert_eq!(conditions.all().len(), NAMED_MAX + 1);
    }
}
