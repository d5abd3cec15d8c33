//! One shared client, and what each of its failures is called.

use std::error::Error;
use std::time::Duration;

use reqwest::redirect;

use super::address::{AddressPolicy, Blocked, GuardedResolver, NotResolved};
use crate::config;
use crate::delivery::FailureCode;

/// Sent as `User-Agent` (contract section 3).
pub const USER_AGENT: &str = concat!("Optio-Webhooks/", env!("CARGO_PKG_VERSION"));

/// How long a connection is kept for the next request. Many webhooks may share a host, so their number per host
/// has no bound of its own: it can't exceed what was in flight at once.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// The client for these settings: pooled, guarded, never following redirects.
///
/// # Errors
/// Where the proxy's URL or the system's certificates can't be used.
pub fn new(delivery: &config::Delivery) -> Result<reqwest::Client, reqwest::Error> {
    // Another part of the process may have chosen the provider already; then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .timeout(delivery.timeout)
        .pool_idle_timeout(POOL_IDLE)
        .tcp_nodelay(true)
        // Retries are ours. Zero tells the client so before it copies the request for one.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .dns_resolver(GuardedResolver(policy(delivery)));
    // A proxy from the environment would bypass the guard unseen.
    builder = match delivery.proxy.as_str() {
        "" => builder.no_proxy(),
        proxy => builder.proxy(reqwest::Proxy::all(proxy)?),
    };
    builder.build()
}

/// The address policy that the settings ask for.
#[must_use]
pub fn policy(delivery: &config::Delivery) -> AddressPolicy {
    AddressPolicy { allow_http: delivery.allow_http, allow_networks: delivery.allow_networks.clone() }
}

/// What an error of the client is called (contract section 6); by its types, not by its text.
#[must_use]
pub fn failure_code(error: &reqwest::Error) -> FailureCode {
    if causes(error).any(|cause| cause.is::<Blocked>()) {
        FailureCode::AddressBlocked
    } else if error.is_timeout() {
        FailureCode::Timeout
    } else if causes(error).any(|cause| cause.is::<NotResolved>()) {
        FailureCode::Dns
    } else if causes(error).any(is_tls) {
        FailureCode::Tls
    } else if error.is_connect() {
        FailureCode::Connect
    } else if error.is_body() || error.is_decode() {
        FailureCode::Body
    } else if causes(error).any(|cause| cause.is::<std::io::Error>()) {
        // A pooled connection that broke under the request.
        FailureCode::Connect
    } else {
        FailureCode::Protocol
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// rustls's errors travel inside of io::Error, which doesn't show what it holds as its source.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inside.is_some_and(|inside| inside.is::<rustls::Error>())
}
