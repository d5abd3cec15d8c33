//! Where a request goes, and how it is written.

use bytes::Bytes;
use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT as USER_AGENT_HEADER};
use hyper::{Method, Request, Uri};
use url::{Host, Position, Url};

use super::client::USER_AGENT;
use super::connection::Body;
use super::failure::SendError;
use super::tunnel::Proxy;
use crate::delivery::FailureCode;

/// Where a request goes.
pub struct Target<'a> {
    /// All of it.
    pub url: &'a Url,
    /// Whom to dial.
    pub host: Host<&'a str>,
    /// At which port.
    pub port: u16,
    /// Whether it is https.
    pub is_tls: bool,
}

/// How a request is written.
#[derive(Clone, Copy)]
pub enum Form<'a> {
    /// HTTP/1: path and query to an endpoint.
    Http1,
    /// HTTP/1: the whole URL to a proxy (RFC 9112 section 3.2).
    Http1ToProxy(&'a Proxy),
    /// HTTP/2.
    Http2,
}

const STEP: &str = "preparing the request";

impl<'a> Target<'a> {
    /// What `url` says.
    ///
    /// # Errors
    /// [`SendError`] where there is nothing to dial.
    pub fn of(url: &'a Url) -> Result<Self, SendError> {
        let is_tls = url.scheme() == "https";
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) => Ok(Self { url, host, port, is_tls }),
            _ => Err(SendError::new(FailureCode::Protocol, STEP, "the URL has no host")),
        }
    }

    /// Scheme, host and port: whose connections it may use.
    #[must_use]
    pub fn origin(&self) -> &'a str {
        &self.url[..Position::BeforePath]
    }

    fn authority(&self) -> &'a str {
        &self.url[Position::BeforeHost..Position::AfterPort]
    }

    /// The request itself.
    ///
    /// # Errors
    /// [`SendError`] where the URL can't be written into a request.
    pub fn request(&self, form: Form<'_>, mut headers: HeaderMap, body: Bytes) -> Result<Request<Body>, SendError> {
        let bad = |error: &dyn std::fmt::Display| {
            SendError::new(FailureCode::Protocol, STEP, format_args!("the URL can't be asked for: {error}"))
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
