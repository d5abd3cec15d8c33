//! Renders the payload as a message for a workflow of Microsoft Teams: an Adaptive Card.
//!
//! Source: Microsoft's documentation, "Create incoming webhooks with Workflows for Microsoft Teams" and the schema of
//! Adaptive Cards 1.4. A message may have 28 KB.

use bytes::Bytes;
use serde_json::{Value, json};

use super::message::{Message, cut_utf16};

/// The domains of the URLs that Workflows makes. Each begins with a dot, because the hosts are below them.
pub const HOSTS: &[&str] = &[".logic.azure.com", ".api.powerplatform.com", ".webhook.office.com"];

/// The longest title, in characters.
const TITLE_MAX: usize = 256;
/// The longest error, in characters. JSON may write each of them in six bytes.
const ERROR_MAX: usize = 1_500;
/// The longest fact, in characters.
const FACT_MAX: usize = 256;
/// The longest link, in characters.
const LINK_MAX: usize = 2_048;

/// Renders a message. Text stands in text runs, which have no markdown, so that foreign text needs no escaping.
#[must_use]
pub fn body(message: &Message) -> Bytes {
    let title = cut_utf16(&format!("{} {}", message.headline.emoji, message.title()), TITLE_MAX);
    let mut card = vec![rich(vec![json!({ "type": "TextRun", "text": title, "weight": "bolder", "size": "medium" })])];
    if let Some(error) = &message.error {
        let error = cut_utf16(error, ERROR_MAX);
        card.push(rich(vec![
            json!({ "type": "TextRun", "text": error, "fontType": "monospace", "color": "attention" }),
        ]));
    }
    let facts = message.facts();
    for (name, text, _) in &facts {
        let name = json!({ "type": "TextRun", "text": format!("{name}: "), "weight": "bolder" });
        card.push(rich(vec![name, json!({ "type": "TextRun", "text": cut_utf16(text, FACT_MAX) })]));
    }
    if let Some(time) = message.timestamp.as_ref().filter(|time| humantime::parse_rfc3339(time).is_ok()) {
        card.push(rich(vec![json!({ "type": "TextRun", "text": time, "isSubtle": true, "size": "small" })]));
    }
    let task = message.task_url.clone().map(|url| (message.link_label, url));
    let links = facts.into_iter().filter_map(|(name, _, link)| Some((name, link?)));
    let actions: Vec<Value> = task
        .into_iter()
        .chain(links)
        .filter(|(_, url)| url.as_str().len() <= LINK_MAX)
        .map(|(title, url)| json!({ "type": "Action.OpenUrl", "title": title, "url": url.as_str() }))
        .collect();
    let card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": card,
        "actions": actions,
    });
    let attachment = json!({
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": null,
        "content": card,
    });
    json!({ "type": "message", "attachments": [attachment] }).to_string().into()
}

fn rich(inlines: Vec<Value>) -> Value {
    json!({ "type": "RichTextBlock", "inlines": inlines })
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{hostile_events, payload};
    use super::*;
    use crate::event::EventType;

    fn card(event: EventType, payload: &[u8]) -> Value {
        let rendered = body(&Message::read(event, payload, "https://optio.example.com"));
        assert!(rendered.len() <= 28_000, "{} bytes", rendered.len());
        let message: Value = serde_json::from_slice(&rendered).unwrap();
        message["attachments"][0]["content"].clone()
    }

    #[test]
    fn the_card_of_a_task_has_its_title_facts_and_links() {
        let payload = json!({ "taskId": "t1", "task": { "title": "Fix login", "prNumber": 142,
            "prUrl": "https://github.com/acme/backend/pull/142", "agentType": "claude-code" } });
        let card = card(EventType::TaskPrOpened, payload.to_string().as_bytes());
        let texts: Vec<&str> = card["body"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|block| block["inlines"].as_array().unwrap())
            .map(|run| run["text"].as_str().unwrap())
            .collect();
        assert_eq!(texts, ["🔀 Pull request opened: Fix login", "Pull request: ", "#142", "Agent: ", "claude-code"]);
        assert_eq!(card["actions"][0]["url"], "https://optio.example.com/tasks/t1");
        assert_eq!(card["actions"][1]["url"], "https://github.com/acme/backend/pull/142");
    }

    /// The part of the schema of Adaptive Cards 1.4 that the cards use.
    fn schema() -> Value {
        let run = json!({ "type": "object", "required": ["type", "text"], "additionalProperties": false, "properties": {
            "type": { "const": "TextRun" }, "text": { "type": "string", "minLength": 1 },
            "weight": { "enum": ["lighter", "default", "bolder"] }, "fontType": { "enum": ["default", "monospace"] },
            "size": { "enum": ["default", "small", "medium", "large", "extraLarge"] }, "isSubtle": { "type": "boolean" },
            "color": { "enum": ["default", "dark", "light", "accent", "good", "warning", "attention"] } } });
        let block = json!({ "type": "object", "required": ["type", "inlines"], "additionalProperties": false, "properties": {
            "type": { "const": "RichTextBlock" }, "inlines": { "type": "array", "minItems": 1, "items": run } } });
        let action = json!({ "type": "object", "required": ["type", "url"], "additionalProperties": false, "properties": {
            "type": { "const": "Action.OpenUrl" }, "title": { "type": "string" },
            "url": { "type": "string", "pattern": "^https?://[^ ]+$" } } });
        json!({ "type": "object", "required": ["type", "version", "body"], "properties": {
            "type": { "const": "AdaptiveCard" }, "version": { "const": "1.4" },
            "body": { "type": "array", "items": block }, "actions": { "type": "array", "maxItems": 6, "items": action } } })
    }

    #[test]
    fn every_text_gives_a_valid_card() {
        let schema = jsonschema::draft202012::new(&schema()).unwrap();
        for (text, event) in hostile_events() {
            let card = card(event, &payload(&text));
            let errors: Vec<String> = schema.iter_errors(&card).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
    }
}
