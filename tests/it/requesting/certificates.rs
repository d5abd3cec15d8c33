//! Trusted certificates and client certificates from files.

use std::sync::Arc;

use optio_webhooks::config::DeliverySettings;
use optio_webhooks::delivery::FailureCode;
use optio_webhooks::event::EventType;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::naming::{OLD, OpenSsl, WEAK, tls_endpoint};
use super::{client, post, settings};
use crate::harness::World;
use crate::harness::endpoint::{Act, Certificate, Endpoint, Flaw, OK, acceptor, certificate, http2, request};

/// The server's TLS settings, with which it accepts only clients whose certificate is signed by a root of `clients`.
fn asking(server: &Certificate, clients: &rustls::RootCertStore) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(clients.clone()), provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(server.chain_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
}

struct Files(tempfile::TempDir);

impl Files {
    fn with(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Settings that trust the server and show the client's certificate, if there is one.
    fn settings(&self, server: &Certificate, of_client: Option<&Certificate>) -> DeliverySettings {
        settings(|delivery| {
            delivery.ca_file = self.with("ca.pem", &server.authority_pem);
            if let Some(Certificate { chain_pem, key_pem, .. }) = of_client {
                delivery.client_certificate_file = self.with("client.pem", chain_pem);
                delivery.client_key_file = self.with("client.key", key_pem);
            }
        })
    }
}

#[tokio::test]
async fn a_server_whose_authority_is_only_in_ca_file_is_trusted() {
    let files = Files(tempfile::tempdir().unwrap());
    let server = certificate(Flaw::None);
    let endpoint = tls_endpoint(server.config.clone()).await;
    let url = format!("https://localhost:{}/", endpoint.address.port());
    assert_eq!(post(&client(&files.settings(&server, None)), &url).await, Ok((200, "ok".to_owned())));
    let of_another = files.settings(&certificate(Flaw::None), None);
    let error = post(&client(&of_another), &url).await.unwrap_err();
    assert!(error.code == FailureCode::Tls && error.detail.contains("isn't trusted"), "{error:?}");
}

/// An endpoint that speaks `alpn`. After a failed handshake it reads on, so that its alert isn't lost in a reset.
async fn asking_endpoint(config: rustls::ServerConfig, alpn: &'static str) -> Endpoint {
    let acceptor = acceptor(config, alpn);
    Endpoint::start(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            match acceptor.accept(stream).into_fallible().await {
                Ok(stream) if alpn == "h2" => drop(http2(stream, |_| Act::Answer).await),
                Ok(mut stream) => {
                    while request(&mut stream).await.is_some() {
                        stream.write_all(OK).await.unwrap();
                    }
                }
                Err((_, mut stream)) => {
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_for_a_client_certificate_gets_it() {
    let files = Files(tempfile::tempdir().unwrap());
    let (server, ours, strangers) = (certificate(Flaw::None), certificate(Flaw::None), certificate(Flaw::None));
    for alpn in ["http/1.1", "h2"] {
        let endpoint = asking_endpoint(asking(&server, &ours.roots), alpn).await;
        let url = format!("https://localhost:{}/", endpoint.address.port());
        let post_with = async |of_client| post(&client(&files.settings(&server, of_client)), &url).await;
        assert_eq!(post_with(Some(&ours)).await.map(|(status, _)| status), Ok(200), "{alpn}");
        // The alert comes after the client's handshake, at any moment of the request.
        for _ in 0..20 {
            for (of_client, words) in [
                (None, "the endpoint asks for a client certificate (alert CertificateRequired)"),
                (Some(&strangers), "the endpoint refuses the client certificate"),
            ] {
                let error = post_with(of_client).await.unwrap_err();
                assert!(error.code == FailureCode::Tls && error.detail.contains(words), "{alpn}: {error:?}");
            }
        }
    }
    // In TLS 1.2, OpenSSL has no alert of its own for a missing certificate.
    let openssl = OpenSsl::start(&server, &["-tls1_2", "-Verify", "1"]).await;
    let url = format!("https://127.0.0.1:{}/", openssl.port);
    let error = post(&client(&files.settings(&server, None)), &url).await.unwrap_err();
    assert!(error.code == FailureCode::Tls && error.detail.contains("asks for a client certificate"), "{error:?}");
}

#[tokio::test]
async fn the_client_certificate_goes_through_the_proxys_tunnel_to_the_endpoint() {
    let files = Files(tempfile::tempdir().unwrap());
    let (server, ours) = (certificate(Flaw::None), certificate(Flaw::None));
    let tls = acceptor(asking(&server, &ours.roots), "http/1.1");
    let proxy = Endpoint::start(move |mut stream, _| {
        let tls = tls.clone();
        async move {
            if request(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let Ok(mut stream) = tls.accept(stream).await else { return };
            while request(&mut stream).await.is_some() {
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let mut delivery = files.settings(&server, Some(&ours));
    delivery.proxy = format!("http://{}", proxy.address).into();
    assert_eq!(post(&client(&delivery), "https://localhost/").await, Ok((200, "ok".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delivery_log_says_why_a_tls_handshake_failed() {
    let files = Files(tempfile::tempdir().unwrap());
    let flaws = [Flaw::Expired, Flaw::OtherHost, Flaw::None].map(certificate);
    let trusted: String = flaws.iter().map(|certificate| &*certificate.authority_pem).collect();
    let authorities = files.with("ca.pem", &trusted);
    let [expired, elsewhere, good] = flaws;
    let world = World::with(&[("delivery.attempts_max", "1"), ("delivery.ca_file", &authorities)]).await;
    let (old, weak) = (OpenSsl::start(&good, OLD).await, OpenSsl::start(&good, WEAK).await);
    let mut endpoints = Vec::new();
    for config in [expired.config, elsewhere.config, certificate(Flaw::None).config, good.config] {
        endpoints.push(tls_endpoint(config).await);
    }
    let port = |at: usize| endpoints[at].address.port();
    let mut expected = Vec::new();
    for (port, words) in [
        (port(0), "has expired: it was valid until 2020-01-01"),
        (port(1), "isn't valid for this host; it is for"),
        (port(2), "from an issuer that isn't trusted"),
        (port(3), ""),
        (old.port, "speaks neither TLS 1.2 nor TLS 1.3"),
        (weak.port, "shares no cipher suite"),
    ] {
        let mut webhook = world.unsaved("/", &[EventType::TaskCompleted]);
        webhook.url = format!("https://127.0.0.1:{port}/").parse().unwrap();
        world.store().put(&webhook).await.unwrap();
        expected.push((webhook.id, words));
    }
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.dead_lettered(5).await;
    world.settled().await;
    for (webhook, words) in expected {
        let logged = world.logged(webhook).await;
        let [entry] = &logged[..] else { panic!("{logged:?}") };
        if words.is_empty() {
            assert_eq!(entry["success"], true, "{entry}");
        } else {
            let detail = entry["errorDetail"].as_str().unwrap();
            assert!(entry["error"] == "tls" && detail.contains(words), "{words}: {entry}");
            // No request was sent, so no header is shown as sent.
            assert_eq!(entry["notSent"], true, "{entry}");
            let path = format!("/api/webhooks/{webhook}/deliveries");
            let (_, shown) = worker.call("GET", &path, None).await;
            assert_eq!(shown["deliveries"][0]["requestHeaders"], json!({}), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_with_a_tls_connection_needs_no_alert_that_ends_it() {
    let files = Files(tempfile::tempdir().unwrap());
    let server = certificate(Flaw::None);
    for (answer, expected) in [
        ("HTTP/1.0 200 OK\r\n\r\nok", Ok((200, "ok".to_owned()))),
        ("HTTP/1.1 200 OK\r\n\r\nok", Ok((200, "ok".to_owned()))),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", Err(FailureCode::Body)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", Err(FailureCode::Body)),
    ] {
        let tls = acceptor(server.config.clone(), "http/1.1");
        let endpoint = Endpoint::start(move |stream, _| {
            let tls = tls.clone();
            async move {
                let Ok(mut stream) = tls.accept(stream).await else { return };
                if request(&mut stream).await.is_some() {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    // The connection below is closed without an alert.
                    let (mut below, _) = stream.into_inner();
                    let _ = below.shutdown().await;
                    let _ = tokio::io::copy(&mut below, &mut tokio::io::sink()).await;
                }
            }
        })
        .await;
        let url = format!("https://localhost:{}/", endpoint.address.port());
        let got = post(&client(&files.settings(&server, None)), &url).await;
        assert_eq!(got.map_err(|error| error.code), expected, "{answer:?}");
    }
}
