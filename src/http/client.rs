//! The HTTP client that sends requests to all endpoints. It dials allowed addresses only and never follows redirects.

use crate::metrics;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, Request, StatusCode};
use rustls::RootCertStore;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::answer::{Answer, Carrier, Pooled};
use super::connection::{Body, Bounds};
use super::dial::Dialler;
use super::failure::{self, SendError, classify};
use super::names::{Limits, Names};
use super::pool::{Checkout, Freshness, Pool};
use super::route::{NewConnection, Route};
use super::target::{Form, Target};
use super::tls::{self, Tls};
use crate::address::{AddressPolicy, Blocked};
use crate::config;
use crate::config::BadConfig;
use crate::config::proxy::Proxy;
use crate::config::tls_files::TlsFiles;
use crate::delivery::FailureCode;

#[cfg(test)]
pub(crate) mod scripted;

/// The value of `User-Agent` (`docs/reference.md`, section "Request headers").
pub const USER_AGENT: &str = concat!("Optio-Webhooks/", env!("CARGO_PKG_VERSION"));

/// How long a request waits while another request dials a connection that both may share, before it dials its own.
const SHARED_DIAL_WAIT_MAX: Duration = Duration::from_secs(1);
/// How many times a request is sent again within one attempt because the endpoint says that it did not process it.
const UNPROCESSED_RESENDS_MAX: u32 = 3;
/// `delivery.silence_max` is capped at `delivery.timeout` divided by this, so that there is time left to send again.
const SILENCE_DIVISOR: u32 = 3;

/// Why the client can't be built from these settings.
#[derive(Debug, thiserror::Error)]
pub enum BadClient {
    /// `delivery.proxy` isn't the URL of an http or https proxy.
    #[error("delivery.proxy: must be a URL like http://proxy:3128, or empty for no proxy")]
    Proxy,
    /// The TLS library refuses its configuration.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A file with certificates or a key can't be used.
    #[error(transparent)]
    Files(#[from] BadConfig),
}

/// Sends requests to endpoints. Clones share the same connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    timeout: Duration,
    route: Route,
    pool: Arc<Pool>,
    sweeping: Once,
    /// Answers instead of endpoints, in simulations.
    #[cfg(test)]
    script: Option<scripted::Script>,
}

/// Builds the client for these settings. It uses the system's trusted certificates and name resolution.
///
/// # Errors
/// [`BadClient`] if the proxy, TLS or a file with certificates can't be used.
pub fn new(delivery: &config::DeliverySettings) -> Result<Client, BadClient> {
    Client::with(delivery, tls::system_roots(), Names::system(limits(delivery)))
}

/// Returns the limits of name lookups that the settings ask for.
#[must_use]
pub fn limits(delivery: &config::DeliverySettings) -> Limits {
    Limits { timeout: delivery.resolve_timeout, cache_max: delivery.resolve_cache_max }
}

/// Returns the address policy that the settings ask for.
#[must_use]
pub fn policy(delivery: &config::DeliverySettings) -> AddressPolicy {
    AddressPolicy {
        allow_http: delivery.allow_http,
        allow_ports: delivery.allow_ports.clone(),
        allow_networks: delivery.allow_networks.clone(),
        deny_networks: delivery.deny_networks.clone(),
        nat64_prefixes: delivery.nat64_prefixes.clone(),
    }
}

/// A failed exchange, and whether its request may be sent again.
struct ExchangeError {
    error: SendError,
    /// The endpoint says that it did not process the request.
    is_unprocessed: bool,
    /// The connection broke before any byte of an answer arrived.
    is_unanswered: bool,
}

impl Client {
    /// Builds the client for these settings. It trusts `roots` and the certificates of `delivery.ca_file`, and resolves
    /// hosts through `names`.
    ///
    /// # Errors
    /// [`BadClient`] if the proxy, TLS or a file with certificates can't be used.
    pub fn with(
        delivery: &config::DeliverySettings,
        mut roots: RootCertStore,
        names: Names,
    ) -> Result<Self, BadClient> {
        let TlsFiles { authorities, identity } = delivery.tls_files()?;
        for authority in authorities {
            roots.add(authority)?;
        }
        if roots.is_empty() {
            tracing::warn!(
                "no trusted certificates found: every https:// endpoint will fail; install ca-certificates, or set \
                 delivery.ca_file"
            );
        }
        // The connection to Redis uses this provider as well. If another part of the process has installed one already,
        // that one stays.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let proxy = match delivery.proxy.expose() {
            "" => None,
            // Proxy settings in environment variables are ignored: such a proxy would bypass the address policy
            // unnoticed.
            url => Some(Proxy::parse(url).ok_or(BadClient::Proxy)?),
        };
        let silence_max = delivery.silence_max.min(delivery.timeout / SILENCE_DIVISOR);
        Ok(Self(Arc::new(Inner {
            timeout: delivery.timeout,
            route: Route {
                dialler: Dialler {
                    names,
                    policy: policy(delivery),
                    connect_timeout: delivery.connect_timeout,
                    silence_max,
                },
                tls: Tls::new(roots, identity)?,
                proxy,
                bounds: Bounds { headers_max: delivery.response_headers_max, silence_max },
            },
            pool: Arc::new(Pool::new(delivery.idle_timeout)),
            sweeping: Once::new(),
            #[cfg(test)]
            script: None,
        })))
    }

    /// Checks whether requests may go to `url`. Its host isn't resolved for that.
    ///
    /// # Errors
    /// [`Blocked`] names the problem and what is allowed instead.
    pub fn check_url(&self, url: &Url) -> Result<(), Blocked> {
        self.0.route.dialler.policy.check_url(url)
    }

    /// Sends a `POST` request and returns its answer once the answer's head has arrived. `headers` builds the headers
    /// and is called each time the request is sent. `delivery.timeout` covers everything, including the answer's body.
    ///
    /// Within that time the request may be sent again over a new connection, in two cases: the endpoint says that it
    /// did not process the request (RFC 9113 section 8.7), or the connection had served an earlier request and broke
    /// before any byte of an answer arrived. In the second case the endpoint may process the request twice. RFC 9110
    /// section 9.2.2 allows this for requests that are known to be idempotent, as deliveries are by their
    /// `X-Optio-Delivery`.
    ///
    /// Dropping the future cancels the request. The endpoint may have processed it by then.
    ///
    /// # Errors
    /// [`SendError`] names the failed step and the reason.
    pub async fn post(&self, url: &Url, headers: impl Fn() -> HeaderMap, body: Bytes) -> Result<Answer, SendError> {
        let deadline = Instant::now() + self.0.timeout;
        let target = Target::of(url)?;
        let (mut freshness, mut unprocessed_resends, mut has_resent_unanswered) = (Freshness::Any, 0, false);
        loop {
            let (pooled, is_reused) = self.connection(&target, freshness, deadline).await?;
            let form = match pooled.carrier {
                Carrier::Http1(_) => self.0.route.http1_form(&target),
                Carrier::Http2(_) => Form::Http2,
            };
            let is_to_proxy = matches!(form, Form::Http1ToProxy(_));
            let request = target.request(form, headers(), body.clone())?;
            let failure = match exchange(pooled, request, deadline).await {
                // Only a proxy answers so (RFC 9110 section 15.5.8), and the endpoint never saw the request.
                Ok(answer) if is_to_proxy && answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    let reason = "the egress proxy rejected the credentials, or needs some (status 407)";
                    return Err(SendError::new(FailureCode::Egress, "sending the request", reason));
                }
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.is_unprocessed && unprocessed_resends < UNPROCESSED_RESENDS_MAX {
                unprocessed_resends += 1;
            } else if is_reused && failure.is_unanswered && !has_resent_unanswered {
                has_resent_unanswered = true;
            } else {
                return Err(failure.error);
            }
            metrics::RESENDS.increment();
            tracing::debug!(host = %target.host, reason = failure.error.detail, "sending again over a new connection");
            freshness = Freshness::MadeAfter(Instant::now());
        }
    }

    /// Gets a connection to `target` from the pool, or dials one. The flag says whether it served an earlier request.
    async fn connection(
        &self,
        target: &Target<'_>,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<(Pooled, bool), SendError> {
        let pooled = |carrier, origin| Pooled { carrier, origin, pool: self.0.pool.clone() };
        let mut has_waited = false;
        loop {
            match self.0.pool.checkout(target.origin(), freshness, target.is_tls, has_waited) {
                Checkout::Idle(origin, connection) => return Ok((pooled(Carrier::Http1(connection), origin), true)),
                Checkout::Shared(origin, stream) => return Ok((pooled(Carrier::Http2(stream), origin), true)),
                Checkout::Dial(origin, done) => {
                    // Dialling is rare and its state is large, so it is allocated only when it is needed.
                    let carrier = Box::pin(self.dial(target, &origin, done, deadline)).await?;
                    return Ok((pooled(carrier, origin), false));
                }
                Checkout::Wait(mut dialling) => {
                    // This ends when the other caller has dialled or failed, or after a bounded wait.
                    let _ = timeout_at(deadline.min(Instant::now() + SHARED_DIAL_WAIT_MAX), dialling.changed()).await;
                    has_waited = true;
                }
            }
        }
    }

    /// Dials a new connection and adds it to the pool if it can be shared. Callers that wait for it continue when
    /// `done` is dropped, so it must outlive the addition to the pool.
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
            NewConnection::Http1(connection) => {
                pool.mark_http1(origin);
                Carrier::Http1(connection)
            }
            NewConnection::Http2(connection) => Carrier::Http2(pool.share(origin, connection)),
        };
        drop(done);
        Ok(carrier)
    }
}

/// Sends one request over one connection and waits for the head of the answer.
async fn exchange(mut pooled: Pooled, request: Request<Body>, deadline: Instant) -> Result<Answer, ExchangeError> {
    let (result, peer) = match &mut pooled.carrier {
        Carrier::Http1(connection) => (timeout_at(deadline, connection.send(request)).await, connection.peer),
        Carrier::Http2(stream) => {
            let sent = timeout_at(deadline, stream.send(request)).await;
            (sent.map(|sent| sent.map_err(|error| (error, false))), stream.connection().peer)
        }
    };
    let step = format_args!("waiting for an answer from {peer}");
    match result {
        Ok(Ok(response)) => Ok(Answer::new(response, pooled, deadline)),
        Ok(Err((error, has_received))) => {
            let seen = match &pooled.carrier {
                Carrier::Http1(connection) => connection.seen(),
                Carrier::Http2(stream) => stream.connection().seen(),
            };
            let (code, reason) = match (seen.tls_error(), &error) {
                (Some(tls), _) => (FailureCode::Tls, tls::explanation(tls)),
                (None, Some(error)) => classify(error),
                (None, None) => (FailureCode::Connect, "the connection ended before it took the request".to_owned()),
            };
            let is_unprocessed = error.as_ref().is_some_and(failure::is_unprocessed);
            // A protocol error concerns one stream. The other requests on its connection may still succeed.
            if is_unprocessed || code != FailureCode::Protocol {
                pooled.discard();
            }
            let is_unanswered = !has_received && code != FailureCode::Protocol;
            Err(ExchangeError { error: SendError::new(code, step, reason), is_unprocessed, is_unanswered })
        }
        Err(_) => {
            pooled.discard();
            Err(ExchangeError { error: SendError::timeout(step), is_unprocessed: false, is_unanswered: false })
        }
    }
}
