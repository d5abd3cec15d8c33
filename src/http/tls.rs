//! TLS connections to endpoints and to the egress proxy: trusted certificates, handshakes, and sentences that explain a
//! failed handshake.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, PeerIncompatible, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::SendError;
use crate::delivery::FailureCode;

/// The number of endpoints whose TLS sessions are kept for resumption.
const SESSIONS_MAX: usize = 1_024;
/// The ALPN names of the HTTP versions (RFC 9113 section 3.1).
const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The last second of the year 9999, in Unix seconds.
const YEAR_9999_S: u64 = 253_402_300_799;

/// Makes TLS connections.
pub struct Tls {
    to_endpoints: TlsConnector,
    to_proxy: TlsConnector,
    /// Whether any authority is trusted. Without one, it is not the endpoint's fault that its certificate isn't.
    trusts_any: bool,
}

impl Tls {
    /// Sets up TLS that trusts `roots`. Endpoints that ask for a client certificate get `identity`; the proxy doesn't.
    ///
    /// # Errors
    /// Fails if the crypto provider lacks what TLS 1.2 and 1.3 need.
    pub fn new(roots: RootCertStore, identity: Option<Arc<CertifiedKey>>) -> Result<Self, rustls::Error> {
        let trusts_any = !roots.is_empty();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let to_proxy = TlsConnector::from(Arc::new(config.clone()));
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        if let Some(identity) = identity {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
        }
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
        Ok(Self { to_endpoints: TlsConnector::from(Arc::new(config)), to_proxy, trusts_any })
    }

    /// Does the handshake with the endpoint `host` over `stream`. The returned flag says whether the endpoint chose
    /// HTTP/2. `peer` stands for the endpoint in error sentences.
    ///
    /// # Errors
    /// [`SendError`] says why the handshake failed.
    pub async fn to_endpoint<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &str,
        peer: &str,
        deadline: Instant,
    ) -> Result<(TlsStream<S>, bool), SendError> {
        let attempted = handshake(&self.to_endpoints, stream, host, peer, deadline).await;
        let stream =
            attempted.map_err(|refused| if self.trusts_any { refused.error } else { refused.without_authorities() })?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
        Ok((stream, is_h2))
    }

    /// Does the handshake with the egress proxy `host` over `stream`. It offers no HTTP version by ALPN.
    ///
    /// # Errors
    /// [`SendError`] says why the handshake failed.
    pub async fn to_proxy<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &str,
        peer: &str,
        deadline: Instant,
    ) -> Result<TlsStream<S>, SendError> {
        handshake(&self.to_proxy, stream, host, peer, deadline).await.map_err(|refused| refused.error)
    }
}

/// A handshake that failed.
struct Refused {
    error: SendError,
    /// Whether it failed because of the peer's certificate.
    is_of_certificate: bool,
}

impl Refused {
    /// The failure in a process that trusts no authority. Every certificate fails there, whatever the endpoint does.
    fn without_authorities(self) -> SendError {
        if !self.is_of_certificate {
            return self.error;
        }
        let reason = "no certificate authority is trusted here: install ca-certificates, or set delivery.ca_file";
        SendError::new(FailureCode::Egress, "checking the endpoint's certificate", reason)
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    connector: &TlsConnector,
    stream: S,
    host: &str,
    peer: &str,
    deadline: Instant,
) -> Result<TlsStream<S>, Refused> {
    let step = format_args!("TLS handshake with {peer}").to_string();
    let refused = |error| Refused { error, is_of_certificate: false };
    // A host may end with the dot of the DNS root; certificates never have it. An IPv6 host has brackets in a URL.
    let name = host.strip_suffix('.').unwrap_or(host).trim_start_matches('[').trim_end_matches(']');
    let Ok(name) = ServerName::try_from(name.to_owned()) else {
        let reason = "no certificate can be valid for this host's name";
        return Err(refused(SendError::new(FailureCode::Tls, step, reason)));
    };
    match timeout_at(deadline, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            Err(Refused {
                is_of_certificate: matches!(tls, Some(rustls::Error::InvalidCertificate(_))),
                error: SendError::new(FailureCode::Tls, step, tls.map_or_else(|| explain_io(&error), explanation)),
            })
        }
        Err(_) => Err(refused(SendError::timeout(step))),
    }
}

fn explain_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the endpoint closed the connection during the handshake".to_owned(),
        _ => format!("the connection broke during the handshake: {error}"),
    }
}

/// Explains a TLS error in a sentence for people.
#[must_use]
pub fn explanation(error: &rustls::Error) -> String {
    use rustls::Error as Failed;
    match error {
        Failed::InvalidCertificate(wrong) => certificate_explanation(wrong),
        Failed::InvalidMessage(wrong) => {
            format!("the received data isn't TLS; does the endpoint speak plain http on this port? ({wrong:?})")
        }
        Failed::AlertReceived(AlertDescription::ProtocolVersion)
        | Failed::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "the endpoint speaks neither TLS 1.2 nor TLS 1.3".to_owned(),
        Failed::AlertReceived(AlertDescription::HandshakeFailure) => {
            "the endpoint shares no cipher suite, key exchange or signature scheme with us, or asks for a client \
             certificate (alert HandshakeFailure)"
                .to_owned()
        }
        Failed::AlertReceived(AlertDescription::CertificateRequired) => {
            "the endpoint asks for a client certificate (alert CertificateRequired)".to_owned()
        }
        Failed::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied),
        ) => format!(
            "the endpoint refuses the client certificate, or asks for one if none is configured (alert {alert:?})"
        ),
        Failed::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the endpoint doesn't know this host name (alert UnrecognisedName)".to_owned()
        }
        Failed::AlertReceived(alert) => format!("the endpoint refused the handshake (alert {alert:?})"),
        Failed::PeerIncompatible(why) => format!("the endpoint shares no TLS parameters with us ({why:?})"),
        other => other.to_string(),
    }
}

fn certificate_explanation(wrong: &CertificateError) -> String {
    // A certificate may name any year, but RFC 3339 ends with 9999.
    let timestamp =
        |time: &rustls::pki_types::UnixTime| crate::clock::rfc3339(time.as_secs().min(YEAR_9999_S) as i64 * 1_000);
    match wrong {
        CertificateError::Expired => "the endpoint's certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the endpoint's certificate has expired: it was valid until {}", timestamp(not_after))
        }
        CertificateError::NotValidYet => "the endpoint's certificate isn't valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the endpoint's certificate isn't valid yet: it is valid from {}", timestamp(not_before))
        }
        CertificateError::UnknownIssuer => {
            "the endpoint's certificate is self-signed or from an issuer that isn't trusted".to_owned()
        }
        CertificateError::NotValidForName => "the endpoint's certificate isn't valid for this host".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = if presented.is_empty() { "no host".to_owned() } else { presented.join(", ") };
            format!("the endpoint's certificate isn't valid for this host; it is for {names}")
        }
        CertificateError::Revoked => "the endpoint's certificate was revoked".to_owned(),
        other => format!("the endpoint's certificate can't be accepted: {}", explain_other(other)),
    }
}

/// rustls wraps some errors of webpki in `Other`; they are recognised by their text.
fn explain_other(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::Other(other) if other.0.to_string().contains("CaUsedAsEndEntity") => {
            "it is self-signed, or the certificate of a certificate authority (CaUsedAsEndEntity)".to_owned()
        }
        other => other.to_string(),
    }
}

/// Loads the trusted certificates: those of `SSL_CERT_FILE` and `SSL_CERT_DIR` if set, otherwise the system's.
#[must_use]
pub fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some trusted certificates can't be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "trusted certificates loaded");
    roots
}
