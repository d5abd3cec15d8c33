//! Drives an HTTP/1 connection within the task that waits for its answer.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::connection::Body;
use super::reread::{Reread, Stream};

/// The part of an HTTP/1 connection that reads and writes.
pub struct Driver {
    connection: Box<dyn Drive>,
    has_ended: bool,
}

/// A connection of hyper, whatever its stream is.
trait Drive: Send {
    /// Moves the connection on. Ready when it has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>>;

    /// The stream, and what was read from it and not understood.
    fn into_reread(self: Box<Self>) -> Reread;
}

impl<S: Stream + 'static> Drive for http1::Connection<TokioIo<S>, Body> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(self).poll(context)
    }

    fn into_reread(self: Box<Self>) -> Reread {
        let parts = self.into_parts();
        Reread::new(parts.read_buf, Box::new(parts.io.into_inner()))
    }
}

/// A connection that has ended and whose stream is used otherwise.
struct Ended;

impl Drive for Ended {
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn into_reread(self: Box<Self>) -> Reread {
        Reread::new(Bytes::new(), Box::new(tokio::io::join(tokio::io::empty(), tokio::io::sink())))
    }
}

impl Driver {
    /// Drives a connection.
    pub fn new<S: Stream + 'static>(connection: http1::Connection<TokioIo<S>, Body>) -> Self {
        Self { connection: Box::new(connection), has_ended: false }
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes the stream of a connection that has ended, with what was read from it and not understood.
    pub fn take_reread(&mut self) -> Reread {
        std::mem::replace(&mut self.connection, Box::new(Ended)).into_reread()
    }

    /// Moves the connection on as far as it goes now.
    pub fn advance(&mut self, context: &mut Context<'_>) {
        if !self.has_ended
            && let Poll::Ready(ended) = self.connection.poll(context)
        {
            self.has_ended = true;
            if let Err(error) = ended {
                tracing::trace!(%error, "an HTTP/1 connection ended");
            }
        }
    }

    /// Moves the connection on until `what`, which waits for it, is done.
    pub async fn until<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        poll_fn(|context| {
            self.advance(context);
            what.as_mut().poll(context)
        })
        .await
    }
}
