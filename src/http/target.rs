//! The target of a request, and the form in which the request is written.

use bytes::Bytes;
use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT as USER_AGENT_HEADER};
use hyper::{Method, Request, Uri};
use url::{Host, Position, Url};

use super::client::USER_AGENT;
use super::connection::Body;
use super::failure::SendError;
use crate::config::proxy::Proxy;
use crate::delivery::FailureCode;

/// The URL of a request, taken apart.
pub struct Target<'a> {
    /// The whole URL.
    pub url: &'a Url,
    /// The host to dial.
    pub host: Host<&'a str>,
    /// The port to dial.
    pub port: u16,
    /// Whether the scheme is https.
    pub is_tls: bool,
}

/// The form of a request.
#[derive(Clone, Copy)]
pub enum Form<'a> {
    /// HTTP/1 to an endpoint: the request line has the path and the query.
    Http1,
    /// HTTP/1 to a proxy: the request line has the whole URL (RFC 9112 section 3.2).
    Http1ToProxy(&'a Proxy),
    /// HTTP/2 to an endpoint.
    Http2,
}

const STEP: &str = "preparing the request";

impl<'a> Target<'a> {
    /// Takes `url` apart.
    ///
    /// # Errors
    /// [`SendError`] if the URL has no host or no port.
    pub fn of(url: &'a Url) -> Result<Self, SendError> {
        let is_tls = url.scheme() == "https";
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) => Ok(Self { url, host, port, is_tls }),
            _ => Err(SendError::new(FailureCode::Protocol, STEP, "the URL has no host")),
        }
    }

    /// Scheme, host and port. Requests with the same origin share connections.
    #[must_use]
    pub fn origin(&self) -> &'a str {
        &self.url[..Position::BeforePath]
    }

    fn authority(&self) -> &'a str {
        &self.url[Position::BeforeHost..Position::AfterPort]
    }

    /// Builds the request: `headers`, the headers that the form needs, and `body`.
    ///
    /// # Errors
    /// [`SendError`] if the URL can't be written into a request.
    pub fn request(&self, form: Form<'_>, mut headers: HeaderMap, body: Bytes) -> Result<Request<Body>, SendError> {
        let bad = |error: &dyn std::fmt::Display| {
            SendError::new(
                FailureCode::Protocol,
                STEP,
                format_args!("the URL can't be written into a request: {error}"),
            )
        };
        let whole = &self.url[..Position::AfterQuery];
        let uri = match form {
            Form::Http1 => Uri::try_from(&whole[self.origin().len()..]),
            Form::Http1ToProxy(_) | Form::Http2 => Uri::try_from(whole),
        };
        if let Form::Http1 | Form::Http1ToProxy(_) = form {
            headers.insert(HOST, HeaderValue::try_from(self.authority()).map_err(|error| bad(&error))?);
        }
        if let Form::Http1ToProxy(Proxy { authorization: Some(authorization), .. }) = form {
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
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
