//! Filters: which events of its types a webhook gets, decided by the fields of the event.
//!
//! A filter is JSON: a condition such as `{"field": "task.repoUrl", "glob": "https://github.com/acme/*"}`, or a group
//! `{"all": […]}` or `{"any": […]}` of filters. It is compiled when the webhook is read, once for each snapshot.

mod condition;
mod fields;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::BadWebhook;
use condition::Condition;
pub use fields::{FIELDS, Fields};

/// How deep groups may be nested.
const DEPTH_MAX: usize = 4;
/// The most conditions of a filter.
const CONDITIONS_MAX: usize = 50;

/// A filter, compiled. It is written as the JSON that it was read from.
#[derive(Debug, Clone)]
pub struct Filter {
    json: Value,
    root: Node,
}

#[derive(Debug, Clone)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    One(Condition),
}

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// [`BadWebhook`] says where the filter is wrong, and what is allowed.
    pub fn read(json: Value) -> Result<Self, BadWebhook> {
        let mut conditions = 0;
        let root = Node::read(&json, "filter", 0, &mut conditions)?;
        if conditions > CONDITIONS_MAX {
            return Err(bad(format!("has {conditions} conditions; at most {CONDITIONS_MAX} are allowed")));
        }
        Ok(Self { json, root })
    }

    /// Whether the filter lets an event through.
    #[must_use]
    pub fn matches(&self, event: &Fields) -> bool {
        self.root.matches(event)
    }

    /// The filter as JSON.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }
}

impl Node {
    fn read(json: &Value, at: &str, depth: usize, conditions: &mut usize) -> Result<Self, BadWebhook> {
        let Value::Object(object) = json else {
            return Err(bad(format!(
                "{at} isn't an object; write {{\"field\": \"task.repoUrl\", \"glob\": \"https://github.com/acme/*\"}}, \
                 or a group {{\"all\": […]}} or {{\"any\": […]}}"
            )));
        };
        match group(object, at)? {
            None => {
                *conditions += 1;
                Condition::read(object).map(Self::One).map_err(|problem| bad(format!("{at}: {problem}")))
            }
            Some((name, members)) => {
                if depth == DEPTH_MAX {
                    return Err(bad(format!("{at} is nested deeper than {DEPTH_MAX} groups")));
                }
                let member =
                    |(index, member)| Self::read(member, &format!("{at}.{name}[{index}]"), depth + 1, conditions);
                let members = members.iter().enumerate().map(member).collect::<Result<Vec<_>, _>>()?;
                Ok(if name == "all" { Self::All(members) } else { Self::Any(members) })
            }
        }
    }

    fn matches(&self, event: &Fields) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(event)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(event)),
            Self::One(condition) => condition.matches(event),
        }
    }
}

/// The name and the members of a group, or `None` if the object is a condition.
fn group<'a>(object: &'a Map<String, Value>, at: &str) -> Result<Option<(&'static str, &'a Vec<Value>)>, BadWebhook> {
    let Some(name) = ["all", "any"].into_iter().find(|name| object.contains_key(*name)) else { return Ok(None) };
    if object.len() > 1 {
        return Err(bad(format!("{at} has {name:?} and other keys; put the others into the group")));
    }
    match &object[name] {
        Value::Array(members) if !members.is_empty() => Ok(Some((name, members))),
        _ => Err(bad(format!("{at}.{name} must be a list of one or more filters"))),
    }
}

fn bad(problem: String) -> BadWebhook {
    BadWebhook { field: "filter", problem }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Eq for Filter {}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{ClassicParts, Event, EventType};

    fn event() -> Event {
        let body = json!({ "event": "task.completed", "taskId": "t1", "timestamp": "2025-03-26T10:12:34Z", "task": {
            "id": "t1", "title": "Fix login", "state": "completed", "repoUrl": "https://github.com/acme/backend",
            "prUrl": null, "prNumber": 142, "agentType": "claude-code", "costUsd": "0.84" } });
        Event {
            id: "e1".into(),
            task_id: "t1".into(),
            event_type: EventType::TaskCompleted,
            body: body.to_string().into(),
            classic: Some(Box::new(ClassicParts { task_type: Some("coding".into()), ..ClassicParts::default() })),
            not_understood: vec![],
        }
    }

    fn matches(filter: Value) -> bool {
        Filter::read(filter).unwrap().matches(&Fields::of(&event()))
    }

    #[test]
    fn each_kind_of_condition_matches_what_it_says() {
        for (condition, expected) in [
            (json!({ "field": "task.repoUrl", "equals": "https://github.com/acme/backend" }), true),
            (json!({ "field": "task.repoUrl", "equals": "https://github.com/acme" }), false),
            (json!({ "field": "task.repoUrl", "glob": "https://github.com/acme/*" }), true),
            (json!({ "field": "task.repoUrl", "glob": "*/acme/b?ckend" }), true),
            (json!({ "field": "task.repoUrl", "glob": "https://github.com/other/*" }), false),
            (json!({ "field": "task.agentType", "oneOf": ["codex", "claude-code"] }), true),
            (json!({ "field": "task.agentType", "oneOf": ["codex"] }), false),
            (json!({ "field": "task.taskType", "equals": "coding" }), true),
            (json!({ "field": "task.prUrl", "exists": false }), true),
            (json!({ "field": "task.prNumber", "exists": true }), true),
            (json!({ "field": "task.prNumber", "equals": 142 }), true),
            (json!({ "field": "task.prNumber", "equals": "142" }), true),
            (json!({ "field": "task.costUsd", "equals": 0.84 }), true),
            (json!({ "field": "task.costUsd", "greaterThan": 0.5 }), true),
            (json!({ "field": "task.costUsd", "atMost": 0.84 }), true),
            (json!({ "field": "task.costUsd", "lessThan": 0.84 }), false),
            (json!({ "field": "task.costUsd", "atLeast": 1 }), false),
            (json!({ "field": "task.title", "greaterThan": 0 }), false),
            (json!({ "field": "task.errorMessage", "glob": "*" }), false),
        ] {
            assert_eq!(matches(condition.clone()), expected, "{condition}");
        }
    }

    #[test]
    fn a_glob_matches_no_value_that_is_longer_than_it_may_look_at() {
        for (length, expected) in [(1_024, true), (1_025, false)] {
            let mut event = event();
            event.body = json!({ "task": { "title": "a".repeat(length) } }).to_string().into();
            let filter = Filter::read(json!({ "field": "task.title", "glob": "a*a" })).unwrap();
            assert_eq!(filter.matches(&Fields::of(&event)), expected, "{length}");
        }
    }

    #[test]
    fn groups_combine_conditions() {
        let (yes, no) = (json!({ "field": "taskId", "equals": "t1" }), json!({ "field": "taskId", "equals": "t2" }));
        assert!(matches(json!({ "all": [yes, { "any": [no, yes] }] })));
        assert!(!matches(json!({ "all": [yes, no] })) && !matches(json!({ "any": [no] })));
    }

    #[test]
    fn a_wrong_filter_is_refused_with_its_place_and_what_is_allowed() {
        let deep = (0..6).fold(json!({ "field": "event", "exists": true }), |inner, _| json!({ "all": [inner] }));
        let wide = json!({ "any": vec![json!({ "field": "event", "exists": true }); 51] });
        for (filter, words) in [
            (json!("acme"), "filter isn't an object"),
            (json!({ "all": [] }), "filter.all must be a list"),
            (json!({ "all": [{ "any": [7] }] }), "filter.all[0].any[0] isn't an object"),
            (json!({ "all": [], "any": [] }), "other keys"),
            (json!({ "field": "task.repo", "equals": "x" }), "use one of event, taskId"),
            (json!({ "equals": "x" }), "needs a \"field\""),
            (json!({ "field": "event" }), "needs one of equals, oneOf, glob"),
            (json!({ "field": "event", "equals": "a", "glob": "b" }), "only one of"),
            (json!({ "field": "event", "like": "b" }), "like"),
            (json!({ "field": "task.costUsd", "greaterThan": "much" }), "must be a number"),
            (json!({ "field": "event", "oneOf": [] }), "list of 1 to 100"),
            (json!({ "field": "event", "equals": { "a": 1 } }), "text, a number, true or false"),
            (json!({ "field": "event", "exists": "yes" }), "true or false"),
            (json!({ "field": "event", "glob": "x".repeat(2_000) }), "1024"),
            (deep, "nested deeper"),
            (wide, "at most 50"),
        ] {
            let problem = Filter::read(filter).unwrap_err().to_string();
            assert!(problem.starts_with("filter: ") && problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn a_filter_is_written_as_it_was_read() {
        let json = json!({ "any": [{ "field": "event", "exists": true }] });
        let filter: Filter = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&filter).unwrap(), json);
    }
}
