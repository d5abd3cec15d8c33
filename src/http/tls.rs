//! TLS to endpoints: whom it trusts, and what each failure of a handshake means.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, PeerIncompatible, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::SendError;
use crate::delivery::FailureCode;

/// Endpoints whose sessions are kept to be resumed.
const SESSIONS_MAX: usize = 1_024;
/// The names of HTTP's versions in a handshake (RFC 9113 section 3.1).
const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The end of the year 9999, Unix seconds.
const YEAR_9999_S: u64 = 253_402_300_799;

/// Makes TLS connections.
pub struct Tls {
    to_endpoints: TlsConnector,
    to_proxy: TlsConnector,
}

impl Tls {
    /// Trusting `roots`.
    ///
    /// # Errors
    /// Where the provider lacks what TLS 1.2 and 1.3 need.
    pub fn new(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        let to_proxy = TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
        Ok(Self { to_endpoints: TlsConnector::from(Arc::new(config)), to_proxy })
    }

    /// A handshake with the endpoint `host` over `stream`; `peer` names it in the failure's sentence. The second
    /// part is whether the endpoint chose HTTP/2.
    ///
    /// # Errors
    /// [`SendError`] says what the handshake failed by.
    pub async fn to_endpoint<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &str,
        peer: &str,
        deadline: Instant,
    ) -> Result<(TlsStream<S>, bool), SendError> {
        let stream = handshake(&self.to_endpoints, stream, host, peer, deadline).await?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
        Ok((stream, is_h2))
    }

    /// A handshake with the egress proxy.
    ///
    /// # Errors
    /// [`SendError`] says what the handshake failed by.
    pub async fn to_proxy<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &str,
        peer: &str,
        deadline: Instant,
    ) -> Result<TlsStream<S>, SendError> {
        handshake(&self.to_proxy, stream, host, peer, deadline).await
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    connector: &TlsConnector,
    stream: S,
    host: &str,
    peer: &str,
    deadline: Instant,
) -> Result<TlsStream<S>, SendError> {
    let step = format_args!("TLS handshake with {peer}").to_string();
    // A name is the same with and without the root's dot; certificates never have it.
    let name = host.strip_suffix('.').unwrap_or(host).trim_start_matches('[').trim_end_matches(']');
    let Ok(name) = ServerName::try_from(name.to_owned()) else {
        return Err(SendError::new(FailureCode::Tls, step, "no certificate can be valid for this host's name"));
    };
    match timeout_at(deadline, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inside| inside.downcast_ref::<rustls::Error>());
            Err(SendError::new(FailureCode::Tls, step, tls.map_or_else(|| broken(&error), explanation)))
        }
        Err(_) => Err(SendError::timeout(step)),
    }
}

fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the endpoint closed the connection during the handshake".to_owned(),
        _ => format!("the connection broke during the handshake: {error}"),
    }
}

/// What a failure of TLS means, for people.
#[must_use]
pub fn explanation(error: &rustls::Error) -> String {
    use rustls::Error as Failed;
    match error {
        Failed::InvalidCertificate(wrong) => certificate_explanation(wrong),
        Failed::InvalidMessage(wrong) => {
            format!("what came isn't TLS; does the endpoint speak plain http on this port? ({wrong:?})")
        }
        Failed::AlertReceived(AlertDescription::ProtocolVersion)
        | Failed::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "the endpoint speaks neither TLS 1.2 nor TLS 1.3".to_owned(),
        Failed::AlertReceived(AlertDescription::HandshakeFailure) => {
            "the endpoint found no cipher, key exchange or signature in common with us (alert HandshakeFailure)"
                .to_owned()
        }
        Failed::AlertReceived(AlertDescription::CertificateRequired) => {
            "the endpoint asks for a client certificate (alert CertificateRequired)".to_owned()
        }
        Failed::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the endpoint doesn't know this host's name (alert UnrecognisedName)".to_owned()
        }
        Failed::AlertReceived(alert) => format!("the endpoint refused the handshake (alert {alert:?})"),
        Failed::PeerIncompatible(why) => format!("the endpoint has no TLS parameters in common with us ({why:?})"),
        other => other.to_string(),
    }
}

fn certificate_explanation(wrong: &CertificateError) -> String {
    // A certificate may name any year; the format ends with 9999.
    let seconds =
        |time: &rustls::pki_types::UnixTime| crate::event::rfc3339(time.as_secs().min(YEAR_9999_S) as i64 * 1_000);
    match wrong {
        CertificateError::Expired => "the endpoint's certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the endpoint's certificate has expired: it was valid until {}", seconds(not_after))
        }
        CertificateError::NotValidYet => "the endpoint's certificate isn't valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the endpoint's certificate isn't valid yet: it is from {} on", seconds(not_before))
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
        other => format!("the endpoint's certificate can't be accepted: {}", describe(other)),
    }
}

/// webpki's own errors hide in `Other`.
fn describe(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::Other(other) if other.0.to_string().contains("CaUsedAsEndEntity") => {
            "it is self-signed, or a certificate authority's own (CaUsedAsEndEntity)".to_owned()
        }
        other => other.to_string(),
    }
}

/// The system's trusted certificates: `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set.
#[must_use]
pub fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's certificates can't be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "trusted certificates");
    if added == 0 {
        tracing::warn!(
            "this system has no trusted certificates: every https:// endpoint will fail; install ca-certificates"
        );
    }
    roots
}
