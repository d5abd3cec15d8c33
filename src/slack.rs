//! The page's payload as a message that Slack's incoming webhooks take.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::event::EventType;

/// Characters of a section's text that Slack takes; a longer one is refused with the whole message.
const SECTION_MAX: usize = 3_000;
/// Characters of a fact: Slack takes fields of 2,000, and the fact's name stands in there too.
const FACT_MAX: usize = 1_980;
/// Characters of a title or a link's text: what Slack takes as a header.
const LABEL_MAX: usize = 150;
/// Around text that is shown as it is.
const FENCE: &str = "```";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    task_id: String,
    task: Task,
    timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    title: String,
    repo_url: Option<String>,
    pr_url: Option<String>,
    pr_number: Option<u64>,
    agent_type: Option<String>,
    cost_usd: Option<String>,
    error_message: Option<String>,
}

/// Whether `url` is an incoming webhook of Slack's.
#[must_use]
pub fn is_slack(url: &Url) -> bool {
    matches!(url.host_str(), Some("hooks.slack.com" | "hooks.slack-gov.com"))
}

/// The message that tells of `payload`; of its event's name alone if it can't be read.
#[must_use]
pub fn message(event: EventType, payload: &[u8]) -> Bytes {
    let message = match serde_json::from_slice::<Payload>(payload) {
        Ok(payload) => of_payload(event, &payload),
        Err(_) => json!({ "text": event.as_str(), "blocks": [section(event.as_str())] }),
    };
    message.to_string().into()
}

fn of_payload(event: EventType, payload: &Payload) -> Value {
    let Payload { task_id, task, timestamp } = payload;
    let title = title(task, task_id);
    let (emoji, happened) = headline(event);
    let mut blocks = vec![section(&format!("{emoji} {happened}: *{title}*"))];
    if let Some(error) = present(task.error_message.as_ref()).filter(|_| tells_error(event)) {
        let error = escaped(error, SECTION_MAX - 2 * FENCE.len());
        blocks.push(section(&format!("{FENCE}{error}{FENCE}")));
    }
    let facts = facts(task);
    if !facts.is_empty() {
        blocks.push(json!({ "type": "section", "fields": facts }));
    }
    if let Some(timestamp) = present(timestamp.as_ref()) {
        blocks.push(json!({ "type": "context", "elements": [mrkdwn(&local_time(timestamp))] }));
    }
    json!({ "text": format!("{happened}: {title}"), "blocks": blocks })
}

/// On one line, since a line break would end its bold type.
fn title(task: &Task, task_id: &str) -> String {
    let words: Vec<&str> = task.title.split_whitespace().collect();
    if words.is_empty() { escaped(task_id, LABEL_MAX) } else { escaped(&words.join(" "), LABEL_MAX) }
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

    fn told(event: EventType, task: &Value) -> Value {
        let payload =
            json!({ "event": event, "taskId": "t1", "task": task, "timestamp": "2025-03-26T10:12:34Z" }).to_string();
        serde_json::from_slice(&message(event, payload.as_bytes())).unwrap()
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
        let message = told(EventType::TaskFailed, &json!({ "title": "x", "errorMessage": &long, "costUsd": &long }));
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
        let message: Value = serde_json::from_slice(&message(EventType::TaskFailed, b"{}")).unwrap();
        assert_eq!(message["text"], "task.failed");
        assert_eq!(message["blocks"], json!([{ "type": "section", "text": text("task.failed") }]));
    }

    #[test]
    fn only_slacks_own_hosts_are_slack() {
        let is_slack = |url: &str| is_slack(&Url::parse(url).unwrap());
        assert!(is_slack("https://hooks.slack.com/services/T0/B0/x"));
        assert!(is_slack("https://HOOKS.slack-gov.com/services/T0/B0/x"));
        assert!(!is_slack("https://hooks.slack.com.example.org/services"));
    }
}
