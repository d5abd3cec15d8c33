//! `listen`: a local receiver that verifies signatures and prints what arrives.

use std::net::SocketAddr;

use super::output::note;
use super::run::Signals;
use super::{Failure, say, secret_input};
use crate::dev::receiver::{Answer, Arrival, Receiver};

/// `optio-webhooks listen`
#[derive(clap::Args)]
#[command(after_help = "The secret can also be in the environment variable OPTIO_WEBHOOKS_LISTEN_SECRET.

Example: put the secret in a file, and in one terminal run
  optio-webhooks listen --secret-stdin < secret
and in another
  optio-webhooks webhooks add --url http://127.0.0.1:9000/ --events task.completed --secret-stdin < secret
(the worker needs delivery.allow_http = true and delivery.allow_networks = [\"127.0.0.0/8\"])")]
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
}

/// The environment variable that holds the secret. The arguments have precedence over it.
const SECRET_VARIABLE: &str = "OPTIO_WEBHOOKS_LISTEN_SECRET";

impl Listen {
    /// Receives until Ctrl-C.
    pub async fn run(self) -> Result<(), Failure> {
        if axum::http::StatusCode::from_u16(self.status).is_err() {
            return Err(Failure::Usage(format!("--status {} is not allowed; it must be 100 to 999", self.status)));
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
                }
                () = signals.next() => return Ok(()),
            }
        }
    }
}
