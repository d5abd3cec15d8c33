//! `listen`: a local receiver that verifies signatures and prints what arrives, or a tunnel to a local server.

mod forward;

use std::net::SocketAddr;

use super::api::ToServer;
use super::output::{self, note};
use super::run::Signals;
use super::{Failure, say, secret_input};
use crate::config::{BadConfig, Config};
use crate::dev::receiver::{Answer, Arrival, Receiver};
use crate::event::EventType;

/// `optio-webhooks listen`
#[derive(clap::Args)]
#[command(after_help = "The secret can also be in the environment variable OPTIO_WEBHOOKS_LISTEN_SECRET.

Example: put the secret in a file, and in one terminal run
  optio-webhooks listen --secret-stdin < secret
and in another
  optio-webhooks webhooks add --url http://127.0.0.1:9000/ --events task.completed --secret-stdin < secret
(the worker needs delivery.allow_http = true and delivery.allow_networks = [\"127.0.0.0/8\"])

A tunnel to a server on this machine, without a webhook and without a public address:
  optio-webhooks listen --forward http://localhost:3000/hooks --server https://optio.example.com/webhooks")]
pub struct Listen {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:9000")]
    address: SocketAddr,
    /// Verify X-Optio-Signature with this secret, and answer 401 to requests that fail. Other users of this machine can
    /// see arguments: consider --secret-stdin or OPTIO_WEBHOOKS_LISTEN_SECRET.
    #[arg(long, conflicts_with = "secret_stdin")]
    secret: Option<String>,
    /// Read the secret from the first line of standard input.
    #[arg(long)]
    secret_stdin: bool,
    /// Answer with this status.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// Answer 500 to the first N attempts of each delivery.
    #[arg(long, default_value_t = 0, value_name = "N")]
    fail_first: u32,
    /// Print the body as well.
    #[arg(long)]
    body: bool,
    /// Instead of listening, send the events of an admin server to this URL, signed like those of a webhook. No webhook is
    /// stored, and this machine needs no public address. Nothing is tried again.
    #[arg(long, value_name = "URL", requires = "server", conflicts_with_all = ["address", "status", "fail_first"])]
    forward: Option<url::Url>,
    /// Only events of this type, with --forward.
    #[arg(long, requires = "forward")]
    event: Option<EventType>,
    #[command(flatten)]
    to: ToServer,
}

/// The environment variable that holds the secret. The arguments have precedence over it.
const SECRET_VARIABLE: &str = "OPTIO_WEBHOOKS_LISTEN_SECRET";

impl Listen {
    /// Receives until Ctrl-C.
    pub async fn run(self, load: impl FnOnce() -> Result<Config, BadConfig>) -> Result<(), Failure> {
        if axum::http::StatusCode::from_u16(self.status).is_err() {
            return Err(Failure::Usage(format!("--status {} is not allowed; it must be 100 to 999", self.status)));
        }
        self.to.check()?;
        if self.to.server.is_some() && self.forward.is_none() {
            let sentence = "--server does nothing without --forward, which sends the events of that server to a URL";
            return Err(Failure::Usage(sentence.to_owned()));
        }
        let (answer_status, fail_first) = (self.status, self.fail_first);
        let answer = move |arrival: &Arrival| {
            if (1..=fail_first).contains(&arrival.attempt) {
                Answer::status(500)
            } else {
                Answer::status(answer_status)
            }
        };
        let secret = if self.secret_stdin {
            Some(secret_input::from_stdin()?)
        } else {
            match self.secret {
                Some(secret) => Some(secret.into()),
                None => secret_input::from_variable(SECRET_VARIABLE)?,
            }
        };
        if let (Some(to), Some(server)) = (self.forward, self.to.server.clone()) {
            let config = load()?;
            let token = self.to.token(&config)?.unwrap_or_default();
            let (event, body) = (self.event, self.body);
            return forward::Forward { to, server, token, event, secret, body }.run(&config).await;
        }
        let (receiver, mut arrivals) = Receiver::start(self.address, secret, answer).await?;
        note(&format!("listening on http://{}/ (Ctrl-C to stop)", receiver.address));
        let mut signals = Signals::new()?;
        loop {
            tokio::select! {
                Some(arrival) = arrivals.recv() => {
                    say(&arrival.line());
                    if self.body {
                        say(&String::from_utf8_lossy(&arrival.body));
                    }
                    if output::is_closed() {
                        return Ok(());
                    }
                }
                () = signals.next() => return Ok(()),
            }
        }
    }
}
