//! One connection to an endpoint, and one exchange over it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// What every connection is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of an answer's headers.
    pub headers_max: usize,
    /// An HTTP/2 connection is pinged after this much silence, and given up after as much again.
    pub silence_max: Duration,
}

/// Headers of an answer at most. Their bytes are what is bounded on purpose; the parser wants a count as well.
const HEADER_COUNT_MAX: usize = 2_048;
/// What HTTP/1's parser may hold beyond the headers: the first of the body may come with them.
const BODY_BESIDE_HEADERS: usize = 16_384;
/// Bytes of an answer's body that may be on their way over HTTP/2.
const WINDOW: u32 = 256 * 1_024;

/// A request's body.
pub type Body = Full<Bytes>;

/// An HTTP/1 connection. Closed when dropped.
pub struct Http1 {
    sender: http1::SendRequest<Body>,
    /// Whom it leads to: the endpoint, or the egress proxy.
    pub peer: SocketAddr,
    heard: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

/// An HTTP/2 connection, shared by requests. Closed when its last user drops it.
pub struct Http2 {
    sender: http2::SendRequest<Body>,
    /// Whom it leads to: the endpoint, or the egress proxy.
    pub peer: SocketAddr,
    /// Requests under way.
    streams: AtomicUsize,
    made: Instant,
    /// When it was last used, in milliseconds since it was made.
    used_ms: AtomicU64,
    _task: AbortOnDropHandle<()>,
}

/// Makes the HTTP of a connection that stands.
///
/// # Errors
/// hyper's.
pub async fn http1<S>(stream: S, peer: SocketAddr, bounds: Bounds) -> hyper::Result<Http1>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let heard = Arc::new(AtomicU64::new(0));
    let io = TokioIo::new(Heard { stream, bytes: heard.clone() });
    // What other clients take is taken.
    let (sender, connection) = http1::Builder::new()
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .max_headers(HEADER_COUNT_MAX)
        .max_header_size(bounds.headers_max)
        .max_buf_size(bounds.headers_max + BODY_BESIDE_HEADERS)
        .handshake(io)
        .await?;
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "an HTTP/1 connection ended");
        }
    }));
    Ok(Http1 { sender, peer, heard, _task: task })
}

/// The same for HTTP/2.
///
/// # Errors
/// hyper's.
pub async fn http2<S>(stream: S, peer: SocketAddr, bounds: Bounds) -> hyper::Result<Http2>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(bounds.silence_max)
        .keep_alive_timeout(bounds.silence_max)
        .max_header_list_size(u32::try_from(bounds.headers_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 4)
        .handshake(TokioIo::new(stream))
        .await?;
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "an HTTP/2 connection ended");
        }
    }));
    let (streams, used_ms) = (AtomicUsize::new(0), AtomicU64::new(0));
    Ok(Http2 { sender, peer, streams, made: Instant::now(), used_ms, _task: task })
}

impl Http1 {
    /// Whether it can take a request at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Waits until it can take a request; false where it never will.
    pub async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request. The second part of an error is whether any byte of an answer came.
    ///
    /// # Errors
    /// hyper's.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, (hyper::Error, bool)> {
        let before = self.heard.load(Ordering::Acquire);
        let answer = self.sender.send_request(request).await;
        answer.map_err(|error| (error, self.heard.load(Ordering::Acquire) != before))
    }
}

impl Http2 {
    /// Whether it takes no more requests.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// When it was made.
    #[must_use]
    pub fn made(&self) -> Instant {
        self.made
    }

    /// Requests under way.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// How long nobody has used it.
    #[must_use]
    pub fn idle(&self) -> Duration {
        if self.streams() > 0 {
            return Duration::ZERO;
        }
        self.made.elapsed().saturating_sub(Duration::from_millis(self.used_ms.load(Ordering::Relaxed)))
    }

    /// Takes part in it.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Stream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Stream(self.clone())
    }
}

/// One request's part in an HTTP/2 connection.
pub struct Stream(Arc<Http2>);

impl Stream {
    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<Http2> {
        &self.0
    }

    /// Sends a request.
    ///
    /// # Errors
    /// hyper's; no byte of an answer to this request came then.
    pub async fn send(&self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        self.0.sender.clone().send_request(request).await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.used_ms.store(self.0.made.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts what is read: a request may be sent again only if nothing of an answer to it came.
struct Heard<S> {
    stream: S,
    bytes: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.bytes.fetch_add((buffer.filled().len() - before) as u64, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
