//! An endpoint's answer, and what becomes of its connection.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::{HeaderMap, Response};
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Http1, Stream};
use super::failure::{SendError, chain};
use super::pool::Pool;
use crate::delivery::FailureCode;

/// What an exchange goes over.
pub enum Carrier {
    /// A connection of its own.
    Http1(Http1),
    /// A part in a shared one.
    Http2(Stream),
}

/// A carrier with its place in the pool.
pub struct Placed {
    /// What the exchange goes over.
    pub carrier: Carrier,
    /// Whose connections it belongs to.
    pub origin: Arc<str>,
    /// Where it returns to.
    pub pool: Arc<Pool>,
}

/// An answer whose head has come.
pub struct Answer {
    response: Response<Incoming>,
    placed: Placed,
    deadline: Instant,
}

impl Placed {
    /// It took too long, or it broke: neither it nor what waits beside it is used again.
    pub fn discard(&self) {
        self.pool.drop_idle(&self.origin);
        if let Carrier::Http2(stream) = &self.carrier {
            self.pool.retire(&self.origin, stream.connection());
        }
    }

    /// Its exchange is over.
    fn give_back(self) {
        // Its share of an HTTP/2 connection ends by being dropped.
        let Self { carrier: Carrier::Http1(mut connection), origin, pool } = self else { return };
        if connection.is_ready() {
            return pool.put(&origin, connection);
        }
        // Its task has not noticed yet that the answer is over, or it is going to close.
        tokio::spawn(async move {
            if timeout(pool.idle_timeout(), connection.ready()).await == Ok(true) {
                pool.put(&origin, connection);
            }
        });
    }
}

impl Answer {
    /// Its body must have come by `deadline`.
    #[must_use]
    pub fn new(response: Response<Incoming>, placed: Placed, deadline: Instant) -> Self {
        Self { response, placed, deadline }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> hyper::StatusCode {
        self.response.status()
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The first `max` bytes of its body, and whether that much of it came as it should. What is over the bound stays
    /// unread and costs the connection: an endless body can't hold the attempt.
    pub async fn body(self, max: usize) -> (Vec<u8>, Result<(), SendError>) {
        const STEP: &str = "reading the answer's body";
        let Self { response, placed, deadline } = self;
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while !incoming.is_end_stream() {
            let frame = match timeout_at(deadline, incoming.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break,
                Ok(Some(Err(error))) => {
                    return (
                        body,
                        Err(SendError::new(FailureCode::Body, STEP, format_args!("it broke off: {}", chain(&error)))),
                    );
                }
                Err(_) => {
                    placed.discard();
                    return (body, Err(SendError::timeout(STEP)));
                }
            };
            let Some(data) = frame.data_ref() else { continue };
            let room = max - body.len();
            body.extend_from_slice(&data[..data.len().min(room)]);
            if body.len() >= max && !incoming.is_end_stream() {
                return (body, Ok(()));
            }
        }
        placed.give_back();
        (body, Ok(()))
    }
}
