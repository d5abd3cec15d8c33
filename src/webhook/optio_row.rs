//! Rows of the table `webhooks` in Optio's own database, as an export has them.

use std::collections::HashMap;

use serde_json::Value;
use url::Url;

use super::{Webhook, WebhookId};
use crate::clock::rfc3339;
use crate::event::EventType;
use crate::payload::PayloadFormat;
use crate::secret::Secret;
use crate::secret::optio::{OptioKey, SealedByOptio};
use crate::signature::SigningSecret;

/// One row: its columns by name. A column that is null or empty is left out.
pub type Row = HashMap<String, String>;

/// A webhook made from a row.
#[derive(Debug)]
pub struct Imported {
    /// The webhook, with the id of the row.
    pub webhook: Webhook,
    /// Event types of the row that this program doesn't have.
    pub left_out: Vec<String>,
}

/// Reads an export: CSV with a header line, a JSON array of objects, or one JSON object after another. Returns each row
/// with its number from 1, or why it can't be read.
#[must_use]
pub fn rows(text: &str) -> Vec<Result<Row, String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        Some('[' | '{') => json_rows(text),
        _ => csv_rows(text),
    }
}

fn csv_rows(text: &str) -> Vec<Result<Row, String>> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let names = match reader.headers() {
        Ok(names) => names.clone(),
        Err(error) => return vec![Err(error.to_string())],
    };
    let row = |record: csv::StringRecord| {
        names.iter().zip(record.iter()).filter(|(_, value)| !value.is_empty()).map(owned).collect()
    };
    reader.records().map(|record| record.map(row).map_err(|error| error.to_string())).collect()
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.trim().to_owned(), value.to_owned())
}

fn json_rows(text: &str) -> Vec<Result<Row, String>> {
    let mut rows = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        match value {
            Ok(Value::Array(values)) => rows.extend(values.into_iter().map(json_row)),
            Ok(value) => rows.push(json_row(value)),
            Err(error) => rows.push(Err(format!("it is not JSON: {error}; the rest can't be read"))),
        }
    }
    rows
}

fn json_row(value: Value) -> Result<Row, String> {
    let Value::Object(columns) = value else { return Err("it is not a JSON object".to_owned()) };
    let text = |value: Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text).filter(|text| !text.is_empty()),
        other => Some(other.to_string()),
    };
    Ok(columns.into_iter().filter_map(|(name, value)| Some((snake(&name), text(value)?))).collect())
}

/// `encryptedSecret` becomes `encrypted_secret`: an export through Optio's code has the names of its fields.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// Makes a webhook of a row. `format` is that of its body, unless its URL is one of Slack.
///
/// # Errors
/// A sentence that says which column can't be used and why. It has no part of a secret.
pub fn read(row: &Row, key: Option<&OptioKey>, format: PayloadFormat, now_ms: i64) -> Result<Imported, String> {
    let column = |name: &str| row.get(name).map(String::as_str);
    let needed = |name: &str| column(name).ok_or_else(|| format!("column {name} is missing or empty"));
    let id: WebhookId = needed("id")?.parse().map_err(|_| "column id is not a UUID".to_owned())?;
    let text = needed("url")?;
    let url: Url = text.trim().parse().map_err(|error| format!("column url is not a URL: {error}"))?;
    let (events, left_out) = events(needed("events")?)?;
    let mut webhook = Webhook::new(url, events, now_ms);
    webhook.id = id;
    webhook.description = column("description").map(str::to_owned);
    webhook.active = match column("active").unwrap_or("true") {
        "t" | "true" => true,
        "f" | "false" => false,
        _ => return Err("column active is neither true nor false".to_owned()),
    };
    webhook.secret = secret(row, key, text)?.map(SigningSecret::stored);
    let preset = PayloadFormat::preset(&webhook.url);
    webhook.format = if preset == PayloadFormat::Optio { format } else { preset };
    if let Some(time) = column("created_at") {
        webhook.created_at = created_at(time).ok_or_else(|| format!("column created_at is not a time: {time:.64}"))?;
    }
    Ok(Imported { webhook, left_out })
}

/// The events of `["task.completed","task.failed"]` or `{task.completed,task.failed}`.
fn events(text: &str) -> Result<(Vec<EventType>, Vec<String>), String> {
    let names: Vec<String> = match serde_json::from_str(text) {
        Ok(names) => names,
        Err(_) => text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .ok_or("column events is neither a JSON array nor an array of Postgres")?
            .split(',')
            .map(|name| name.trim().trim_matches('"').to_owned())
            .filter(|name| !name.is_empty())
            .collect(),
    };
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    for name in names {
        match EventType::named(&name) {
            Some(event) if known.contains(&event) => {}
            Some(event) => known.push(event),
            None => left_out.push(name),
        }
    }
    if known.is_empty() {
        let all = EventType::ALL.map(EventType::as_str).join(", ");
        return Err(format!("column events has none of the event types {all}"));
    }
    Ok((known, left_out))
}

fn secret(row: &Row, key: Option<&OptioKey>, url: &str) -> Result<Option<Secret>, String> {
    if let Some(plain) = row.get("secret") {
        return Ok(Some(plain.as_str().into()));
    }
    let Some(ciphertext) = row.get("encrypted_secret") else { return Ok(None) };
    let bytes = |name: &str, text: &str| {
        let digits = text.strip_prefix("\\x").unwrap_or(text);
        hex::decode(digits).map_err(|_| format!("column {name} is not bytes in hexadecimal, such as \\x0af1"))
    };
    let column = |name: &str| bytes(name, row.get(name).map_or("", String::as_str));
    let sealed = SealedByOptio {
        ciphertext: bytes("encrypted_secret", ciphertext)?,
        nonce: column("secret_iv")?,
        tag: column("secret_auth_tag")?,
    };
    let Some(key) = key else {
        return Err("its secret is encrypted: set OPTIO_ENCRYPTION_KEY to the key of Optio's installation".to_owned());
    };
    let refused = "OPTIO_ENCRYPTION_KEY doesn't open its secret: the key is another one, or the row was changed";
    key.open(&sealed, url).map(Some).ok_or_else(|| refused.to_owned())
}

/// Reads a time as Postgres or JSON writes it, such as `2025-03-26 10:12:34.5+00`.
fn created_at(text: &str) -> Option<String> {
    let mut text = text.trim().replacen(' ', "T", 1);
    // Postgres leaves out the minutes of an offset, and the whole offset of a column without a time zone.
    let time = text.get(11..).unwrap_or_default().to_owned();
    match time.find(['+', '-']) {
        Some(at) if time.len() - at == 3 => text.push_str(":00"),
        None if !time.to_ascii_uppercase().ends_with('Z') => text.push('Z'),
        _ => {}
    }
    let time = humantime::parse_rfc3339(&text).ok().map(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    match time {
        Some(since) => Some(rfc3339(i64::try_from(since?.as_millis()).ok()?)),
        None => crate::event::utc(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> Vec<Result<Imported, String>> {
        let read =
            |row: Result<Row, String>| row.and_then(|row| super::read(&row, None, PayloadFormat::OptioClassic, 0));
        rows(text).into_iter().map(read).collect()
    }

    #[test]
    fn csv_and_json_exports_give_the_same_webhooks() {
        let csv = "id,url,workspace_id,events,encrypted_secret,description,active,created_at,secret\n\
            3f2504e0-4f89-11d3-9a0c-0305e82c3301,https://example.com/a,,\"[\"\"task.completed\"\", \"\"workflow_run.failed\"\"]\",,\"for a, b\",t,2025-03-26 10:12:34.5+00,s3cret\n";
        let json = r#"[{"id":"3f2504e0-4f89-11d3-9a0c-0305e82c3301","url":"https://example.com/a","workspaceId":null,"events":["task.completed","workflow_run.failed"],"encryptedSecret":null,"description":"for a, b","active":true,"createdAt":"2025-03-26T10:12:34.500Z","secret":"s3cret"}]"#;
        let lines = json.trim_matches(['[', ']']).to_owned() + "\n";
        for text in [csv, json, &lines, &format!("\u{feff}{csv}")] {
            let all = read_all(text);
            assert_eq!(all.len(), 1, "{text}");
            let Imported { webhook, left_out } = all.into_iter().next().unwrap().unwrap();
            assert_eq!(webhook.id.to_string(), "3f2504e0-4f89-11d3-9a0c-0305e82c3301");
            assert_eq!(webhook.events, [EventType::TaskCompleted]);
            assert_eq!(left_out, ["workflow_run.failed"]);
            assert_eq!(webhook.created_at, rfc3339(1_742_983_954_500));
            assert_eq!(webhook.description.as_deref(), Some("for a, b"));
            assert!(webhook.active && webhook.format == PayloadFormat::OptioClassic);
            assert_eq!(webhook.secret.unwrap().text().expose(), "s3cret");
        }
    }

    #[test]
    fn a_row_that_cannot_be_used_says_which_column_and_why() {
        let good =
            r#"{"id":"3f2504e0-4f89-11d3-9a0c-0305e82c3301","url":"https://example.com/","events":["task.failed"]"#;
        for (rest, reason) in [
            (r#","id":"7"}"#, "column id is not a UUID"),
            (r#","id":null}"#, "column id is missing"),
            (r#","url":"example"}"#, "column url is not a URL"),
            (r#","events":["workflow_run.failed"]}"#, "none of the event types"),
            (r#","events":"{}"}"#, "none of the event types"),
            (r#","events":"task"}"#, "neither a JSON array"),
            (r#","active":"maybe"}"#, "column active"),
            (r#","created_at":"soon"}"#, "column created_at"),
            (r#","encrypted_secret":"\\x00","secret_iv":"\\x00","secret_auth_tag":"\\x00"}"#, "OPTIO_ENCRYPTION_KEY"),
            (r#","encrypted_secret":"zz"}"#, "hexadecimal"),
        ] {
            let all = read_all(&format!("{good}{rest}"));
            let problem = all[0].as_ref().unwrap_err();
            assert!(problem.contains(reason), "{rest}: {problem}");
        }
        assert!(read_all(&format!("{good}}}"))[0].is_ok());
        assert!(read_all("[1]")[0].as_ref().unwrap_err().contains("not a JSON object"));
        assert!(read_all("[{")[0].as_ref().unwrap_err().contains("not JSON"));
        assert!(read_all("").is_empty());
        assert!(read_all("id,url\na\n")[0].is_err());
    }

    #[test]
    fn times_of_postgres_are_read() {
        for (text, read) in [
            ("2025-03-26 10:12:34+00", Some(1_742_983_954_000)),
            ("2025-03-26 12:12:34.25+02", Some(1_742_983_954_250)),
            ("2025-03-26 10:12:34", Some(1_742_983_954_000)),
            ("2025-03-26T10:12:34Z", Some(1_742_983_954_000)),
            ("", None),
            ("now", None),
            ("é2025-03-26 10:12:34", None),
        ] {
            assert_eq!(created_at(text), read.map(rfc3339), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            let _ = read_all(&text);
        }
    }
}
