//! Makes new connections to targets. It dials the endpoint, or the egress proxy if one is set, adds TLS for https, and
//! starts the HTTP version that the endpoint chooses.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use url::Host;

use super::connection::{self, Bounds, Http1, Http2};
use super::dial::{Dialler, Guard};
use super::failure::{SendError, classify, sentence};
use super::target::{Form, Target};
use super::tls::Tls;
use crate::config::proxy::Proxy;
use crate::delivery::FailureCode;

/// Everything that is needed to reach a target.
pub struct Route {
    /// Makes TCP connections.
    pub dialler: Dialler,
    /// Makes TLS connections over them.
    pub tls: Tls,
    /// The egress proxy; all connections lead through it.
    pub proxy: Option<Proxy>,
    /// The limits of each connection.
    pub bounds: Bounds,
}

/// A new connection.
pub enum NewConnection {
    /// An HTTP/1 connection, for one request at a time.
    Http1(Http1),
    /// An HTTP/2 connection, for many requests at once.
    Http2(Http2),
}

impl Route {
    /// Returns the form of a request to `target` over HTTP/1.
    #[must_use]
    pub fn http1_form(&self, target: &Target<'_>) -> Form<'_> {
        match &self.proxy {
            Some(proxy) if !target.is_tls => Form::Http1ToProxy(proxy),
            _ => Form::Http1,
        }
    }

    /// Makes a new connection to `target`.
    ///
    /// # Errors
    /// [`SendError`] names the failed step.
    pub async fn connect(&self, target: &Target<'_>, deadline: Instant) -> Result<NewConnection, SendError> {
        let Some(proxy) = &self.proxy else {
            let host = target.host.clone();
            let (stream, peer) = self.dialler.dial(host, target.port, Guard::Checked, deadline).await?;
            return self.start_http(target, stream, peer, deadline).await;
        };
        let host = match &proxy.host {
            Host::Domain(name) => Host::Domain(name.as_str()),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        };
        let dialled = self.dialler.dial(host, proxy.port, Guard::Trusted, deadline).await;
        let (stream, peer) = dialled.map_err(|error| of_proxy(&error))?;
        if proxy.is_tls {
            let (name, peer_name) = (proxy.host.to_string(), format!("the egress proxy {peer}"));
            let attempted = self.tls.to_proxy(stream, &name, &peer_name, deadline).await;
            let stream = attempted.map_err(|error| of_proxy(&error))?;
            self.connect_through(proxy, target, stream, peer, deadline).await
        } else {
            self.connect_through(proxy, target, stream, peer, deadline).await
        }
    }

    /// Connects to `target` through the proxy that `stream` leads to.
    async fn connect_through<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        proxy: &Proxy,
        target: &Target<'_>,
        mut stream: S,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<NewConnection, SendError> {
        if target.is_tls {
            proxy.open(&mut stream, &format!("{}:{}", target.host, target.port), deadline).await?;
        }
        self.start_http(target, stream, peer, deadline).await
    }

    /// Starts TLS, if the target needs it, and HTTP over `stream`.
    async fn start_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        target: &Target<'_>,
        stream: S,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<NewConnection, SendError> {
        let failed = |error: hyper::Error| {
            let (code, reason) = classify(&error);
            SendError::new(code, format_args!("starting HTTP with {peer}"), reason)
        };
        if !target.is_tls {
            return connection::http1(stream, peer, self.bounds).await.map(NewConnection::Http1).map_err(failed);
        }
        let name = target.host.to_string();
        let (stream, is_h2) = self.tls.to_endpoint(stream, &name, &format!("{peer} ({name})"), deadline).await?;
        let connection = match is_h2 {
            true => connection::http2(stream, peer, self.bounds).await.map(NewConnection::Http2),
            false => connection::http1(stream, peer, self.bounds).await.map(NewConnection::Http1),
        };
        connection.map_err(failed)
    }
}

/// A failure between this process and the egress proxy. The endpoint has no part in it.
fn of_proxy(error: &SendError) -> SendError {
    SendError { code: FailureCode::Egress, detail: sentence(format_args!("the egress proxy: {}", error.detail)) }
}
