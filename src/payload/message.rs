//! What a message for people says about an event. The formats for chats render it, each with its own limits.

use serde::Deserialize;
use url::Url;

use crate::event::{Event, EventType};
use crate::printable::is_control;

/// An event as messages show it.
#[derive(Debug, Default)]
pub struct Message {
    /// The emoji and the headline of the event type.
    pub headline: Headline,
    /// The title of the task, or its id if it has no title; on one line.
    pub name: Option<String>,
    /// The id of the task.
    pub task_id: Option<String>,
    /// The page of the task in Optio's web app, if `webhooks.public_url` is set; for an operational event the page of
    /// the webhook.
    pub task_url: Option<Url>,
    /// The label of that link.
    pub link_label: &'static str,
    /// How many deliveries or attempts an operational event is about.
    pub affected: Option<u64>,
    /// The task after the transition.
    pub task: Task,
    /// The time of the transition, as the producer wrote it.
    pub timestamp: Option<String>,
    /// The error of the task, if the event is about one. A completed task may still carry the error of an earlier run.
    pub error: Option<String>,
}

/// The emoji and the headline of an event type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headline {
    /// The emoji.
    pub emoji: &'static str,
    /// The name of the emoji in Slack.
    pub slack_emoji: &'static str,
    /// The headline.
    pub text: &'static str,
    /// The colour of the event, as RGB.
    pub colour: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Payload {
    task_id: Option<String>,
    task: Option<Task>,
    timestamp: Option<String>,
    webhook: Option<Subject>,
    reason: Option<String>,
    affected: Option<u64>,
    url: Option<String>,
}

/// The webhook that an operational event is about.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Subject {
    description: Option<String>,
    host: Option<String>,
}

/// The task of a payload.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Task {
    pub title: Option<String>,
    pub state: Option<String>,
    pub repo_url: Option<String>,
    pub pr_url: Option<String>,
    pub pr_number: Option<u64>,
    pub agent_type: Option<String>,
    pub cost_usd: Option<String>,
    pub error_message: Option<String>,
}

impl Message {
    /// Reads the event's payload. A payload that can't be read gives a message with only the headline.
    #[must_use]
    pub fn of(event: &Event, public_url: &str) -> Self {
        Self::read(event.event_type, &event.body, public_url)
    }

    /// Reads a payload in Optio's format.
    #[must_use]
    pub fn read(event_type: EventType, payload: &[u8], public_url: &str) -> Self {
        let payload: Payload = serde_json::from_slice(payload).unwrap_or_default();
        if event_type.is_operational() {
            return Self::operational(event_type, payload);
        }
        let Payload { task_id, task, timestamp, .. } = payload;
        let task = task.unwrap_or_default();
        let name = present(task.title.as_ref()).or_else(|| present(task_id.as_ref())).map(one_line);
        let shows_error = matches!(event_type, EventType::TaskFailed | EventType::TaskNeedsAttention);
        Self {
            headline: headline(event_type),
            name: name.filter(|name| !name.is_empty()),
            task_url: present(task_id.as_ref()).and_then(|id| task_url(public_url, id)),
            error: present(task.error_message.as_ref()).filter(|_| shows_error).and_then(lines),
            task_id,
            task,
            timestamp,
            link_label: "View task",
            affected: None,
        }
    }

    fn operational(event_type: EventType, payload: Payload) -> Self {
        let Subject { description, host } = payload.webhook.unwrap_or_default();
        let name = present(description.as_ref()).or_else(|| present(host.as_ref())).map(one_line);
        let reason = present(payload.reason.as_ref()).and_then(lines);
        Self {
            headline: headline(event_type),
            task: Task { title: name.clone(), error_message: reason.clone(), ..Task::default() },
            name: name.filter(|name| !name.is_empty()),
            task_url: present(payload.url.as_ref()).and_then(web),
            error: reason,
            timestamp: payload.timestamp,
            link_label: "View webhook",
            affected: payload.affected,
            task_id: None,
        }
    }

    /// The headline with the name of the task.
    #[must_use]
    pub fn title(&self) -> String {
        self.name
            .as_ref()
            .map_or_else(|| self.headline.text.to_owned(), |name| format!("{}: {name}", self.headline.text))
    }

    /// The facts that are known, each as a name, a text, and a link if it has one.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String, Option<Url>)> {
        let task = &self.task;
        let number = task.pr_number.map(|number| format!("#{number}"));
        let repository = present(task.repo_url.as_ref()).map(|address| match web(address) {
            Some(url) => (repository(&url), Some(url)),
            None => (one_line(address), None),
        });
        let pull_request = match present(task.pr_url.as_ref()) {
            Some(address) => match web(address) {
                Some(url) => Some((number.unwrap_or_else(|| "Open".to_owned()), Some(url))),
                None => Some((one_line(address), None)),
            },
            None => number.map(|number| (number, None)),
        };
        let plain = |value: Option<&String>| present(value).map(|text| (one_line(text), None));
        [
            ("Repository", repository),
            ("Pull request", pull_request),
            ("Agent", plain(task.agent_type.as_ref())),
            ("Affected", self.affected.map(|affected| (affected.to_string(), None))),
            (
                "Cost",
                plain(task.cost_usd.as_ref())
                    .filter(|(cost, _)| !cost.is_empty())
                    .map(|(cost, link)| (format!("${cost}"), link)),
            ),
        ]
        .into_iter()
        .filter_map(|(name, fact)| fact.map(|(text, link)| (name, text, link)))
        .filter(|(_, text, _)| !text.is_empty())
        .collect()
    }
}

/// Returns the headline of an event type.
#[must_use]
pub fn headline(event: EventType) -> Headline {
    let (emoji, slack_emoji, text, colour) = match event {
        EventType::TaskCompleted => ("✅", ":white_check_mark:", "Task completed", 0x2E_A0_43),
        EventType::TaskFailed => ("❌", ":x:", "Task failed", 0xCF_22_2E),
        EventType::TaskNeedsAttention => ("⚠️", ":warning:", "Task needs attention", 0xBF_87_00),
        EventType::TaskPrOpened => ("🔀", ":twisted_rightwards_arrows:", "Pull request opened", 0x82_50_DF),
        EventType::ReviewCompleted => ("🔍", ":mag:", "Review completed", 0x09_69_DA),
        EventType::WebhookDisabled => ("⛔", ":no_entry:", "Webhook disabled", 0xCF_22_2E),
        EventType::WebhookFailing => ("🔥", ":fire:", "Webhook is failing", 0xCF_22_2E),
        EventType::WebhookRecovered => ("💚", ":green_heart:", "Webhook works again", 0x2E_A0_43),
        EventType::DeliveryExhausted => ("📭", ":mailbox_with_no_mail:", "Deliveries failed for good", 0xBF_87_00),
    };
    Headline { emoji, slack_emoji, text, colour }
}

/// The page of a task in Optio's web app.
fn task_url(public_url: &str, task_id: &str) -> Option<Url> {
    let mut url = Url::parse(public_url).ok()?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(["tasks", task_id]);
    Some(url)
}

/// The address as a URL, if it leads to the web.
#[must_use]
pub fn web(address: &str) -> Option<Url> {
    Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// Returns the name of a repository, such as `acme/backend` for `https://github.com/acme/backend.git`.
#[must_use]
pub fn repository(url: &Url) -> String {
    let path = url.path().trim_matches('/');
    let name = path.strip_suffix(".git").unwrap_or(path);
    if name.is_empty() { url.as_str().to_owned() } else { name.to_owned() }
}

/// The value, unless it is missing or blank.
#[must_use]
pub fn present(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.trim().is_empty())
}

/// A text on one line, without characters that would change how the text around it is shown.
#[must_use]
pub fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || is_control(c)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// A text of several lines, without other control characters, unless nothing is left of it.
fn lines(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| matches!(c, '\n' | '\t') || !is_control(*c)).collect();
    Some(text).filter(|text| !text.trim().is_empty())
}

/// Cuts a text to at most `max` UTF-16 code units, by which some receivers count. A character is kept whole.
#[must_use]
pub fn cut_utf16(text: &str, max: usize) -> String {
    if text.encode_utf16().count() <= max {
        return text.to_owned();
    }
    let mut left = max.saturating_sub(1);
    let kept = text.chars().take_while(|c| match left.checked_sub(c.len_utf16()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Hostile texts: long ones, with markup of every receiver, emoji, right-to-left text and control characters.
    pub fn hostile() -> Vec<String> {
        let markup = "*_~`|>#-[]()<@everyone> <!channel> <at>all</at> {{x}} \\ & <b> @here https://evil.example/ ";
        let family = "👨‍👩‍👧‍👦";
        vec![
            String::new(),
            "\u{0}\u{1b}[2J\r\n".to_owned(),
            markup.repeat(200),
            "&".repeat(10_000),
            "\\".repeat(10_000),
            "\u{1}".repeat(10_000),
            family.repeat(2_000),
            "שלום עולם مرحبا ".repeat(700),
            "\u{202e}txt.exe\u{2066}".repeat(1_000),
            "a".repeat(10_000),
        ]
    }

    /// Each hostile text with each event type.
    pub fn hostile_events() -> Vec<(String, EventType)> {
        hostile().into_iter().flat_map(|text| EventType::ALL.map(|event| (text.clone(), event))).collect()
    }

    /// A payload whose every text is `text`.
    pub fn payload(text: &str) -> Vec<u8> {
        let link = format!("https://git.example.com/{text}");
        let task = serde_json::json!({
            "id": text, "title": text, "state": text, "repoUrl": link, "prUrl": link, "prNumber": u64::MAX,
            "agentType": text, "costUsd": text, "errorMessage": text,
        });
        let webhook = serde_json::json!({ "description": text, "host": text });
        let all = serde_json::json!({ "taskId": text, "task": task, "timestamp": text, "webhook": webhook,
            "reason": text, "affected": u64::MAX, "url": format!("https://git.example.com/{text}") });
        serde_json::to_vec(&all).unwrap()
    }

    #[test]
    fn a_name_is_on_one_line_and_cannot_turn_the_text_around_it() {
        for text in hostile() {
            let message = Message::read(EventType::TaskFailed, &payload(&text), "https://optio.example.com/base/");
            assert!(!message.title().contains(is_control));
            if let Some(url) = message.task_url {
                assert!(url.path().starts_with("/base/tasks/") && !url.as_str().contains(' '), "{url}");
            }
        }
    }

    #[test]
    fn a_cut_text_has_the_length_and_whole_characters() {
        assert_eq!(cut_utf16("abc", 3), "abc");
        assert_eq!(cut_utf16("abcd", 3), "ab…");
        assert_eq!(cut_utf16("👍👍👍", 4), "👍…");
    }
}
