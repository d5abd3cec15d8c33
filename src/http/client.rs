//! The client that requests go out by: one for all endpoints, guarded, never following redirects.

use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT as USER_AGENT_HEADER};
use hyper::{Method, Request, Uri};
use rustls::RootCertStore;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use url::{Host, Position, Url};

use super::address::AddressPolicy;
use super::answer::{Answer, Carrier, Placed};
use super::connection::{self, Body, Bounds};
use super::dial::{Dialler, Guard};
use super::failure::{SendError, of_hyper, says_unprocessed};
use super::names::{Limits, Names};
use super::pool::{Pool, Taken, Wish};
use super::tls::{self, Tls};
use super::tunnel::Proxy;
use crate::config;
use crate::delivery::FailureCode;

/// Sent as `User-Agent` (contract section 3).
pub const USER_AGENT: &str = concat!("Optio-Webhooks/", env!("CARGO_PKG_VERSION"));

/// How long a request waits for another one's connection to the same endpoint that it may share, before it dials itself.
const OTHERS_DIAL_MAX: Duration = Duration::from_secs(1);
/// How often a request is sent again, within one attempt, because the endpoint says that it did not process it.
const UNPROCESSED_MAX: u32 = 3;
/// Of `delivery.timeout`, one part of this many is the most that `delivery.silence_max` takes: there must be time left
/// to send again.
const SILENCE_PART: u32 = 3;

/// A client can't be made of these settings.
#[derive(Debug, thiserror::Error)]
pub enum BadClient {
    /// `delivery.proxy` can't be used.
    #[error("delivery.proxy: allowed is a URL like http://proxy:3128, or empty for none")]
    Proxy,
    /// The TLS library refuses.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Sends requests to endpoints. A clone is another handle to the same connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    timeout: Duration,
    bounds: Bounds,
    dialler: Dialler,
    tls: Tls,
    proxy: Option<Proxy>,
    pool: Arc<Pool>,
    sweeping: Once,
}

/// The client for these settings, with the system's trusted certificates and names.
///
/// # Errors
/// [`BadClient`]
pub fn new(delivery: &config::Delivery) -> Result<Client, BadClient> {
    Client::with(delivery, tls::system_roots(), Names::system(limits(delivery)))
}

/// How long lookups of names take and count.
#[must_use]
pub fn limits(delivery: &config::Delivery) -> Limits {
    Limits { timeout: delivery.resolve_timeout, cache_max: delivery.resolve_cache_max }
}

/// The address policy that the settings ask for.
#[must_use]
pub fn policy(delivery: &config::Delivery) -> AddressPolicy {
    AddressPolicy { allow_http: delivery.allow_http, allow_networks: delivery.allow_networks.clone() }
}

/// Where a request goes.
struct Target<'a> {
    url: &'a Url,
    host: Host<&'a str>,
    port: u16,
    is_tls: bool,
}

impl<'a> Target<'a> {
    fn of(url: &'a Url) -> Result<Self, SendError> {
        let is_tls = url.scheme() == "https";
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) => Ok(Self { url, host, port, is_tls }),
            _ => Err(SendError::new(FailureCode::Protocol, "preparing the request", "the URL has no host")),
        }
    }

    /// Scheme, host and port: whose connections it may use.
    fn origin(&self) -> &'a str {
        &self.url[..Position::BeforePath]
    }

    fn authority(&self) -> &'a str {
        &self.url[Position::BeforeHost..Position::AfterPort]
    }
}

/// An exchange that came to nothing.
struct Broken {
    error: SendError,
    /// It may be sent again: the endpoint says that it did not process it.
    is_unprocessed: bool,
    /// Nothing of an answer came before it broke.
    is_silent: bool,
}

impl Client {
    /// The client for these settings that trusts `roots` and asks `names`.
    ///
    /// # Errors
    /// [`BadClient`]
    pub fn with(delivery: &config::Delivery, roots: RootCertStore, names: Names) -> Result<Self, BadClient> {
        // For the connection to Redis, too. Another part of the process may have chosen already; then that one serves.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let proxy = match delivery.proxy.as_str() {
            "" => None,
            // A proxy from the environment is not looked at: it would bypass the guard unseen.
            url => Some(Proxy::parse(url).ok_or(BadClient::Proxy)?),
        };
        let silence_max = delivery.silence_max.min(delivery.timeout / SILENCE_PART);
        Ok(Self(Arc::new(Inner {
            timeout: delivery.timeout,
            bounds: Bounds { headers_max: delivery.response_headers_max, silence_max },
            dialler: Dialler {
                names,
                policy: policy(delivery),
                connect_timeout: delivery.connect_timeout,
                silence_max,
            },
            tls: Tls::new(roots)?,
            proxy,
            pool: Arc::new(Pool::new(delivery.idle_timeout)),
            sweeping: Once::new(),
        })))
    }

    /// Sends a request with the headers that `headers` makes; the head of its answer comes back. All of it, the body
    /// included, ends within `delivery.timeout`.
    ///
    /// A request may be sent a second time within the same time, over a new connection: where the endpoint says that it
    /// did not process it (RFC 9113 section 8.7), or where a connection that had served an earlier request broke
    /// before anything of an answer came. The latter may repeat what the endpoint has processed; RFC 9110 section
    /// 9.2.2 allows that for requests known to be idempotent, which deliveries are by their `X-Optio-Delivery`.
    ///
    /// # Errors
    /// [`SendError`] says at which step it failed and why.
    pub async fn post(&self, url: &Url, headers: impl Fn() -> HeaderMap, body: Bytes) -> Result<Answer, SendError> {
        let deadline = Instant::now() + self.0.timeout;
        let target = Target::of(url)?;
        let (mut wish, mut unprocessed, mut has_repeated) = (Wish::Any, 0, false);
        loop {
            let (placed, is_reused) = self.connection(&target, wish, deadline).await?;
            let request = self.request(&target, &placed.carrier, headers(), body.clone())?;
            let broken = match exchange(placed, request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(broken) => broken,
            };
            if broken.is_unprocessed && unprocessed < UNPROCESSED_MAX {
                unprocessed += 1;
            } else if is_reused && broken.is_silent && !has_repeated {
                has_repeated = true;
            } else {
                return Err(broken.error);
            }
            metrics::counter!("optio_webhooks_resends_total").increment(1);
            tracing::debug!(host = %target.host, reason = broken.error.detail, "sent again over a new connection");
            wish = Wish::MadeAfter(Instant::now());
        }
    }

    /// A connection to `target`; the second part is whether it served an earlier request.
    async fn connection(
        &self,
        target: &Target<'_>,
        wish: Wish,
        deadline: Instant,
    ) -> Result<(Placed, bool), SendError> {
        let placed = |carrier, origin| Placed { carrier, origin, pool: self.0.pool.clone() };
        let mut has_waited = false;
        loop {
            match self.0.pool.take(target.origin(), wish, target.is_tls, has_waited) {
                Taken::Idle(origin, connection) => return Ok((placed(Carrier::Http1(connection), origin), true)),
                Taken::Shared(origin, stream) => return Ok((placed(Carrier::Http2(stream), origin), true)),
                Taken::Dial(origin, done) => {
                    let carrier = self.dial(target, &origin, done, deadline).await?;
                    return Ok((placed(carrier, origin), false));
                }
                Taken::Wait(mut dialling) => {
                    // Over when the other has dialled, or failed to. One that takes long is not waited for.
                    let _ = timeout_at(deadline.min(Instant::now() + OTHERS_DIAL_MAX), dialling.changed()).await;
                    has_waited = true;
                }
            }
        }
    }

    /// A new connection. Whoever waits for it goes on when `done` is dropped, at the end.
    async fn dial(
        &self,
        target: &Target<'_>,
        origin: &Arc<str>,
        done: Option<watch::Sender<()>>,
        deadline: Instant,
    ) -> Result<Carrier, SendError> {
        self.0.sweeping.call_once(|| drop(tokio::spawn(self.0.pool.sweep())));
        let dialler = &self.0.dialler;
        let carrier = match &self.0.proxy {
            None => {
                let (stream, peer) = dialler.dial(target.host.clone(), target.port, Guard::Judged, deadline).await?;
                self.speak(target, origin, stream, peer, deadline).await?
            }
            Some(proxy) => {
                let host = match &proxy.host {
                    Host::Domain(name) => Host::Domain(name.as_str()),
                    Host::Ipv4(address) => Host::Ipv4(*address),
                    Host::Ipv6(address) => Host::Ipv6(*address),
                };
                let dialled = dialler.dial(host, proxy.port, Guard::Trusted, deadline).await;
                let (stream, peer) = dialled.map_err(|error| SendError {
                    detail: super::failure::sentence(format_args!("the egress proxy: {}", error.detail)),
                    ..error
                })?;
                if proxy.is_tls {
                    let (name, peer_name) = (proxy.host.to_string(), format!("the egress proxy {peer}"));
                    let stream = self.0.tls.to_proxy(stream, &name, &peer_name, deadline).await?;
                    self.through(proxy, target, origin, stream, peer, deadline).await?
                } else {
                    self.through(proxy, target, origin, stream, peer, deadline).await?
                }
            }
        };
        drop(done);
        Ok(carrier)
    }

    /// Through the proxy that `stream` leads to.
    async fn through<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        proxy: &Proxy,
        target: &Target<'_>,
        origin: &Arc<str>,
        mut stream: S,
        peer: std::net::SocketAddr,
        deadline: Instant,
    ) -> Result<Carrier, SendError> {
        if target.is_tls {
            proxy.open(&mut stream, &format!("{}:{}", target.host, target.port), deadline).await?;
        }
        self.speak(target, origin, stream, peer, deadline).await
    }

    /// TLS where the URL asks for it, and the version of HTTP that the endpoint chooses.
    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        target: &Target<'_>,
        origin: &Arc<str>,
        stream: S,
        peer: std::net::SocketAddr,
        deadline: Instant,
    ) -> Result<Carrier, SendError> {
        let Inner { tls, pool, bounds, .. } = &*self.0;
        let refused = |error: hyper::Error| {
            let (code, reason) = of_hyper(&error);
            SendError::new(code, format_args!("beginning HTTP with {peer}"), reason)
        };
        if !target.is_tls {
            return Ok(Carrier::Http1(connection::http1(stream, peer, *bounds).await.map_err(refused)?));
        }
        let name = target.host.to_string();
        let (stream, is_h2) = tls.to_endpoint(stream, &name, &format!("{peer} ({name})"), deadline).await?;
        if is_h2 {
            let connection = connection::http2(stream, peer, *bounds).await.map_err(refused)?;
            return Ok(Carrier::Http2(pool.share(origin, connection)));
        }
        pool.is_http1(origin);
        Ok(Carrier::Http1(connection::http1(stream, peer, *bounds).await.map_err(refused)?))
    }

    fn request(
        &self,
        target: &Target<'_>,
        carrier: &Carrier,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Body>, SendError> {
        let bad = |error: &dyn std::fmt::Display| {
            SendError::new(
                FailureCode::Protocol,
                "preparing the request",
                format_args!("the URL can't be asked for: {error}"),
            )
        };
        let whole = &target.url[..Position::AfterQuery];
        let to_proxy = self.0.proxy.as_ref().filter(|_| !target.is_tls);
        let uri = match carrier {
            // RFC 9112 section 3.2: the whole URL to a proxy, path and query to an endpoint.
            Carrier::Http1(_) if to_proxy.is_none() => Uri::try_from(&whole[target.origin().len()..]),
            _ => Uri::try_from(whole),
        };
        if let Carrier::Http1(_) = carrier {
            headers.insert(HOST, HeaderValue::try_from(target.authority()).map_err(|error| bad(&error))?);
        }
        if let Some(authorization) = to_proxy.and_then(|proxy| proxy.authorization.clone()) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let mut request = Request::new(Body::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.map_err(|error| bad(&error))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// One request over one connection, up to the answer's head.
async fn exchange(mut placed: Placed, request: Request<Body>, deadline: Instant) -> Result<Answer, Broken> {
    let (ended, peer) = match &mut placed.carrier {
        Carrier::Http1(connection) => (timeout_at(deadline, connection.send(request)).await, connection.peer),
        Carrier::Http2(stream) => {
            let sent = timeout_at(deadline, stream.send(request)).await;
            (sent.map(|sent| sent.map_err(|error| (error, false))), stream.connection().peer)
        }
    };
    let step = format_args!("waiting for the answer of {peer}");
    match ended {
        Ok(Ok(response)) => Ok(Answer::new(response, placed, deadline)),
        Ok(Err((error, has_heard))) => {
            let (code, reason) = of_hyper(&error);
            let is_unprocessed = says_unprocessed(&error);
            // What the endpoint said about one stream says nothing of its connection.
            if is_unprocessed || code != FailureCode::Protocol {
                placed.discard();
            }
            let is_silent = !has_heard && code != FailureCode::Protocol;
            Err(Broken { error: SendError::new(code, step, reason), is_unprocessed, is_silent })
        }
        Err(_) => {
            placed.discard();
            Err(Broken { error: SendError::timeout(step), is_unprocessed: false, is_silent: false })
        }
    }
}
