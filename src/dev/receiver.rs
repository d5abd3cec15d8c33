//! A receiver of webhook requests that verifies the signature before it answers (`docs/reference.md`, section
//! "Signature").

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::secret::Secret;
use crate::signature;

/// The largest body that is accepted, in bytes.
const BODY_MAX: usize = 4 << 20;
/// The number of arrivals that may wait to be read. Beyond it, requests get no answer until one is read.
const ARRIVALS_MAX: usize = 10_000;

/// One request that arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The path of the request.
    pub path: String,
    /// The value of `X-Optio-Event`.
    pub event: String,
    /// The value of `X-Optio-Delivery`.
    pub delivery: String,
    /// The value of `X-Optio-Attempt`; 0 if it is missing or not a number.
    pub attempt: u32,
    /// Whether the signature is right; None if the receiver has no secret.
    pub verified: Option<bool>,
    /// The status of the answer.
    pub status: u16,
    /// The raw body.
    pub body: Bytes,
}

impl Arrival {
    /// A line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let signature = match self.verified {
            Some(true) => "signature ok",
            Some(false) => "SIGNATURE WRONG",
            None => "signature not checked",
        };
        let Self { path, event, delivery, attempt, status, .. } = self;
        format!("{event:<20} attempt {attempt}  delivery {delivery}  {path}  {signature}  -> {status}")
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Copy)]
pub struct Answer(StatusCode);

impl Answer {
    /// An answer with `status`, or with 500 if that is not a valid status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

/// A receiver that listens until the process ends.
pub struct Receiver {
    /// The address that it listens on.
    pub address: SocketAddr,
}

struct Shared {
    secret: Option<Secret>,
    answer: Box<dyn Fn(&Arrival) -> Answer + Send + Sync>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Receiver {
    /// Listens on `address`. A request whose signature is wrong is answered with 401, any other by `answer`.
    ///
    /// # Errors
    /// `address` can't be listened on.
    pub async fn start(
        address: SocketAddr,
        secret: Option<Secret>,
        answer: impl Fn(&Arrival) -> Answer + Send + Sync + 'static,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Arrival>)> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("{address} can't be listened on"))?;
        let address = listener.local_addr()?;
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let shared = Shared { secret, answer: Box::new(answer), arrivals: sender };
        let router =
            Router::new().fallback(receive).layer(DefaultBodyLimit::max(BODY_MAX)).with_state(Arc::new(shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((Self { address }, arrivals))
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: Request) -> impl IntoResponse {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX).await else { return StatusCode::PAYLOAD_TOO_LARGE };
    let header = |name: &str| text(&head.headers, name);
    let signature = header("x-optio-signature");
    let mut arrival = Arrival {
        path: head.uri.path().to_owned(),
        event: header("x-optio-event"),
        delivery: header("x-optio-delivery"),
        attempt: header("x-optio-attempt").parse().unwrap_or(0),
        verified: shared.secret.as_ref().map(|secret| signature::verify_optio(secret.expose(), &body, &signature)),
        status: 0,
        body,
    };
    let status = if arrival.verified == Some(false) { StatusCode::UNAUTHORIZED } else { (shared.answer)(&arrival).0 };
    arrival.status = status.as_u16();
    // An error means that nobody reads arrivals any more. The request is answered all the same.
    let _ = shared.arrivals.send(arrival).await;
    status
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
