//! The page's payload as Slack takes it: a message for incoming webhooks, flat variables for workflows.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::PayloadFormat;
use crate::event::EventType;

/// Characters of a section's text that Slack takes; a longer one is refused with the whole message.
const SECTION_MAX: usize = 3_000;
/// Characters of a fact: Slack takes fields of 2,000, and the fact's name stands in there too.
const FACT_MAX: usize = 1_980;
/// Characters of a title or a link's text: what Slack takes as a header.
const LABEL_MAX: usize = 150;
/// Characters of a workflow's variable.
const VARIABLE_MAX: usize = 3_000;
/// Around text that is shown as it is.
const FENCE: &str = "```";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Payload {
    task_id: Option<String>,
    task: Option<Task>,
    timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Task {
    title: Option<String>,
    state: Option<String>,
    repo_url: Option<String>,
    pr_url: Option<String>,
    pr_number: Option<u64>,
    agent_type: Option<String>,
    cost_usd: Option<String>,
    error_message: Option<String>,
}

/// The hosts of Slack's incoming webhooks and workflow triggers.
pub const HOSTS: &[&str] = &["hooks.slack.com", "hooks.slack-gov.com"];

/// What `url` takes.
#[must_use]
pub fn takes(url: &Url) -> Takes {
    let is_workflow = ["/triggers/", "/workflows/"].iter().any(|path| url.path().starts_with(path));
    if PayloadFormat::preset(url) == PayloadFormat::Slack && is_workflow { Takes::Variables } else { Takes::Message }
}

/// In which form Slack is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A message made of blocks.
    Message,
    /// Texts by name, for a workflow: it takes neither blocks nor anything nested.
    Variables,
}

/// What tells of `payload`; of its event's name alone if that can't be read.
#[must_use]
pub fn body(event: EventType, payload: &[u8], takes: Takes) -> Bytes {
    let payload = serde_json::from_slice::<Payload>(payload).unwrap_or_default();
    let body = match takes {
        Takes::Message => message(event, &payload),
        Takes::Variables => variables(event, &payload),
    };
    body.to_string().into()
}

/// Every variable is always there, empty where it is unknown: a workflow refuses a request that lacks one of its own.
fn variables(event: EventType, payload: &Payload) -> Value {
    let unknown = Task::default();
    let task = payload.task.as_ref().unwrap_or(&unknown);
    let (_, happened) = headline(event);
    let text = |value: &Option<String>| cut(value.as_deref().unwrap_or_default(), VARIABLE_MAX);
    let named = [&task.title, &payload.task_id].into_iter().find_map(|name| present(name.as_ref()));
    json!({
        "event": event.as_str(),
        "text": cut(&named.map_or_else(|| happened.to_owned(), |name| format!("{happened}: {name}")), VARIABLE_MAX),
        "task_id": text(&payload.task_id),
        "title": text(&task.title),
        "state": text(&task.state),
        "repo_url": text(&task.repo_url),
        "pr_url": text(&task.pr_url),
        "pr_number": task.pr_number.map_or_else(String::new, |number| number.to_string()),
        "agent_type": text(&task.agent_type),
        "cost_usd": text(&task.cost_usd),
        "error_message": text(&task.error_message),
        "timestamp": text(&payload.timestamp),
    })
}

fn message(event: EventType, payload: &Payload) -> Value {
    match &payload.task {
        Some(task) => of_task(event, payload, task),
        None => of_task(event, payload, &Task::default()),
    }
}

fn of_task(event: EventType, payload: &Payload, task: &Task) -> Value {
    let (emoji, happened) = headline(event);
    let title = title(task, payload.task_id.as_ref());
    let (text, marked) = match &title {
        Some(title) => (format!("{happened}: {title}"), format!("{emoji} {happened}: *{title}*")),
        None => (happened.to_owned(), format!("{emoji} {happened}")),
    };
    let mut blocks = vec![section(&marked)];
    if let Some(error) = present(task.error_message.as_ref()).filter(|_| tells_error(event)) {
        let error = escaped(error, SECTION_MAX - 2 * FENCE.len());
        blocks.push(section(&format!("{FENCE}{error}{FENCE}")));
    }
    let facts = facts(task);
    if !facts.is_empty() {
        blocks.push(json!({ "type": "section", "fields": facts }));
    }
    if let Some(timestamp) = present(payload.timestamp.as_ref()) {
        blocks.push(json!({ "type": "context", "elements": [mrkdwn(&local_time(timestamp))] }));
    }
    json!({ "text": text, "blocks": blocks })
}

/// On one line, since a line break would end its bold type. A task without a title is named by its id.
fn title(task: &Task, task_id: Option<&String>) -> Option<String> {
    let name = present(task.title.as_ref()).or_else(|| present(task_id))?;
    Some(escaped(&name.split_whitespace().collect::<Vec<_>>().join(" "), LABEL_MAX))
}

/// An emoji, and what has happened.
fn headline(event: EventType) -> (&'static str, &'static str) {
    match event {
        EventType::TaskCompleted => (":white_check_mark:", "Task completed"),
        EventType::TaskFailed => (":x:", "Task failed"),
        EventType::TaskNeedsAttention => (":warning:", "Task needs attention"),
        EventType::TaskPrOpened => (":twisted_rightwards_arrows:", "Pull request opened"),
        EventType::ReviewCompleted => (":mag:", "Review completed"),
    }
}

/// A task that went on to complete may still carry the error of an earlier try.
fn tells_error(event: EventType) -> bool {
    matches!(event, EventType::TaskFailed | EventType::TaskNeedsAttention)
}

fn facts(task: &Task) -> Vec<Value> {
    let pr_number = task.pr_number.map(|number| format!("#{number}"));
    let pull_request = match present(task.pr_url.as_ref()) {
        Some(address) => Some(link(address, |_| pr_number.unwrap_or_else(|| "Open".to_owned()))),
        None => pr_number,
    };
    [
        ("Repository", present(task.repo_url.as_ref()).map(|address| link(address, repository))),
        ("Pull request", pull_request),
        ("Agent", present(task.agent_type.as_ref()).map(|agent| escaped(agent, FACT_MAX))),
        ("Cost", present(task.cost_usd.as_ref()).map(|cost| format!("${}", escaped(cost, FACT_MAX)))),
    ]
    .into_iter()
    .filter_map(|(name, fact)| Some(mrkdwn(&format!("*{name}*\n{}", fact?))))
    .collect()
}

/// `acme/backend` of `https://github.com/acme/backend.git`.
fn repository(url: &Url) -> String {
    let path = url.path().trim_matches('/');
    let name = path.strip_suffix(".git").unwrap_or(path);
    if name.is_empty() { url.as_str().to_owned() } else { name.to_owned() }
}

/// A link to an http or https address; anything else is shown as it is.
fn link(address: &str, label: impl FnOnce(&Url) -> String) -> String {
    let Some(url) = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return escaped(address, FACT_MAX);
    };
    let label = escaped(&label(&url), LABEL_MAX);
    let target = url.as_str().replace('|', "%7C").replace('<', "%3C").replace('>', "%3E").replace('&', "&amp;");
    let link = format!("<{target}|{label}>");
    // A link that lost its end would lead elsewhere.
    if link.chars().count() > FACT_MAX { label } else { link }
}

/// In the reader's time zone; what is no RFC 3339 in UTC is shown as it is.
fn local_time(timestamp: &str) -> String {
    let shown = escaped(timestamp, LABEL_MAX);
    let time = humantime::parse_rfc3339(timestamp).ok();
    match time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
        Some(since_epoch) => {
            let seconds = since_epoch.as_secs();
            format!("<!date^{seconds}^{{date_short_pretty}}, {{time_secs}}|{shown}>")
        }
        None => shown,
    }
}

fn section(text: &str) -> Value {
    json!({ "type": "section", "text": mrkdwn(text) })
}

/// `verbatim`, so that no name or address in foreign text becomes a mention or a link.
fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

fn present(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.trim().is_empty())
}

/// No more than `max` characters.
fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some(_) => text.chars().take(max - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// Foreign text with Slack's three control characters escaped, in `max` characters at most.
///
/// Each escape is kept whole or left out: half of one would be shown as it is.
fn escaped(text: &str, max: usize) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    let (mut length, mut fits_with_ellipsis) = (0, 0);
    for character in text.chars() {
        let piece = match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => &*character.encode_utf8(&mut buffer),
        };
        length += piece.chars().count();
        if length > max {
            escaped.truncate(fits_with_ellipsis);
            escaped.push('…');
            break;
        }
        escaped.push_str(piece);
        if length < max {
            fits_with_ellipsis = escaped.len();
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_slack(url: &Url) -> bool {
        PayloadFormat::preset(url) == PayloadFormat::Slack
    }

    fn told(event: EventType, task: &Value) -> Value {
        let payload =
            json!({ "event": event, "taskId": "t1", "task": task, "timestamp": "2025-03-26T10:12:34Z" }).to_string();
        serde_json::from_slice(&body(event, payload.as_bytes(), Takes::Message)).unwrap()
    }

    fn titled(event: EventType) -> Value {
        told(event, &json!({ "title": "Fix login", "repoUrl": null, "errorMessage": "exit code 1" }))
    }

    fn text(text: &str) -> Value {
        json!({ "type": "mrkdwn", "text": text, "verbatim": true })
    }

    #[test]
    fn a_completed_task_is_told_with_all_its_facts() {
        let task = json!({
            "id": "t1", "title": "Fix login", "state": "completed",
            "repoUrl": "https://github.com/acme/backend", "prUrl": "https://github.com/acme/backend/pull/142",
            "prNumber": 142, "agentType": "claude-code", "costUsd": "0.84", "completedAt": "2025-03-26T10:12:34Z"
        });
        let when = "<!date^1742983954^{date_short_pretty}, {time_secs}|2025-03-26T10:12:34Z>";
        assert_eq!(
            told(EventType::TaskCompleted, &task),
            json!({ "text": "Task completed: Fix login", "blocks": [
                { "type": "section", "text": text(":white_check_mark: Task completed: *Fix login*") },
                { "type": "section", "fields": [
                    text("*Repository*\n<https://github.com/acme/backend|acme/backend>"),
                    text("*Pull request*\n<https://github.com/acme/backend/pull/142|#142>"),
                    text("*Agent*\nclaude-code"),
                    text("*Cost*\n$0.84"),
                ] },
                { "type": "context", "elements": [text(when)] },
            ] })
        );
    }

    #[test]
    fn each_event_has_a_headline_of_its_own_and_only_one_that_calls_for_help_tells_the_error() {
        for (event, emoji, happened, tells_error) in [
            (EventType::TaskCompleted, ":white_check_mark:", "Task completed", false),
            (EventType::TaskFailed, ":x:", "Task failed", true),
            (EventType::TaskNeedsAttention, ":warning:", "Task needs attention", true),
            (EventType::TaskPrOpened, ":twisted_rightwards_arrows:", "Pull request opened", false),
            (EventType::ReviewCompleted, ":mag:", "Review completed", false),
        ] {
            let message = titled(event);
            assert_eq!(message["text"], format!("{happened}: Fix login"));
            assert_eq!(message["blocks"][0]["text"], text(&format!("{emoji} {happened}: *Fix login*")));
            assert_eq!(message["blocks"][1]["text"] == text("```exit code 1```"), tells_error);
            assert_eq!(message.to_string().contains("exit code 1"), tells_error);
        }
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let message = titled(EventType::TaskCompleted);
        assert_eq!(message["blocks"].as_array().unwrap().len(), 2);
        assert!(!message.to_string().contains("null"));
    }

    #[test]
    fn foreign_text_can_neither_mention_nor_link() {
        let message =
            told(EventType::TaskFailed, &json!({ "title": "<!channel>\n& co", "errorMessage": "a < b && *c*" }));
        assert_eq!(message["text"], "Task failed: &lt;!channel&gt; &amp; co");
        assert_eq!(message["blocks"][1]["text"]["text"], "```a &lt; b &amp;&amp; *c*```");
    }

    #[test]
    fn long_text_is_cut_to_slacks_limits_and_never_inside_an_escape() {
        for before in 0..6 {
            let cut = escaped(&("ü".repeat(before) + &"&".repeat(1_000)), LABEL_MAX);
            assert!(cut.chars().count() <= LABEL_MAX && cut.ends_with('…'));
            assert_eq!(cut.replace("&amp;", ""), "ü".repeat(before) + "…");
        }
        assert_eq!((escaped("abc", 3), escaped("abcd", 3)), ("abc".to_owned(), "ab…".to_owned()));
        let long = "<".repeat(10_000);
        let message = told(EventType::TaskFailed, &json!({ "title": &long, "errorMessage": &long, "costUsd": &long }));
        assert!(message["text"].as_str().unwrap().chars().count() <= 200);
        let characters = |text: &Value| text["text"].as_str().unwrap().chars().count();
        assert!(characters(&message["blocks"][1]["text"]) <= SECTION_MAX);
        assert!(characters(&message["blocks"][2]["fields"][0]) <= 2_000);
    }

    #[test]
    fn an_address_is_linked_only_if_it_is_http_and_cannot_end_its_link() {
        let link = |address: &str| link(address, repository);
        assert_eq!(link("javascript:alert('<x>')"), "javascript:alert('&lt;x&gt;')");
        assert_eq!(link("acme/backend"), "acme/backend");
        assert_eq!(link("https://git.test/a.git?b=|&c=>"), "<https://git.test/a.git?b=%7C&amp;c=%3E|a>");
        assert_eq!(link(&format!("https://git.test/a?{}", "b".repeat(2_000))), "a");
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_events_name() {
        for payload in [b"{}".as_slice(), b"", b"[1]", br#"{"task":null}"#, br#"{"task":{"title":null}}"#] {
            let message: Value = serde_json::from_slice(&body(EventType::TaskFailed, payload, Takes::Message)).unwrap();
            assert_eq!(message["text"], "Task failed");
            assert_eq!(message["blocks"], json!([{ "type": "section", "text": text(":x: Task failed") }]));
        }
    }

    #[test]
    fn a_task_without_a_title_is_named_by_its_id() {
        let message = told(EventType::TaskCompleted, &json!({ "title": null, "prNumber": null }));
        assert_eq!(message["text"], "Task completed: t1");
    }

    #[test]
    fn a_workflow_gets_each_variable_as_a_text_whatever_is_unknown() {
        let task =
            json!({ "title": "a < b & c", "prNumber": 142, "costUsd": null, "errorMessage": "x".repeat(10_000) });
        for (payload, pr_number) in [(json!({ "taskId": "t1", "task": task }), "142"), (json!({ "task": null }), "")] {
            let told = body(EventType::TaskFailed, payload.to_string().as_bytes(), Takes::Variables);
            let variables: serde_json::Map<String, Value> = serde_json::from_slice(&told).unwrap();
            assert_eq!(variables.len(), 12);
            assert!(variables.values().all(|value| value.as_str().is_some_and(|text| text.chars().count() <= 3_000)));
            assert_eq!((&variables["event"], &variables["pr_number"]), (&json!("task.failed"), &json!(pr_number)));
        }
        let told = body(EventType::TaskFailed, json!({ "task": task }).to_string().as_bytes(), Takes::Variables);
        let variables: Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(variables["text"], "Task failed: a < b & c");
    }

    #[test]
    fn only_slacks_own_hosts_are_slack() {
        let is_slack = |url: &str| is_slack(&Url::parse(url).unwrap());
        assert!(is_slack("https://hooks.slack.com/services/T0/B0/x"));
        assert!(is_slack("https://HOOKS.slack-gov.com/services/T0/B0/x"));
        assert!(is_slack("https://hooks.slack.com./services/T0/B0/x") && is_slack("https://Hooks.Slack.com:8443/"));
        assert!(!is_slack("https://hooks.slack.com.example.org/services"));
        let takes = |url: &str| takes(&Url::parse(url).unwrap());
        assert_eq!(takes("https://hooks.slack.com./triggers/T0/1/x"), Takes::Variables);
        assert_eq!(takes("https://hooks.slack-gov.com/workflows/T0/A0/1/x"), Takes::Variables);
        assert_eq!(takes("https://hooks.slack.com/services/T0/B0/triggers/"), Takes::Message);
        assert_eq!(takes("https://chat.example.com/triggers/x"), Takes::Message);
    }
}
