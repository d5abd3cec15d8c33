//! A new connection to a target: dialled, through the egress proxy where there is one, with TLS where the URL asks for
//! it, and with the version of HTTP that the endpoint chooses.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use url::Host;

use super::connection::{self, Bounds, Http1, Http2};
use super::dial::{Dialler, Guard};
use super::failure::{SendError, of_hyper, sentence};
use super::target::{Form, Target};
use super::tls::Tls;
use super::tunnel::Proxy;

/// How targets are reached.
pub struct Route {
    /// Makes TCP connections.
    pub dialler: Dialler,
    /// Makes TLS of them.
    pub tls: Tls,
    /// Whom all connections lead through.
    pub proxy: Option<Proxy>,
    /// What each is allowed.
    pub bounds: Bounds,
}

/// A connection that was made.
pub enum Made {
    /// For one request at a time.
    Http1(Http1),
    /// For many.
    Http2(Http2),
}

impl Route {
    /// How a request to `target` is written over HTTP/1.
    #[must_use]
    pub fn http1_form(&self, target: &Target<'_>) -> Form<'_> {
        match &self.proxy {
            Some(proxy) if !target.is_tls => Form::Http1ToProxy(proxy),
            _ => Form::Http1,
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`SendError`] says at which step it failed.
    pub async fn connect(&self, target: &Target<'_>, deadline: Instant) -> Result<Made, SendError> {
        let Some(proxy) = &self.proxy else {
            let host = target.host.clone();
            let (stream, peer) = self.dialler.dial(host, target.port, Guard::Judged, deadline).await?;
            return self.speak(target, stream, peer, deadline).await;
        };
        let host = match &proxy.host {
            Host::Domain(name) => Host::Domain(name.as_str()),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        };
        let dialled = self.dialler.dial(host, proxy.port, Guard::Trusted, deadline).await;
        let (stream, peer) = dialled.map_err(|SendError { code, detail }| SendError {
            code,
            detail: sentence(format_args!("the egress proxy: {detail}")),
        })?;
        if proxy.is_tls {
            let (name, peer_name) = (proxy.host.to_string(), format!("the egress proxy {peer}"));
            let stream = self.tls.to_proxy(stream, &name, &peer_name, deadline).await?;
            self.through(proxy, target, stream, peer, deadline).await
        } else {
            self.through(proxy, target, stream, peer, deadline).await
        }
    }

    /// Through the proxy that `stream` leads to.
    async fn through<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        proxy: &Proxy,
        target: &Target<'_>,
        mut stream: S,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Made, SendError> {
        if target.is_tls {
            proxy.open(&mut stream, &format!("{}:{}", target.host, target.port), deadline).await?;
        }
        self.speak(target, stream, peer, deadline).await
    }

    /// TLS and HTTP over `stream`.
    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        target: &Target<'_>,
        stream: S,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Made, SendError> {
        let refused = |error: hyper::Error| {
            let (code, reason) = of_hyper(&error);
            SendError::new(code, format_args!("beginning HTTP with {peer}"), reason)
        };
        if !target.is_tls {
            return connection::http1(stream, peer, self.bounds).await.map(Made::Http1).map_err(refused);
        }
        let name = target.host.to_string();
        let (stream, is_h2) = self.tls.to_endpoint(stream, &name, &format!("{peer} ({name})"), deadline).await?;
        let made = match is_h2 {
            true => connection::http2(stream, peer, self.bounds).await.map(Made::Http2),
            false => connection::http1(stream, peer, self.bounds).await.map(Made::Http1),
        };
        made.map_err(refused)
    }
}
