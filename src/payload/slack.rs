//! Renders the payload for Slack: as a message for incoming webhooks, or as flat variables for workflows.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde_json::{Value, json};
use url::Url;

use super::PayloadFormat;
use super::message::{Message, one_line, present};

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

/// Renders a message in a shape for Slack.
#[must_use]
pub fn body(message: &Message, event: &str, shape: Shape) -> Bytes {
    let body = match shape {
        Shape::Message => blocks(message),
        Shape::Variables => variables(message, event),
    };
    body.to_string().into()
}

/// Renders the variables of a workflow. Every variable is present, and an unknown one is empty, because a workflow
/// refuses a request that lacks one of its variables.
fn variables(message: &Message, event: &str) -> Value {
    let task = &message.task;
    let text = |value: &Option<String>| cut(value.as_deref().unwrap_or_default(), VARIABLE_MAX);
    let mut variables = json!({
        "event": event,
        "text": cut(&message.title(), VARIABLE_MAX),
        "task_id": text(&message.task_id),
        "title": text(&task.title),
        "state": text(&task.state),
        "repo_url": text(&task.repo_url),
        "pr_url": text(&task.pr_url),
        "pr_number": task.pr_number.map_or_else(String::new, |number| number.to_string()),
        "agent_type": text(&task.agent_type),
        "cost_usd": text(&task.cost_usd),
        "error_message": text(&task.error_message),
        "timestamp": text(&message.timestamp),
    });
    if let Some(url) = &message.task_url {
        variables["task_url"] = cut(url.as_str(), VARIABLE_MAX).into();
    }
    variables
}

fn blocks(message: &Message) -> Value {
    let headline = message.headline;
    let title = message.name.as_ref().map(|name| escaped(name, LABEL_MAX));
    let (text, marked) = match &title {
        Some(title) => {
            (format!("{}: {title}", headline.text), format!("{} {}: *{title}*", headline.slack_emoji, headline.text))
        }
        None => (headline.text.to_owned(), format!("{} {}", headline.slack_emoji, headline.text)),
    };
    let mut blocks = vec![section(&marked)];
    if let Some(error) = &message.error {
        let error = escaped(error, SECTION_MAX - 2 * FENCE.len());
        blocks.push(section(&format!("{FENCE}{error}{FENCE}")));
    }
    let facts: Vec<Value> = message
        .facts()
        .into_iter()
        .map(|(name, text, url)| {
            let fact = url.map_or_else(|| escaped(&text, FACT_MAX), |url| link(&url, &text));
            mrkdwn(&format!("*{name}*\n{fact}"))
        })
        .collect();
    if !facts.is_empty() {
        blocks.push(json!({ "type": "section", "fields": facts }));
    }
    let time = present(message.timestamp.as_ref()).map(local_time);
    let task = message.task_url.as_ref().map(|url| link(url, message.link_label));
    let context: Vec<Value> = time.into_iter().chain(task).map(|text| mrkdwn(&text)).collect();
    if !context.is_empty() {
        blocks.push(json!({ "type": "context", "elements": context }));
    }
    json!({ "text": text, "blocks": blocks })
}

/// Renders a link.
fn link(url: &Url, label: &str) -> String {
    let label = escaped(label, LABEL_MAX);
    let target = url.as_str().replace('|', "%7C").replace('<', "%3C").replace('>', "%3E").replace('&', "&amp;");
    let link = format!("<{target}|{label}>");
    // A link can't be cut, because it would lead elsewhere.
    if link.chars().count() > FACT_MAX { label } else { link }
}

/// Renders a time, which Slack shows in the reader's time zone. Text that isn't RFC 3339 in UTC is shown unchanged.
fn local_time(timestamp: &str) -> String {
    let shown = escaped(&one_line(timestamp), LABEL_MAX);
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
    use super::super::message::{
        tests::{hostile_events, payload},
        web,
    };
    use super::*;
    use crate::event::EventType;

    fn rendered_body(event: EventType, payload: &[u8], shape: Shape) -> Value {
        let message = Message::read(event, payload, "");
        serde_json::from_slice(&body(&message, event.as_str(), shape)).unwrap()
    }

    fn is_slack(url: &Url) -> bool {
        PayloadFormat::preset(url) == PayloadFormat::Slack
    }

    fn rendered(event: EventType, task: &Value) -> Value {
        let payload =
            json!({ "event": event, "taskId": "t1", "task": task, "timestamp": "2025-03-26T10:12:34Z" }).to_string();
        rendered_body(event, payload.as_bytes(), Shape::Message)
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
        let fact = |address: &str| {
            let message = rendered(EventType::TaskCompleted, &json!({ "repoUrl": address }));
            let fact = message["blocks"][1]["fields"][0]["text"].as_str().unwrap().to_owned();
            fact.strip_prefix("*Repository*\n").unwrap().to_owned()
        };
        assert_eq!(fact("javascript:alert('<x>')"), "javascript:alert('&lt;x&gt;')");
        assert_eq!(fact("acme/backend"), "acme/backend");
        assert_eq!(fact("https://git.test/a.git?b=|&c=>"), "<https://git.test/a.git?b=%7C&amp;c=%3E|a>");
        assert_eq!(fact(&format!("https://git.test/a?{}", "b".repeat(2_000))), "a");
        assert!(web("ftp://git.test/").is_none());
    }

    #[test]
    fn no_text_breaks_slacks_limits() {
        let length = |text: &Value| text["text"].as_str().unwrap().chars().count();
        for (text, event) in hostile_events() {
            let message = Message::read(event, &payload(&text), "https://optio.example.com");
            let message: Value = serde_json::from_slice(&body(&message, event.as_str(), Shape::Message)).unwrap();
            assert!((1..=3_000).contains(&length(&message)));
            for block in message["blocks"].as_array().unwrap() {
                match block["type"].as_str().unwrap() {
                    "section" if block.get("text").is_some() => assert!((1..=3_000).contains(&length(&block["text"]))),
                    "section" => {
                        let fields = block["fields"].as_array().unwrap();
                        assert!(fields.len() <= 10 && fields.iter().all(|field| (1..=2_000).contains(&length(field))));
                    }
                    "context" => assert!(block["elements"].as_array().unwrap().len() <= 10),
                    other => panic!("{other}"),
                }
            }
        }
    }

    #[test]
    fn the_message_of_an_unreadable_payload_names_only_the_event() {
        for payload in [b"{}".as_slice(), b"", b"[1]", br#"{"task":null}"#, br#"{"task":{"title":null}}"#] {
            let message = rendered_body(EventType::TaskFailed, payload, Shape::Message);
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
            let rendered = rendered_body(EventType::TaskFailed, payload.to_string().as_bytes(), Shape::Variables);
            let variables = rendered.as_object().unwrap();
            assert_eq!(variables.len(), 12);
            assert!(variables.values().all(|value| value.as_str().is_some_and(|text| text.chars().count() <= 3_000)));
            assert_eq!((&variables["event"], &variables["pr_number"]), (&json!("task.failed"), &json!(pr_number)));
        }
        let task = json!({ "task": task }).to_string();
        let variables = rendered_body(EventType::TaskFailed, task.as_bytes(), Shape::Variables);
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
