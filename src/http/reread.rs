//! Reads the head of an answer a second time, with room for more headers.
//!
//! For each answer, hyper prepares 64 bytes for each header that it may have. Room for the few thousand that are allowed
//! would cost every exchange more than its bookkeeping, and hardly any answer has more than a hundred. So the first parser
//! has hyper's default, and an answer with more headers is read again by one with more room. The first one has closed the
//! direction to the endpoint by then, so the connection carries no further request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection to an endpoint or to the egress proxy.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A stream from which some bytes were read already. The request was sent before, so whatever is written is dropped. Nothing
/// is read before something was written, because hyper takes that for an answer that nobody asked for.
pub struct Reread {
    /// The bytes that are read again.
    read: Bytes,
    /// The rest of the answer.
    stream: Box<dyn Stream>,
    is_asked: bool,
    /// Woken when something is written.
    waker: Option<Waker>,
}

impl Reread {
    /// Reads `read` again, and then the rest of `stream`.
    pub fn new(read: Bytes, stream: Box<dyn Stream>) -> Self {
        Self { read, stream, is_asked: false, waker: None }
    }
}

impl AsyncRead for Reread {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.is_asked {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Reread {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_asked = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
