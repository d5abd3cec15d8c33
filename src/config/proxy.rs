//! The egress proxy that a URL names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

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
