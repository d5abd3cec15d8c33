//! The answer of `/readyz` (`docs/reference.md`, section "Readiness").

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::conditions::{Condition, Severity};

/// Whether the process is ready, and what keeps it from that.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    ready: bool,
    parts: BTreeMap<&'static str, Part>,
    conditions: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Part {
    ready: bool,
    /// Why it is not ready.
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    severity: &'static str,
    reason: String,
    /// How long it has lasted, in whole seconds.
    #[serde(rename = "lastsS")]
    lasts_s: u64,
}

impl Answer {
    /// An answer from the parts, each with the reason why it is not ready, and the conditions.
    pub(super) fn new(
        parts: impl IntoIterator<Item = (&'static str, Option<String>)>,
        conditions: &[(String, Condition)],
    ) -> Self {
        let parts: BTreeMap<_, _> =
            parts.into_iter().map(|(name, reason)| (name, Part { ready: reason.is_none(), reason })).collect();
        let blocks = |condition: &Condition| condition.severity >= Severity::NotReady;
        Self {
            ready: parts.values().all(|part| part.ready) && !conditions.iter().any(|(_, condition)| blocks(condition)),
            parts,
            conditions: conditions
                .iter()
                .map(|(name, condition)| Shown {
                    name: name.clone(),
                    severity: if blocks(condition) { "not_ready" } else { "warning" },
                    reason: condition.reason.clone(),
                    lasts_s: condition.since.elapsed().as_secs(),
                })
                .collect(),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Conditions;

    fn answer(parts: [(&'static str, Option<String>); 2], conditions: &Conditions) -> (bool, String) {
        let answer = Answer::new(parts, &conditions.all());
        (answer.ready, serde_json::to_string(&answer).unwrap())
    }

    #[test]
    fn a_warning_leaves_the_process_ready_and_a_part_or_a_condition_does_not() {
        let conditions = Conditions::default();
        conditions.set("redis: key k", Severity::Warning, "\"WRONGTYPE\"");
        let (ready, text) = answer([("kafka", None), ("redis", None)], &conditions);
        assert!(ready);
        assert_eq!(
            text,
            r#"{"ready":true,"parts":{"kafka":{"ready":true,"reason":null},"redis":{"ready":true,"reason":null}},"conditions":[{"name":"redis: key k","severity":"warning","reason":"\"WRONGTYPE\"","lastsS":0}]}"#
        );
        assert!(!answer([("kafka", Some("away".into())), ("redis", None)], &conditions).0);
        conditions.set("kafka: commits of g", Severity::NotReady, "refused");
        assert!(!answer([("kafka", None), ("redis", None)], &conditions).0);
    }
}
