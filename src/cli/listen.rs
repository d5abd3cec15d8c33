//! `listen`: a local receiver that verifies signatures and prints what arrives.

use std::net::SocketAddr;

use super::run::Signals;
use super::{Failure, say};
use crate::dev::receiver::{Answer, Arrival, Receiver};

/// `optio-webhooks listen`
#[derive(clap::Args)]
#[command(after_help = "Example: in one terminal `optio-webhooks listen --secret s3cret`, in another
  optio-webhooks webhooks add --url http://127.0.0.1:9000/ --events task.completed --secret s3cret
(the worker needs delivery.allow_http = true and delivery.allow_networks = [\"127.0.0.0/8\"])")]
pub struct Listen {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:9000")]
    address: SocketAddr,
    /// Verify X-Optio-Signature with this secret, and answer 401 to requests that fail.
    #[arg(long)]
    secret: Option<String>,
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

impl Listen {
    /// Receives until Ctrl-C.
    pub async fn run(self) -> Result<(), Failure> {
        if axum::http::StatusCode::from_u16(self.status).is_err() {
            return Err(Failure::Usage(format!("--status {} is not allowed; it must be 100 to 999", self.status)));
        }
        let (answer_status, fail_first) = (self.status, self.fail_first);
        let answer = move |arrival: &Arrival| {
            if arrival.attempt <= fail_first { Answer::status(500) } else { Answer::status(answer_status) }
        };
        let (receiver, mut arrivals) = Receiver::start(self.address, self.secret, answer).await?;
        eprintln!("listening on http://{}/ (Ctrl-C to stop)", receiver.address);
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
