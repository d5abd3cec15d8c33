//! One HTTP connection to an endpoint or to the egress proxy, and the exchange of a request and an answer over it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::observed::{Observed, Seen};
use super::reread::{Reread, Stream as AnyStream};

/// The limits of every connection.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The largest headers of an answer, in bytes.
    pub headers_max: usize,
    /// An HTTP/2 connection is pinged after this much silence, and closed if the ping stays unanswered for as long.
    pub silence_max: Duration,
}

/// The most headers in an answer. `Bounds::headers_max` is the intended limit; hyper's parser needs a count as well.
const HEADER_COUNT_MAX: usize = 2_048;
/// The space in the HTTP/1 parser's buffer beyond the headers, in bytes. The start of the body may arrive with them.
const BODY_BESIDE_HEADERS: usize = 16_384;
/// How long an answer may be on its way from the task of a connection that has ended.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// The HTTP/2 flow-control window of a stream, in bytes. The window of a connection is four times as large.
const WINDOW: u32 = 256 * 1_024;

/// A request's body.
pub type Body = Full<Bytes>;

/// An HTTP/1 connection. It closes when it is dropped.
pub struct Http1 {
    sender: http1::SendRequest<Body>,
    /// The address of the endpoint or of the egress proxy.
    pub peer: SocketAddr,
    seen: Arc<Seen>,
    bounds: Bounds,
    /// Ends with what the connection read and did not understand.
    task: AbortOnDropHandle<Reread>,
    ended: CancellationToken,
    /// Whether it may carry no further request.
    is_spent: bool,
}

/// An HTTP/2 connection that requests share. It closes when the last handle is dropped.
pub struct Http2 {
    sender: http2::SendRequest<Body>,
    /// The address of the endpoint or of the egress proxy.
    pub peer: SocketAddr,
    /// Requests in flight.
    streams: AtomicUsize,
    /// The number of requests that the endpoint allows at once, as it said last (RFC 9113, section 6.5.2).
    streams_max: Arc<AtomicUsize>,
    made: Instant,
    /// When the last request ended, in milliseconds since `made`.
    used_ms: AtomicU64,
    seen: Arc<Seen>,
    ended: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

/// Starts HTTP/1 on an established connection.
///
/// # Errors
/// Returns hyper's error if the handshake fails.
pub async fn http1<S>(stream: S, peer: SocketAddr, bounds: Bounds) -> hyper::Result<Http1>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seen = Arc::new(Seen::default());
    let io = TokioIo::new(Observed { stream, seen: seen.clone() });
    let (sender, connection) = parser(bounds).handshake(io).await?;
    let ended = CancellationToken::new();
    let task = spawned(connection, ended.clone());
    Ok(Http1 { sender, peer, seen, bounds, task, ended, is_spent: false })
}

/// Reads and writes in a task of its own, which cancels `ended` when it ends.
fn spawned<S: AnyStream + 'static>(
    mut connection: http1::Connection<TokioIo<S>, Body>,
    ended: CancellationToken,
) -> AbortOnDropHandle<Reread> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let _ended = ended.drop_guard();
        if let Err(error) = (&mut connection).await {
            tracing::trace!(%error, "an HTTP/1 connection ended");
        }
        let parts = connection.into_parts();
        Reread::new(parts.read_buf, Box::new(parts.io.into_inner()))
    }))
}

/// A parser that is as lenient as common HTTP clients, because some servers send malformed headers.
fn parser(bounds: Bounds) -> http1::Builder {
    let mut parser = http1::Builder::new();
    parser
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .max_header_size(bounds.headers_max)
        .max_buf_size(bounds.headers_max + BODY_BESIDE_HEADERS);
    parser
}

/// Starts HTTP/2 on an established connection.
///
/// # Errors
/// Returns hyper's error if the handshake fails.
pub async fn http2<S>(stream: S, peer: SocketAddr, bounds: Bounds) -> hyper::Result<Http2>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seen = Arc::new(Seen::default());
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(bounds.silence_max)
        .keep_alive_timeout(bounds.silence_max)
        .max_header_list_size(u32::try_from(bounds.headers_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 4)
        .handshake(TokioIo::new(Observed { stream, seen: seen.clone() }))
        .await?;
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let streams_max = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let noted = streams_max.clone();
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ended = guard;
        let mut connection = pin!(connection);
        let moved = poll_fn(|context| {
            let state = connection.as_mut().poll(context);
            noted.store(connection.as_ref().get_ref().current_max_send_streams(), Ordering::Relaxed);
            state
        });
        if let Err(error) = moved.await {
            tracing::trace!(%error, "an HTTP/2 connection ended");
        }
    }));
    let (streams, used_ms) = (AtomicUsize::new(0), AtomicU64::new(0));
    Ok(Http2 { sender, peer, streams, streams_max, made: Instant::now(), used_ms, seen, ended, _task: task })
}

/// Waits for the answer to a request. None: the connection ended, and the request is lost.
///
/// hyper hands a request to the connection's task through a channel. If the task ends in the very moment in which the request
/// is put there, nobody takes it out, and its answer would never come.
async fn answered<T>(
    answer: impl Future<Output = hyper::Result<T>>,
    ended: &CancellationToken,
) -> Result<T, Option<hyper::Error>> {
    let mut answer = pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => Some(answer),
        // An answer or an error that the connection has read may still be on its way to here.
        () = ended.cancelled() => timeout(LOST_AFTER, answer).await.ok(),
    };
    answer.ok_or(None)?.map_err(Some)
}

impl Http1 {
    /// Whether the connection can take a request now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.is_spent && self.sender.is_ready()
    }

    /// Waits until the connection can take a request. Returns false if it has closed.
    pub async fn ready(&mut self) -> bool {
        !self.is_spent && self.sender.ready().await.is_ok()
    }

    /// What the connection remembers.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// Returns hyper's error, if the request was not lost, and whether any byte of an answer arrived before it.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, (Option<hyper::Error>, bool)> {
        let before = self.seen.received();
        let mut answer = answered(self.sender.send_request(request), &self.ended).await;
        if let Err(Some(error)) = &answer
            && error.is_parse_too_large()
            && !self.is_spent
            && let Ok(read) = (&mut self.task).await
        {
            answer = Box::pin(self.reread(read)).await;
        }
        answer.map_err(|error| (error, self.seen.received() != before))
    }

    /// Reads the head of an answer again, with room for more headers.
    async fn reread(&mut self, read: Reread) -> Result<Response<Incoming>, Option<hyper::Error>> {
        self.is_spent = true;
        let io = TokioIo::new(read);
        let (sender, connection) =
            parser(self.bounds).max_headers(HEADER_COUNT_MAX).handshake(io).await.map_err(Some)?;
        self.ended = CancellationToken::new();
        (self.sender, self.task) = (sender, spawned(connection, self.ended.clone()));
        // It is never sent. Without a request, hyper expects no answer.
        let request = Request::post("/").body(Body::default()).expect("a constant request is valid");
        answered(self.sender.send_request(request), &self.ended).await
    }
}

impl Http2 {
    /// What the connection remembers.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Whether the connection accepts no further requests.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// The time when the connection was made.
    #[must_use]
    pub fn made(&self) -> Instant {
        self.made
    }

    /// The number of requests in flight.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether it can take one more request at once, of at most `max`. hyper would let a request wait for the others, which may be those of
    /// another webhook.
    #[must_use]
    pub fn has_room(&self, max: usize) -> bool {
        self.streams() < max.min(self.streams_max.load(Ordering::Relaxed))
    }

    /// The time since the last request ended; zero while one is in flight.
    #[must_use]
    pub fn idle(&self) -> Duration {
        if self.streams() > 0 {
            return Duration::ZERO;
        }
        self.made.elapsed().saturating_sub(Duration::from_millis(self.used_ms.load(Ordering::Relaxed)))
    }

    /// Counts one more request in flight and returns its handle.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Stream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Stream(self.clone())
    }
}

/// One request's handle to a shared HTTP/2 connection. Dropping it ends the request's share.
pub struct Stream(Arc<Http2>);

impl Stream {
    /// The shared connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<Http2> {
        &self.0
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// Returns hyper's error, if the request was not lost. In both cases no part of an answer to it was received.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Option<hyper::Error>> {
        answered(self.0.sender.clone().send_request(request), &self.0.ended).await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.used_ms.store(self.0.made.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_that_a_connection_never_took_is_given_up_soon_after_its_end() {
        let ended = CancellationToken::new();
        ended.cancel();
        let began = Instant::now();
        let lost = answered(std::future::pending::<hyper::Result<()>>(), &ended).await;
        assert!(matches!(lost, Err(None)) && began.elapsed() < LOST_AFTER * 2, "{lost:?} after {:?}", began.elapsed());
        let late = async {
            tokio::time::sleep(LOST_AFTER / 2).await;
            Ok(7)
        };
        assert_eq!(answered(late, &ended).await.ok(), Some(7), "an answer that is on its way still arrives");
    }
}
