//! `listen --forward`: signs the events of an admin server's stream, and sends them to a server on this machine. No
//! webhook is stored, and the machine needs no public address.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use crate::cli::api::at;
use crate::cli::output::{is_closed, note, warn};
use crate::cli::run::Signals;
use crate::cli::{Failure, say};
use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::{Delivery, FailureCode, FirstRead};
use crate::event::{Event, EventType};
use crate::http::client::{self, Client};
use crate::payload::{Bodies, PayloadFormat};
use crate::pipeline::send;
use crate::position::RecordPosition;
use crate::schedule::Reconnect;
use crate::secret::Secret;
use crate::signature::{Signing, SigningSecret};
use crate::webhook::Webhook;

/// The longest line of the stream, in bytes.
const LINE_MAX: usize = 16 << 20;
/// The stream sends a comment every 10 s. A silent one is broken.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What is forwarded, and where to.
pub struct Forward {
    pub to: Url,
    pub server: Url,
    pub token: Secret,
    pub event: Option<EventType>,
    pub secret: Option<Secret>,
    pub body: bool,
}

/// The data of an event of the stream.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Streamed<'a> {
    event: EventType,
    event_id: String,
    task_id: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl Forward {
    /// Forwards until a signal, and connects again when the stream breaks off.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        let mut settings = config.delivery.clone();
        // The developer chose the address, and it is usually on this machine.
        settings.allow_http = true;
        settings.allow_networks = vec!["0.0.0.0/0".parse().expect("a network"), "::/0".parse().expect("a network")];
        settings.proxy = crate::secret::Secret::from(String::new());
        let client = client::new(&settings).context("http client")?;
        let mut webhook = Webhook::new(self.to.clone(), EventType::TASKS.to_vec(), now_ms());
        webhook.format = PayloadFormat::preset(&self.to);
        let is_given = self.secret.is_some();
        let secret = match &self.secret {
            Some(secret) => SigningSecret::parse(secret.clone())
                .map_err(|problem| Failure::Usage(format!("--secret: {}", problem.0)))?,
            None => SigningSecret::generate(Signing::Hmac),
        };
        if !is_given {
            say(&format!(
                "The requests are signed with this secret, for as long as this command runs: {}",
                secret.text().expose()
            ));
        }
        webhook.secret = Some(secret);
        let mut signals = Signals::new()?;
        tokio::select! {
            failed = self.follow(&client, &webhook, &settings, config) => failed,
            () = signals.next() => Ok(()),
        }
    }

    async fn follow(
        &self,
        client: &Client,
        webhook: &Webhook,
        settings: &crate::config::DeliverySettings,
        config: &Config,
    ) -> Result<(), Failure> {
        let path = self.event.map_or_else(String::new, |event| format!("?event={}", event.as_str()));
        let url = at(&self.server, &format!("/api/events/stream{path}"));
        let http =
            reqwest::Client::builder().read_timeout(SILENCE_MAX).build().context("the HTTP client can't be made")?;
        let mut reconnect = Reconnect::default();
        let mut was_connected = false;
        loop {
            let request = http.get(url.clone()).bearer_auth(self.token.expose());
            let mut answer = match request.send().await {
                Ok(answer) if answer.status().is_success() => answer,
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let said: Option<serde_json::Value> =
                        answer.text().await.ok().and_then(|text| serde_json::from_str(&text).ok());
                    let said = said
                        .as_ref()
                        .and_then(|said| said["error"].as_str())
                        .unwrap_or("no reason is given")
                        .to_owned();
                    if !was_connected || status < 500 {
                        return Err(anyhow::anyhow!("{} answers {status}: {said}", self.server).into());
                    }
                    warn(&format!("{} answers {status}: {said}; trying again", self.server));
                    reconnect.wait().await;
                    continue;
                }
                Err(error) if !was_connected => {
                    return Err(anyhow::Error::new(error).context(format!("{} doesn't answer", self.server)).into());
                }
                Err(_) => {
                    reconnect.wait().await;
                    continue;
                }
            };
            note(&format!("forwarding the events of {} to {} (Ctrl-C to stop)", self.server, self.to));
            (was_connected, reconnect) = (true, Reconnect::default());
            let mut pending = Vec::new();
            while let Ok(Some(part)) = answer.chunk().await {
                pending.extend_from_slice(&part);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    if let Some(data) = line.strip_prefix(b"data: ")
                        && let Ok(streamed) = serde_json::from_slice(data)
                    {
                        self.send(client, webhook, settings, config, &streamed).await;
                        if is_closed() {
                            return Ok(());
                        }
                    }
                }
                if pending.len() > LINE_MAX {
                    return Err(anyhow::anyhow!("a line of the stream is longer than {LINE_MAX} bytes").into());
                }
            }
            note("the stream broke off; connecting again. Events of the meantime are not forwarded");
        }
    }

    async fn send(
        &self,
        client: &Client,
        webhook: &Webhook,
        settings: &crate::config::DeliverySettings,
        config: &Config,
        streamed: &Streamed<'_>,
    ) {
        let event = Event {
            id: streamed.event_id.as_str().into(),
            task_id: streamed.task_id.as_str().into(),
            event_type: streamed.event,
            body: Bytes::copy_from_slice(streamed.payload.get().as_bytes()),
            classic: None,
            not_understood: Vec::new(),
        };
        let body = Bodies::new(&config.webhooks.public_url).of(&event, webhook.format, &webhook.url);
        let source = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
        let read = FirstRead { source, first_seen_at_ms: now_ms(), replays: 0, traceparent: None };
        let delivery = Delivery::first(&event, webhook.id, body, read);
        let attempt = send::attempt(client, webhook, &delivery, None, settings).await;
        let outcome = match (attempt.status, attempt.failure) {
            (Some(status), _) => status.to_string(),
            (None, failure) => {
                let code = failure.map_or("failed", FailureCode::as_str);
                attempt.detail.as_deref().map_or_else(|| code.to_owned(), |detail| format!("{code}: {detail}"))
            }
        };
        let took = attempt.duration.as_millis();
        say(&format!("{:<20} task {}  -> {outcome} ({took} ms)", streamed.event.as_str(), streamed.task_id));
        if self.body {
            say(&String::from_utf8_lossy(&delivery.body));
        }
    }
}
