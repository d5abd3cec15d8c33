//! Renders the payload for Slack: as a message for incoming webhooks, or as flat variables for workflows.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::PayloadFormat;
use crate::event::EventType;

/// The longest text of a section, in characters. Slack refuses a message with a longer one.
const SECTION_MAX: usize = 3_000;
/// The longest value of a fact, in characters. Slack accepts fields of 2,000 characters, which include the fact's name.
const FACT_MAX: usize = 1_980;
/// The longest title or link text, in characters: Slack's limit for a header.
const LABEL_MAX: usize = 150;
/// The longest variable of a workflow, in characters.
const VARIABLE_MAX: usize = 3_000;
/// The delimiter of text that Slack shows without formatting.
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

/// Returns the shape that `url` accepts.
#[must_use]
pub fn shape(url: &Url) -> Shape {
    let is_workflow = ["/triggers/", "/workflows/"].iter().any(|path| url.path().starts_with(path));
    if PayloadFormat::preset(url) == PayloadFormat::Slack && is_workflow { Shape::Variables } else { Shape::Message }
}

/// The shape of a body for Slack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A message made of blocks.
    Message,
    /// A flat object of texts for a workflow, which accepts neither blocks nor nested values.
    Variables,
}

/// Renders `payload` in a shape for Slack. If the payload can't be read, the body names only the event type.
#[must_use]
pub fn body(event: EventType, payload: &[u8], shape: Shape) -> Bytes {
    let payload = serde_json::from_slice::<Payload>(payload).unwrap_or_default();
    let body = match shape {
        Shape::Message => message(event, &payload),
        Shape::Variables => variables(event, &payload),
    };
    body.to_string().into()
}

/// Renders the variables of a workflow. Every variable is present, and an unknown one is empty, because a workflow
/// refuses a request that lacks one of its variables.
fn variables(event: EventType, payload: &Payload) -> Value {
    let unknown = Task::default();
    let task = payload.task.as_ref().unwrap_or(&unknown);
    let (_, headline) = headline(event);
    let text = |value: &Option<String>| cut(value.as_deref().unwrap_or_default(), VARIABLE_MAX);
    let named = [&task.title, &payload.task_id].into_iter().find_map(|name| present(name.as_ref()));
    json!({
        "event": event.as_str(),
        "text": cut(&named.map_or_else(|| headline.to_owned(), |name| format!("{headline}: {name}")), VARIABLE_MAX),
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
    let (emoji, headline) = headline(event);
    let title = title(task, payload.task_id.as_ref());
    let (text, marked) = match &title {
        Some(title) => (format!("{headline}: {title}"), format!("{emoji} {headline}: *{title}*")),
        None => (headline.to_owned(), format!("{emoji} {headline}")),
    };
    let mut blocks = vec![section(&marked)];
    if let Some(error) = present(task.error_message.as_ref()).filter(|_| shows_error(event)) {
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

/// Returns the title, or the id of a task without one. It is on one line, because a line break would end its bold type.
fn title(task: &Task, task_id: Option<&String>) -> Option<String> {
    let name = present(task.title.as_ref()).or_else(|| present(task_id))?;
    Some(escaped(&name.split_whitespace().collect::<Vec<_>>().join(" "), LABEL_MAX))
}

/// Returns the emoji and the headline of an event type.
fn headline(event: EventType) -> (&'static str, &'static str) {
    match event {
        EventType::TaskCompleted => (":white_check_mark:", "Task completed"),
        EventType::TaskFailed => (":x:", "Task failed"),
        EventType::TaskNeedsAttention => (":warning:", "Task needs attention"),
        EventType::TaskPrOpened => (":twisted_rightwards_arrows:", "Pull request opened"),
        EventType::ReviewCompleted => (":mag:", "Review completed"),
    }
}

/// Whether the message shows the task's error. A completed task may still carry the error of an earlier run.
fn shows_error(event: EventType) -> bool {
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

/// Returns the name of a repository, such as `acme/backend` for `https://github.com/acme/backend.git`.
fn repository(url: &Url) -> String {
    let path = url.path().trim_matches('/');
    let name = path.strip_suffix(".git").unwrap_or(path);
    if name.is_empty() { url.as_str().to_owned() } else { name.to_owned() }
}

/// Renders a link to an http or https address. Any other text is shown without a link.
fn link(address: &str, label: impl FnOnce(&Url) -> String) -> String {
    let Some(url) = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return escaped(address, FACT_MAX);
    };
    let label = escaped(&label(&url), LABEL_MAX);
    let target = url.as_str().replace('|', "%7C").replace('<', "%3C").replace('>', "%3E").replace('&', "&amp;");
    let link = format!("<{target}|{label}>");
    // A link can't be cut, because it would lead elsewhere.
    if link.chars().count() > FACT_MAX { label } else { link }
}

/// Renders a time, which Slack shows in the reader's time zone. Text that isn't RFC 3339 in UTC is shown unchanged.
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

/// Renders a text with `verbatim`, so that no name or address in foreign text becomes a mention or a link.
fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

fn present(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.trim().is_empty())
}

/// Cuts a text to at most `max` characters.
fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some(_) => text.chars().take(max - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// Escapes Slack's three control characters in foreign text, and cuts the result to at most `max` characters.
///
/// An escape is kept whole or left out, because Slack would show a part of one as plain text.
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

    fn rendered(event: EventType, task: &Value) -> Value {
        let payload =
            json!({ "event": event, "taskId": "t1", "task": task, "timestamp": "2025-03-26T10:12:34Z" }).to_string();
        serde_json::from_slice(&body(event, payload.as_bytes(), Shape::Message)).unwrap()
    }

    fn titled(event: EventType) -> Value {
        rendered(event, &json!({ "title": "Fix login", "repoUrl": null, "errorMessage": "exit code 1" }))
    }

    fn text(text: &str) -> Value {
        json!({ "type": "mrkdwn", "text": text, "verbatim": true })
    }

    #[test]
    fn the_message_of_a_completed_task_has_all_its_facts() {
        let task = json!({
            "id": "t1", "title": "Fix login", "state": "completed",
            "repoUrl": "https://github.com/acme/backend", "prUrl": "https://github.com/acme/backend/pull/142",
            "prNumber": 142, "agentType": "claude-code", "costUsd": "0.84", "completedAt": "2025-03-26T10:12:34Z"
        });
        let when = "<!date^1742983954^{date_short_pretty}, {time_secs}|2025-03-26T10:12:34Z>";
        assert_eq!(
            rendered(EventType::TaskCompleted, &task),
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
    fn each_event_type_has_its_headline_and_only_two_show_the_error() {
        for (event, emoji, headline, shows_error) in [
            (EventType::TaskCompleted, ":white_check_mark:", "Task completed", false),
            (EventType::TaskFailed, ":x:", "Task failed", true),
            (EventType::TaskNeedsAttention, ":warning:", "Task needs attention", true),
            (EventType::TaskPrOpened, ":twisted_rightwards_arrows:", "Pull request opened", false),
            (EventType::ReviewCompleted, ":mag:", "Review completed", false),
        ] {
            let message = titled(event);
            assert_eq!(message["text"], format!("{headline}: Fix login"));
            assert_eq!(message["blocks"][0]["text"], text(&format!("{emoji} {headline}: *Fix login*")));
            assert_eq!(message["blocks"][1]["text"] == text("```exit code 1```"), shows_error);
            assert_eq!(message.to_string().contains("exit code 1"), shows_error);
        }
    }

    #[test]
    fn unknown_values_are_left_out_of_the_message() {
        let message = titled(EventType::TaskCompleted);
        assert_eq!(message["blocks"].as_array().unwrap().len(), 2);
        assert!(!message.to_string().contains("null"));
    }

    #[test]
    fn foreign_text_can_neither_mention_nor_link() {
        let message =
            rendered(EventType::TaskFailed, &json!({ "title": "<!channel>\n& co", "errorMessage": "a < b && *c*" }));
        assert_eq!(message["text"], "Task failed: &lt;!channel&gt; &amp; co");
        assert_eq!(message["blocks"][1]["text"]["text"], "```a &lt; b &amp;&amp; *c*```");
    }

    #[test]
    fn long_text_is_cut_to_slacks_limits_but_not_inside_an_escape() {
        for before in 0..6 {
            let cut = escaped(&("ü".repeat(before) + &"&".repeat(1_000)), LABEL_MAX);
            assert!(cut.chars().count() <= LABEL_MAX && cut.ends_with('…'));
            assert_eq!(cut.replace("&amp;", ""), "ü".repeat(before) + "…");
        }
        assert_eq!((escaped("abc", 3), escaped("abcd", 3)), ("abc".to_owned(), "ab…".to_owned()));
        let long = "<".repeat(10_000);
        let message =
            rendered(EventType::TaskFailed, &json!({ "title": &long, "errorMessage": &long, "costUsd": &long }));
        assert!(message["text"].as_str().unwrap().chars().count() <= 200);
        let characters = |text: &Value| text["text"].as_str().unwrap().chars().count();
        assert!(characters(&message["blocks"][1]["text"]) <= SECTION_MAX);
        assert!(characters(&message["blocks"][2]["fields"][0]) <= 2_000);
    }

    #[test]
    fn only_an_http_address_is_linked_and_it_cannot_end_its_link() {
        let link = |address: &str| link(address, repository);
        assert_eq!(link("javascript:alert('<x>')"), "javascript:alert('&lt;x&gt;')");
        assert_eq!(link("acme/backend"), "acme/backend");
        assert_eq!(link("https://git.test/a.git?b=|&c=>"), "<https://git.test/a.git?b=%7C&amp;c=%3E|a>");
        assert_eq!(link(&format!("https://git.test/a?{}", "b".repeat(2_000))), "a");
    }

    #[test]
    fn the_message_of_an_unreadable_payload_names_only_the_event() {
        for payload in [b"{}".as_slice(), b"", b"[1]", br#"{"task":null}"#, br#"{"task":{"title":null}}"#] {
            let message: Value = serde_json::from_slice(&body(EventType::TaskFailed, payload, Shape::Message)).unwrap();
            assert_eq!(message["text"], "Task failed");
            assert_eq!(message["blocks"], json!([{ "type": "section", "text": text(":x: Task failed") }]));
        }
    }

    #[test]
    fn a_task_without_a_title_is_named_by_its_id() {
        let message = rendered(EventType::TaskCompleted, &json!({ "title": null, "prNumber": null }));
        assert_eq!(message["text"], "Task completed: t1");
    }

    #[test]
    fn a_workflow_gets_every_variable_as_a_text_even_if_unknown() {
        let task =
            json!({ "title": "a < b & c", "prNumber": 142, "costUsd": null, "errorMessage": "x".repeat(10_000) });
        for (payload, pr_number) in [(json!({ "taskId": "t1", "task": task }), "142"), (json!({ "task": null }), "")] {
            let rendered = body(EventType::TaskFailed, payload.to_string().as_bytes(), Shape::Variables);
            let variables: serde_json::Map<String, Value> = serde_json::from_slice(&rendered).unwrap();
            assert_eq!(variables.len(), 12);
            assert!(variables.values().all(|value| value.as_str().is_some_and(|text| text.chars().count() <= 3_000)));
            assert_eq!((&variables["event"], &variables["pr_number"]), (&json!("task.failed"), &json!(pr_number)));
        }
        let rendered = body(EventType::TaskFailed, json!({ "task": task }).to_string().as_bytes(), Shape::Variables);
        let variables: Value = serde_json::from_slice(&rendered).unwrap();
        assert_eq!(variables["text"], "Task failed: a < b & c");
    }

    #[test]
    fn only_slacks_hosts_and_paths_get_its_shapes() {
        let is_slack = |url: &str| is_slack(&Url::parse(url).unwrap());
        assert!(is_slack("https://hooks.slack.com/services/T0/B0/x"));
        assert!(is_slack("https://HOOKS.slack-gov.com/services/T0/B0/x"));
        assert!(is_slack("https://hooks.slack.com./services/T0/B0/x") && is_slack("https://Hooks.Slack.com:8443/"));
        assert!(!is_slack("https://hooks.slack.com.example.org/services"));
        let shape = |url: &str| shape(&Url::parse(url).unwrap());
        assert_eq!(shape("https://hooks.slack.com./triggers/T0/1/x"), Shape::Variables);
        assert_eq!(shape("https://hooks.slack-gov.com/workflows/T0/A0/1/x"), Shape::Variables);
        assert_eq!(shape("https://hooks.slack.com/services/T0/B0/triggers/"), Shape::Message);
        assert_eq!(shape("https://chat.example.com/triggers/x"), Shape::Message);
    }
}
