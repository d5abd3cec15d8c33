//! The code and the detail of each kind of connection failure.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use optio_webhooks::delivery::FailureCode;
use tokio::io::AsyncWriteExt as _;

use super::{client, client_trusting, post, settings};
use crate::harness::endpoint::{Certificate, Endpoint, Flaw, OK, acceptor, certificate, request};

pub(super) async fn tls_endpoint(config: rustls::ServerConfig) -> Endpoint {
    let acceptor = acceptor(config, "http/1.1");
    Endpoint::start(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            while request(&mut stream).await.is_some() {
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await
}

/// A server that speaks only a version older than TLS 1.2.
pub(super) const OLD: &[&str] = &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"];
/// A server that speaks TLS 1.2, but only with a cipher suite that we don't offer.
pub(super) const WEAK: &[&str] = &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"];

/// A server of OpenSSL, which also speaks what rustls doesn't.
pub(super) struct OpenSsl {
    pub port: u16,
    process: Child,
    _output: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl OpenSsl {
    /// Starts the server at a port that the system chooses.
    pub async fn start(certificate: &Certificate, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
        std::fs::write(&cert, &certificate.chain_pem).unwrap();
        std::fs::write(&key, &certificate.key_pem).unwrap();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0"]).args(settings);
        command.arg("-cert").arg(cert).arg("-key").arg(key);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("`make test` installs openssl");
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "openssl ended");
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.trim().rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        Self { port, process, _output: output, _folder: folder }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn each_certificate_error_fails_as_tls_with_its_reason() {
    for (flaw, words) in [
        (Flaw::Expired, "has expired: it was valid until 2020-01-01"),
        (Flaw::OtherHost, "isn't valid for this host; it is for"),
        (Flaw::SelfSigned, "self-signed"),
    ] {
        let Certificate { roots, config, .. } = certificate(flaw);
        let endpoint = tls_endpoint(config).await;
        let url = format!("https://localhost:{}/", endpoint.address.port());
        let error = post(&client_trusting(&settings(|_| {}), roots), &url).await.unwrap_err();
        assert!(error.code == FailureCode::Tls && error.detail.contains(words), "{flaw:?}: {error:?}");
        assert!(error.detail.starts_with("TLS handshake with 127.0.0.1:"), "{error:?}");
    }
    // The certificate itself is valid, but the client doesn't trust its authority.
    let endpoint = tls_endpoint(certificate(Flaw::None).config).await;
    let url = format!("https://{}/", endpoint.address);
    let error = post(&client_trusting(&settings(|_| {}), certificate(Flaw::None).roots), &url).await.unwrap_err();
    assert!(error.code == FailureCode::Tls && error.detail.contains("isn't trusted"), "{error:?}");
}

#[tokio::test]
async fn a_chain_of_p_521_certificates_is_accepted() {
    for flaw in [Flaw::None, Flaw::P521] {
        let Certificate { roots, config, .. } = certificate(flaw);
        let endpoint = tls_endpoint(config).await;
        let client = client_trusting(&settings(|_| {}), roots);
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("https://{host}:{}/", endpoint.address.port());
            assert_eq!(post(&client, &url).await, Ok((200, "ok".to_owned())), "{flaw:?} {host}");
        }
    }
}

#[tokio::test]
async fn a_server_with_only_old_versions_or_ciphers_fails_as_tls() {
    let good = certificate(Flaw::None);
    for (settings_of_server, words) in [(OLD, "neither TLS 1.2 nor TLS 1.3"), (WEAK, "shares no cipher suite")] {
        let server = OpenSsl::start(&good, settings_of_server).await;
        let client = client_trusting(&settings(|_| {}), good.roots.clone());
        let error = post(&client, &format!("https://127.0.0.1:{}/", server.port)).await.unwrap_err();
        assert!(error.code == FailureCode::Tls && error.detail.contains(words), "{error:?}");
    }
}

#[tokio::test]
async fn an_invalid_handshake_fails_as_tls_with_its_reason() {
    for (what, answer, words) in [
        ("an answer in plain HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "does the endpoint speak plain http"),
        ("a TLS alert", vec![21, 3, 3, 0, 2, 2, 40], "HandshakeFailure"),
        ("a closed connection", vec![], "closed the connection during the handshake"),
    ] {
        let endpoint = Endpoint::start(move |mut stream, _| {
            let answer = answer.clone();
            async move {
                let mut hello = [0; 5];
                use tokio::io::AsyncReadExt as _;
                let _ = stream.read_exact(&mut hello).await;
                let mut hello = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
                let _ = stream.read_exact(&mut hello).await;
                let _ = stream.write_all(&answer).await;
            }
        })
        .await;
        let error = post(&client(&settings(|_| {})), &format!("https://{}/", endpoint.address)).await.unwrap_err();
        assert!(error.code == FailureCode::Tls && error.detail.contains(words), "{what}: {error:?}");
    }
    let silent = Endpoint::start(|stream, _| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let delivery = settings(|delivery| delivery.timeout = Duration::from_secs(1));
    let error = post(&client(&delivery), &format!("https://{}/", silent.address)).await.unwrap_err();
    assert!(error.code == FailureCode::Timeout && error.detail.starts_with("TLS handshake with"), "{error:?}");
}

#[tokio::test]
async fn a_refused_connection_fails_as_connect_and_names_the_address() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for scheme in ["http", "https"] {
        let error = post(&client(&settings(|_| {})), &format!("{scheme}://127.0.0.1:{port}/")).await.unwrap_err();
        assert_eq!(error.code, FailureCode::Connect);
        assert!(error.detail.starts_with(&format!("connecting: 127.0.0.1:{port}: ")), "{error:?}");
    }
    let blocked = settings(|delivery| delivery.allow_networks.clear());
    let error = post(&client(&blocked), &format!("http://127.0.0.1:{port}/")).await.unwrap_err();
    assert!(error.code == FailureCode::AddressBlocked && error.detail.contains("127.0.0.1"), "{error:?}");
}
