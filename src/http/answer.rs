//! An endpoint's answer, and the return of its connection to the pool.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{HeaderMap, Response};
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Http1, Stream};
use super::failure::{SendError, chain};
use super::pool::Pool;
use crate::delivery::FailureCode;

/// The connection or stream that carries one exchange.
pub enum Carrier {
    /// An HTTP/1 connection, used by this exchange alone.
    Http1(Http1),
    /// A stream on a shared HTTP/2 connection.
    Http2(Stream),
}

/// A carrier, and the pool that it returns to.
pub struct Pooled {
    /// The carrier of the exchange.
    pub carrier: Carrier,
    /// The scheme, host and port that the carrier leads to.
    pub origin: Arc<str>,
    /// The pool that the carrier returns to.
    pub pool: Arc<Pool>,
}

/// An answer whose head has arrived. The body is read by [`Answer::body`].
pub struct Answer {
    response: Response<Incoming>,
    pooled: Pooled,
    deadline: Instant,
}

impl Pooled {
    /// Keeps this connection and the idle ones of its origin from being used again, because this one broke or took too
    /// long.
    pub fn discard(&self) {
        self.pool.drop_idle(&self.origin);
        if let Carrier::Http2(stream) = &self.carrier {
            self.pool.retire(&self.origin, stream.connection());
        }
    }

    /// Returns the carrier to the pool after a complete exchange.
    fn return_to_pool(self) {
        // A stream on an HTTP/2 connection only needs to be dropped, which happens here.
        let Self { carrier: Carrier::Http1(mut connection), origin, pool } = self else { return };
        if connection.is_ready() {
            return pool.put(&origin, connection);
        }
        // The connection's task has not seen the end of the answer yet, or the connection is about to close.
        tokio::spawn(async move {
            if timeout(pool.idle_timeout(), connection.ready()).await == Ok(true) {
                pool.put(&origin, connection);
            }
        });
    }
}

impl Answer {
    /// Wraps a response whose body must arrive by `deadline`.
    #[must_use]
    pub fn new(response: Response<Incoming>, pooled: Pooled, deadline: Instant) -> Self {
        Self { response, pooled, deadline }
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> hyper::StatusCode {
        self.response.status()
    }

    /// The answer's headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Reads the first `max` bytes of the body. If reading fails, the result has the bytes read so far and the error.
    /// The rest of a longer body stays unread and the connection is closed, so that an endless body can't prolong the
    /// attempt.
    pub async fn body(self, max: usize) -> (Vec<u8>, Result<(), SendError>) {
        const STEP: &str = "reading the answer's body";
        let Self { response, pooled, deadline } = self;
        let has_length = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| response.headers().contains_key(name));
        let ends_with_connection = !has_length && matches!(pooled.carrier, Carrier::Http1(_));
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while !incoming.is_end_stream() {
            let frame = match timeout_at(deadline, incoming.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break,
                // The connection is broken, so it doesn't return to the pool. Nothing says how long the body is.
                Ok(Some(Err(error))) if ends_with_connection && is_unclean_end(&error) => return (body, Ok(())),
                Ok(Some(Err(error))) => {
                    return (
                        body,
                        Err(SendError::new(FailureCode::Body, STEP, format_args!("it broke off: {}", chain(&error)))),
                    );
                }
                Err(_) => {
                    pooled.discard();
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
        pooled.return_to_pool();
        (body, Ok(()))
    }
}

/// Whether the endpoint closed a TLS connection without the alert that ends it (`close_notify`). Many servers do that after an
/// answer whose body ends with its connection, and clients accept it.
fn is_unclean_end(error: &hyper::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
        {
            return true;
        }
        source = error.source();
    }
    false
}
