//! A connection that remembers what went by: how many bytes it received, and a TLS error.
//!
//! In TLS 1.3 an endpoint refuses a client certificate after the client's handshake has ended, so the alert reaches the
//! HTTP library, which keeps at most its text. The connection itself keeps the error with its type.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection remembers.
#[derive(Debug, Default)]
pub struct Seen {
    received: AtomicU64,
    tls_error: OnceLock<rustls::Error>,
}

impl Seen {
    /// The bytes that were received. A request on a reused connection may be sent again only if no byte of an answer has
    /// arrived.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// The TLS error that ended the connection.
    #[must_use]
    pub fn tls_error(&self) -> Option<&rustls::Error> {
        self.tls_error.get()
    }

    fn note<T>(&self, done: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = done
            && let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            // The first error is the reason for all others.
            let _ = self.tls_error.set(tls.clone());
        }
    }
}

/// Passes everything on to `stream`, and notes it in `seen`.
pub struct Observed<S> {
    /// The connection.
    pub stream: S,
    /// What it remembers.
    pub seen: Arc<Seen>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.seen.note(&done);
        self.seen.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Release);
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.seen.note(&done);
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.seen.note(&done);
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.seen.note(&done);
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
