//! `api`: everything that the settings page does, as commands. They call the API of an admin server, or act on Kafka and
//! Redis in this process.

mod arguments;
mod server;

use std::time::Duration;

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::output::{note, say_json};
use super::run::Signals;
use super::{Failure, secret_input};
use crate::config::Config;
use crate::secret::Secret;
use crate::webhook::WebhookId;
use arguments::Command;
pub use server::{Server, at};

/// The environment variable that holds the token.
pub const TOKEN_VARIABLE: &str = "OPTIO_WEBHOOKS_TOKEN";
/// The time between two looks at the progress of a replay.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "Examples:
  optio-webhooks api list
  optio-webhooks api --server https://optio.example.com/webhooks deliveries 0190… --failed --since 2h
  optio-webhooks api search task-4711
  optio-webhooks api redeliver 0190… 5f0c…
  optio-webhooks api pause 0190… --hold
  optio-webhooks api send-missed 0190…
  optio-webhooks api call GET /api/audit

The answers are those of the API, as JSON (see docs/openapi.json). Without --server, the commands act on the Kafka and the
Redis of the configuration. The token of a server is that of --token, else that of OPTIO_WEBHOOKS_TOKEN, else admin.token of
the configuration.";

/// `optio-webhooks api`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Api {
    #[command(flatten)]
    to: ToServer,
    #[command(subcommand)]
    command: Command,
}

/// The server that a command calls.
#[derive(clap::Args)]
pub struct ToServer {
    /// The address of an admin server. Without it, the command acts on Kafka and Redis itself.
    #[arg(long, value_name = "URL", global = true)]
    pub server: Option<url::Url>,
    /// The token of the server. Other users of this machine can see arguments: consider OPTIO_WEBHOOKS_TOKEN.
    #[arg(long, value_name = "TOKEN", global = true)]
    pub token: Option<String>,
}

impl ToServer {
    /// Checks that a token is given only for a server. clap can't check it, because each of the two may stand before or
    /// after the name of a command.
    ///
    /// # Errors
    /// There is a token without a server.
    pub fn check(&self) -> Result<(), Failure> {
        if self.token.is_some() && self.server.is_none() {
            return Err(Failure::Usage("--token does nothing without --server".to_owned()));
        }
        Ok(())
    }

    /// The token: of the argument, the environment, or the configuration.
    ///
    /// # Errors
    /// The environment variable is empty.
    pub fn token(&self, config: &Config) -> Result<Option<Secret>, Failure> {
        let given = self.token.clone().map(Secret::from);
        let variable = secret_input::from_variable(TOKEN_VARIABLE)?;
        Ok(given.or(variable).or_else(|| Some(config.admin.token.clone())))
    }
}

impl Api {
    /// Calls the API and prints its answer.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        self.to.check()?;
        let server = match &self.to.server {
            Some(url) => Server::remote(url.clone(), self.to.token(config)?)?,
            None => Server::here(config)?,
        };
        self.command.run(&server).await
    }
}

impl Command {
    async fn run(self, server: &Server) -> Result<(), Failure> {
        let webhook = |id: WebhookId| format!("/api/webhooks/{id}");
        let (method, path, body) = match self {
            Self::List => (Method::GET, "/api/webhooks".to_owned(), None),
            Self::Show { id } => (Method::GET, webhook(id), None),
            Self::Pause { id, hold } => {
                let hold = if hold { json!({ "active": false, "hold": true }) } else { json!({ "active": false }) };
                (Method::PATCH, webhook(id), Some(hold))
            }
            Self::Resume { id } => (Method::PATCH, webhook(id), Some(json!({ "active": true }))),
            Self::Rotate { id, secret_stdin, signing, overlap } => {
                let secret = if secret_stdin { Some(secret_input::from_stdin()?.expose().to_owned()) } else { None };
                let fields = [
                    ("secret", secret.map(Value::from)),
                    ("signing", signing.map(|signing| json!(signing))),
                    ("overlap", overlap.map(Value::from)),
                ];
                (Method::POST, format!("{}/rotate-secret", webhook(id)), Some(object(fields)))
            }
            Self::Test { id, event } => {
                let body = object([("event", event.map(|event| json!(event)))]);
                let answer = server.call(Method::POST, &format!("{}/test", webhook(id)), Some(&body)).await?;
                say_json(&answer)?;
                let is_delivered = answer["delivery"]["success"] == true;
                return if is_delivered {
                    Ok(())
                } else {
                    Err(anyhow::anyhow!("the endpoint did not accept it").into())
                };
            }
            Self::TryFilter { filter } => {
                let filter: Value = serde_json::from_str(&filter)
                    .map_err(|error| Failure::Usage(format!("the filter is not JSON: {error}")))?;
                (Method::POST, "/api/filters/try".to_owned(), Some(json!({ "filter": filter })))
            }
            Self::Deliveries { id, filter, before } => {
                let fields = filter.fields().into_iter().chain([("before", before)]);
                (Method::GET, format!("{}/deliveries{}", webhook(id), query(fields)), None)
            }
            Self::Search { text, filter } => {
                let mut fields = filter.fields();
                if text.is_some() {
                    fields.retain(|(name, _)| *name != "search");
                    fields.push(("search", text));
                }
                (Method::GET, format!("/api/deliveries{}", query(fields)), None)
            }
            Self::Redeliver { id, delivery } => {
                (Method::POST, format!("{}/deliveries/{}/redeliver", webhook(id), part(&delivery)), None)
            }
            Self::DeadLetters { filter, cursor } => {
                let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let fields = filter.fields().into_iter().map(|(name, value)| (name, value.map(text)));
                (Method::GET, format!("/api/dead-letters{}", query(fields.chain([("cursor", cursor)]))), None)
            }
            Self::Replay { filter, all, again, manner } => {
                let flags = [("all", all.then_some(json!(true))), ("again", again.then_some(json!(true)))];
                return replay(server, object(filter.fields().into_iter().chain(flags).chain(manner.fields()))).await;
            }
            Self::SendMissed { id, manner } => {
                let fields = [("webhook", Some(json!(id))), ("missed", Some(json!(true)))];
                return replay(server, object(fields.into_iter().chain(manner.fields()))).await;
            }
            Self::Missed { id } => (Method::GET, format!("{}/missed", webhook(id)), None),
            Self::Activity { id } => (Method::GET, format!("{}/activity", webhook(id)), None),
            Self::Stop { .. } if server.is_here() => {
                let sentence = "--server is needed: a replay is stopped by the server that runs it. One that runs in a \
                                command ends with Ctrl-C";
                return Err(Failure::Usage(sentence.to_owned()));
            }
            Self::Stop { replay } => (Method::POST, format!("/api/dead-letters/replays/{}/stop", part(&replay)), None),
            Self::Status => (Method::GET, "/api/status".to_owned(), None),
            Self::Call { method, path, data } => {
                if !path.starts_with('/') {
                    return Err(Failure::Usage(format!("{path:?} isn't a path; use one such as /api/webhooks")));
                }
                let data = data.map(|data| serde_json::from_str(&data));
                let data = data.transpose().map_err(|error| Failure::Usage(format!("--data is not JSON: {error}")))?;
                (method, path, data)
            }
        };
        let answer = server.call(method, &path, body.as_ref()).await?;
        if answer.is_null() { Ok(()) } else { say_json(&answer) }
    }
}

/// Begins a replay and waits until it has ended.
async fn replay(server: &Server, request: Value) -> Result<(), Failure> {
    let begun = server.call(Method::POST, "/api/dead-letters/replay", Some(&request)).await?;
    let id = begun["replay"]["id"].as_str().unwrap_or_default().to_owned();
    let path = format!("/api/dead-letters/replays/{}", part(&id));
    let mut signals = if server.is_here() { Some(Signals::new()?) } else { None };
    let interrupted = if server.is_here() {
        "it runs in this command, and ends after its current batch if the command is interrupted"
    } else {
        "it goes on in the server if this command is interrupted"
    };
    note(&format!("replay {id} began; {interrupted}"));
    let mut is_stopped = false;
    loop {
        let answer = server.call(Method::GET, &path, None).await?;
        let replay = &answer["replay"];
        match (replay["state"].as_str(), &mut signals) {
            (Some("running"), None) => tokio::time::sleep(PROGRESS_INTERVAL).await,
            (Some("running"), Some(signals)) => tokio::select! {
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {}
                () = signals.next() => {
                    if std::mem::replace(&mut is_stopped, true) {
                        return Err(anyhow::anyhow!("stopped at once: a part of the current batch may have been replayed").into());
                    }
                    note("stopping after the current batch; a second signal stops at once");
                    server.call(Method::POST, &format!("{path}/stop"), None).await?;
                }
            },
            (Some("done"), _) => return say_json(&answer),
            _ => {
                say_json(&answer)?;
                return Err(anyhow::anyhow!("the replay was interrupted; the same command sends the rest").into());
            }
        }
    }
}

/// A JSON object of the fields that have a value.
fn object(fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// A query of the fields that have a value.
fn query(fields: impl IntoIterator<Item = (&'static str, Option<String>)>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// A text as one part of a path.
fn part(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
