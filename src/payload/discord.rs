//! Renders the payload as a message for an incoming webhook of Discord: one embed.
//!
//! Source: Discord's documentation, "Execute Webhook" and "Embed Limits".

use bytes::Bytes;
use serde_json::{Value, json};
use url::Url;

use super::message::{Message, cut_utf16};

/// The hosts of Discord's incoming webhooks.
pub const HOSTS: &[&str] = &["discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com"];

/// The longest title of an embed, in characters.
const TITLE_MAX: usize = 256;
/// The longest error that is shown. A description may have 4,096 characters, and an embed 6,000 in all.
const ERROR_MAX: usize = 2_000;
/// The longest text of a fact. The value of a field may have 1,024 characters with the link.
const FACT_MAX: usize = 256;
/// The longest value of a field, in characters.
const VALUE_MAX: usize = 1_024;
/// The longest link of an embed, in characters.
const LINK_MAX: usize = 2_048;

/// Whether `url` is an incoming webhook that takes Discord's own messages. With `/slack` or `/github` at its end, it
/// takes those of Slack or GitHub.
#[must_use]
pub fn takes(url: &Url) -> bool {
    let path = url.path().trim_end_matches('/');
    path.starts_with("/api/") && path.contains("/webhooks/") && !path.ends_with("/slack") && !path.ends_with("/github")
}

/// Renders a message.
#[must_use]
pub fn body(message: &Message) -> Bytes {
    let mut embed = json!({
        "title": cut_utf16(&escaped(&format!("{} {}", message.headline.emoji, cut_utf16(&message.title(), 200))), TITLE_MAX),
        "color": message.headline.colour,
    });
    if let Some(url) = message.task_url.as_ref().filter(|url| url.as_str().len() <= LINK_MAX) {
        embed["url"] = url.as_str().into();
    }
    if let Some(error) = &message.error {
        // A code block shows its text without formatting, as long as the text can't end it.
        let error = cut_utf16(&error.replace('`', "ˋ"), ERROR_MAX);
        embed["description"] = format!("```\n{error}\n```").into();
    }
    let fields: Vec<Value> = message
        .facts()
        .into_iter()
        .map(|(name, text, link)| {
            let text = escaped(&cut_utf16(&text, FACT_MAX));
            // A link can't be cut, because it would lead elsewhere.
            let linked = link.map(|url| format!("[{text}]({})", url.as_str().replace('(', "%28").replace(')', "%29")));
            let value = linked.filter(|value| value.encode_utf16().count() <= VALUE_MAX).unwrap_or(text);
            json!({ "name": name, "value": value, "inline": true })
        })
        .collect();
    if !fields.is_empty() {
        embed["fields"] = fields.into();
    }
    if let Some(time) = message.timestamp.as_ref().filter(|time| humantime::parse_rfc3339(time).is_ok()) {
        embed["timestamp"] = time.as_str().into();
    }
    // Foreign text may mention nobody.
    json!({ "embeds": [embed], "allowed_mentions": { "parse": [] } }).to_string().into()
}

/// Escapes the characters of Discord's markdown, and keeps an address in foreign text from becoming a link.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '#' | '-' | '[' | ']' | '(' | ')' | ':' | '@') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{hostile_events, payload};
    use super::*;
    use crate::event::EventType;

    fn embed(event: EventType, payload: &[u8]) -> Value {
        let message = Message::read(event, payload, "https://optio.example.com");
        let body: Value = serde_json::from_slice(&body(&message)).unwrap();
        assert_eq!((&body["allowed_mentions"], body["embeds"].as_array().unwrap().len()), (&json!({ "parse": [] }), 1));
        body["embeds"][0].clone()
    }

    #[test]
    fn the_message_of_a_failed_task_has_its_title_error_facts_and_link() {
        let payload = json!({ "taskId": "t1", "timestamp": "2025-03-26T10:12:34Z", "task": {
            "title": "Fix *login*", "repoUrl": "https://github.com/acme/backend", "costUsd": "0.84",
            "errorMessage": "exit `1`" } });
        assert_eq!(
            embed(EventType::TaskFailed, payload.to_string().as_bytes()),
            json!({
                "title": "❌ Task failed\\: Fix \\*login\\*", "color": 0xCF_22_2E,
                "url": "https://optio.example.com/tasks/t1", "description": "```\nexit ˋ1ˋ\n```",
                "fields": [
                    { "name": "Repository", "value": "[acme/backend](https://github.com/acme/backend)", "inline": true },
                    { "name": "Cost", "value": "$0.84", "inline": true },
                ],
                "timestamp": "2025-03-26T10:12:34Z",
            })
        );
    }

    #[test]
    fn no_text_breaks_discords_limits() {
        let length = |value: &Value| value.as_str().unwrap_or_default().encode_utf16().count();
        for (text, event) in hostile_events() {
            let embed = embed(event, &payload(&text));
            assert!(length(&embed["title"]) <= TITLE_MAX && length(&embed["title"]) > 0);
            assert!(length(&embed["description"]) <= 4_096);
            let fields = embed["fields"].as_array().unwrap();
            assert!(fields.len() <= 25);
            assert!(fields.iter().all(|field| (1..=VALUE_MAX).contains(&length(&field["value"]))));
            let total: usize = fields.iter().map(|field| length(&field["name"]) + length(&field["value"])).sum();
            assert!(total + length(&embed["title"]) + length(&embed["description"]) <= 6_000);
            assert!(embed.get("url").is_none_or(|url| length(url) <= LINK_MAX));
        }
    }

    #[test]
    fn only_discords_own_webhooks_take_its_messages() {
        let takes = |url: &str| takes(&url.parse().unwrap());
        assert!(takes("https://discord.com/api/webhooks/1/x") && takes("https://discord.com/api/v10/webhooks/1/x"));
        assert!(!takes("https://discord.com/api/webhooks/1/x/slack") && !takes("https://discord.com/channels/1"));
    }
}
