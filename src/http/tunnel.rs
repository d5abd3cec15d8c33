//! The egress proxy. An https request goes through a CONNECT tunnel; an http request is sent to the proxy with its
//! whole URL.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::failure::SendError;
use crate::delivery::FailureCode;

/// The largest head of the proxy's answer to a CONNECT, in bytes.
const ANSWER_MAX: usize = 16_384;
/// The most headers in that answer.
const HEADERS_MAX: usize = 128;

/// The egress proxy (`delivery.proxy`).
#[derive(Clone)]
pub struct Proxy {
    /// The proxy's host, without credentials.
    pub host: url::Host,
    /// The proxy's port.
    pub port: u16,
    /// Whether connections to the proxy itself use TLS.
    pub is_tls: bool,
    /// The value of `Proxy-Authorization`, if the URL has credentials.
    pub authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Parses `delivery.proxy`. Returns `None` if it isn't the URL of an http or https proxy. A bare host and port
    /// means http. A URL with credentials needs its scheme, because the masking of shown URLs recognises credentials by
    /// it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_bare = !text.contains("://") && !text.contains('@');
        let url = if is_bare { Url::parse(&format!("http://{text}")) } else { Url::parse(text) }.ok()?;
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authorization = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let mut credentials: Vec<u8> = percent_decode_str(user).collect();
                credentials.push(b':');
                credentials.extend(percent_decode_str(password.unwrap_or_default()));
                let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials))).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Some(Self { host: url.host()?.to_owned(), port: url.port_or_known_default()?, is_tls, authorization })
    }

    /// Opens a tunnel to `target` (host and port) over `stream`, which leads to the proxy.
    ///
    /// # Errors
    /// Fails if the proxy refuses, breaks the connection, or doesn't answer before `deadline`.
    pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        target: &str,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let step = format!("asking the proxy {}:{} for a tunnel to {target}", self.host, self.port);
        match timeout_at(deadline, self.send_connect(stream, target)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(SendError::new(FailureCode::Connect, step, reason)),
            Err(_) => Err(SendError::timeout(step)),
        }
    }

    async fn send_connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        target: &str,
    ) -> Result<(), String> {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let broke = |error: std::io::Error| format!("the connection broke: {error}");
        stream.write_all(&request).await.map_err(broke)?;
        stream.flush().await.map_err(broke)?;
        let mut answer = Vec::new();
        loop {
            if stream.read_buf(&mut answer).await.map_err(broke)? == 0 {
                return Err("the proxy closed the connection".to_owned());
            }
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut parsed = httparse::Response::new(&mut headers);
            match parsed.parse(&answer) {
                Ok(httparse::Status::Complete(_)) => match parsed.code {
                    Some(200..=299) => return Ok(()),
                    Some(407) => {
                        return Err("the proxy rejected the credentials, or needs some (status 407)".to_owned());
                    }
                    code => return Err(format!("the proxy answered with status {}", code.unwrap_or_default())),
                },
                Ok(httparse::Status::Partial) if answer.len() < ANSWER_MAX => {}
                Ok(httparse::Status::Partial) => return Err("the proxy's answer is too large".to_owned()),
                Err(error) => return Err(format!("the proxy's answer isn't HTTP: {error}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_http_url_with_or_without_credentials_or_scheme() {
        let plain = Proxy::parse("proxy:3128").unwrap();
        assert_eq!((plain.host.to_string().as_str(), plain.port, plain.is_tls), ("proxy", 3128, false));
        assert!(plain.authorization.is_none());
        let secret = Proxy::parse("https://me:p%40ss@proxy.example").unwrap();
        assert_eq!((secret.port, secret.is_tls), (443, true));
        assert_eq!(secret.authorization.unwrap().as_bytes(), b"Basic bWU6cEBzcw==");
        for bad in ["socks5://proxy:1080", "http://", "ftp://proxy", "", "me:pass@proxy:3128"] {
            assert!(Proxy::parse(bad).is_none(), "{bad}");
        }
    }
}
