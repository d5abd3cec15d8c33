//! The client that requests go out by: one for all endpoints, guarded, never following redirects.

use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, Request};
use rustls::RootCertStore;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::address::AddressPolicy;
use super::answer::{Answer, Carrier, Placed};
use super::connection::{Body, Bounds};
use super::dial::Dialler;
use super::failure::{SendError, of_hyper, says_unprocessed};
use super::names::{Limits, Names};
use super::pool::{Pool, Taken, Wish};
use super::route::{Made, Route};
use super::target::{Form, Target};
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
    route: Route,
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
            route: Route {
                dialler: Dialler {
                    names,
                    policy: policy(delivery),
                    connect_timeout: delivery.connect_timeout,
                    silence_max,
                },
                tls: Tls::new(roots)?,
                proxy,
                bounds: Bounds { headers_max: delivery.response_headers_max, silence_max },
            },
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
            let form = match placed.carrier {
                Carrier::Http1(_) => self.0.route.http1_form(&target),
                Carrier::Http2(_) => Form::Http2,
            };
            let request = target.request(form, headers(), body.clone())?;
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
        let Inner { route, pool, sweeping, .. } = &*self.0;
        sweeping.call_once(|| drop(tokio::spawn(pool.sweep())));
        let carrier = match route.connect(target, deadline).await? {
            Made::Http1(connection) => {
                pool.is_http1(origin);
                Carrier::Http1(connection)
            }
            Made::Http2(connection) => Carrier::Http2(pool.share(origin, connection)),
        };
        drop(done);
        Ok(carrier)
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
