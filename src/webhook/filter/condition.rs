//! One condition on one field.

use serde_json::{Map, Value};
use wildmatch::WildMatch;

use super::fields::{FIELDS, Fields};

/// The most values of `oneOf`.
const VALUES_MAX: usize = 100;
/// The longest text in a condition, in bytes.
const TEXT_MAX: usize = 1_024;
/// The longest value that a glob can match, in bytes. Matching takes up to its length times that of the pattern, and
/// every filter of an event is evaluated before any of its deliveries.
const GLOBBED_MAX: usize = 1_024;

/// A condition: a field, and what its value must be.
#[derive(Debug, Clone)]
pub struct Condition {
    field: &'static str,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    OneOf(Vec<Value>),
    Glob(WildMatch),
    Exists(bool),
    Number(Comparison, f64),
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    GreaterThan,
    AtLeast,
    LessThan,
    AtMost,
}

const OPERATORS: [&str; 8] = ["equals", "oneOf", "glob", "exists", "greaterThan", "atLeast", "lessThan", "atMost"];

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn read(object: &Map<String, Value>) -> Result<Self, String> {
        let Some(Value::String(name)) = object.get("field") else {
            return Err("a condition needs a \"field\", such as \"task.repoUrl\"".to_owned());
        };
        let field = FIELDS.into_iter().find(|field| field == name);
        let field =
            field.ok_or_else(|| format!("there is no field {}; use one of {}", short(name), FIELDS.join(", ")))?;
        if let Some(unknown) = object.keys().find(|key| *key != "field" && !OPERATORS.contains(&key.as_str())) {
            return Err(format!("{} isn't known; use one of {}", short(unknown), OPERATORS.join(", ")));
        }
        let mut tests = object.iter().filter(|(key, _)| *key != "field");
        let Some((operator, value)) = tests.next() else {
            return Err(format!("{field} needs one of {}", OPERATORS.join(", ")));
        };
        if tests.next().is_some() {
            return Err(format!("{field} has several of {}; only one of them is allowed", OPERATORS.join(", ")));
        }
        let test = Test::read(operator, value).map_err(|problem| format!("{operator} of {field} {problem}"))?;
        Ok(Self { field, test })
    }

    /// Whether the event fulfils the condition.
    pub fn matches(&self, event: &Fields) -> bool {
        let value = event.get(self.field);
        match (&self.test, value) {
            (Test::Exists(expected), value) => value.is_some() == *expected,
            (_, None) => false,
            (Test::OneOf(allowed), Some(value)) => allowed.iter().any(|allowed| is_same(allowed, value)),
            (Test::Glob(glob), Some(Value::String(text))) => text.len() <= GLOBBED_MAX && glob.matches(text),
            // The others are numbers, true and false, which are short.
            (Test::Glob(glob), Some(value)) => glob.matches(&value.to_string()),
            (Test::Number(comparison, limit), Some(value)) => {
                number(value).is_some_and(|value| comparison.holds(value, *limit))
            }
        }
    }
}

impl Test {
    fn read(operator: &str, value: &Value) -> Result<Self, String> {
        let limit = |comparison| {
            let limit = number(value).ok_or("must be a number, such as 1.5")?;
            Ok(Self::Number(comparison, limit))
        };
        match operator {
            "equals" => Ok(Self::OneOf(vec![plain(value)?])),
            "oneOf" => match value {
                Value::Array(values) if (1..=VALUES_MAX).contains(&values.len()) => {
                    Ok(Self::OneOf(values.iter().map(plain).collect::<Result<_, _>>()?))
                }
                _ => Err(format!("must be a list of 1 to {VALUES_MAX} values")),
            },
            "glob" => match plain(value)? {
                Value::String(pattern) => Ok(Self::Glob(WildMatch::new(&pattern))),
                _ => Err("must be a text in which * stands for any characters and ? for one".to_owned()),
            },
            "exists" => value.as_bool().map(Self::Exists).ok_or_else(|| "must be true or false".to_owned()),
            "greaterThan" => limit(Comparison::GreaterThan),
            "atLeast" => limit(Comparison::AtLeast),
            "lessThan" => limit(Comparison::LessThan),
            _ => limit(Comparison::AtMost),
        }
    }
}

impl Comparison {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::GreaterThan => value > limit,
            Self::AtLeast => value >= limit,
            Self::LessThan => value < limit,
            Self::AtMost => value <= limit,
        }
    }
}

/// A value that a field can be compared with.
fn plain(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) if text.len() > TEXT_MAX => Err(format!("is longer than {TEXT_MAX} bytes")),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(value.clone()),
        _ => Err("must be a text, a number, true or false".to_owned()),
    }
}

/// Whether two values are the same. A text that is a number is the same as the number, because some fields, such as
/// `task.costUsd`, are numbers written as texts.
fn is_same(allowed: &Value, value: &Value) -> bool {
    if allowed == value {
        return true;
    }
    let is_number = allowed.is_number() || value.is_number();
    is_number && number(allowed).is_some_and(|allowed| number(value) == Some(allowed))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number| number.is_finite())
}

/// A text from outside, quoted and cut.
fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}
