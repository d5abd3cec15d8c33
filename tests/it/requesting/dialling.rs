//! From a host name to a connection: name servers, addresses and the egress proxy.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use optio_webhooks::delivery::FailureCode;
use optio_webhooks::http::client::{Client, limits};
use optio_webhooks::http::names::Names;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{client, post, settings};
use crate::harness::endpoint::{Endpoint, Flaw, NameServer, OK, acceptor, certificate, request};

/// A client that resolves names with `server`.
pub fn client_asking(delivery: &optio_webhooks::config::DeliverySettings, server: &NameServer) -> Client {
    let names = Names::asking(server.address, limits(delivery));
    Client::with(delivery, rustls::RootCertStore::empty(), names).unwrap()
}

#[tokio::test]
async fn names_with_dead_servers_do_not_delay_requests_to_others() {
    let server = NameServer::start(|name| match name {
        "healthy.example" | "new.example" => vec![Ipv4Addr::LOCALHOST],
        // The name server lives; only those of the dead domains don't.
        name if name.starts_with("probe-") => vec![Ipv4Addr::LOCALHOST],
        _ => vec![],
    })
    .await;
    let endpoint = Endpoint::start(|mut stream, _| async move {
        while request(&mut stream).await.is_some() {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let delivery = settings(|delivery| {
        delivery.timeout = Duration::from_secs(4);
        delivery.resolve_timeout = Duration::from_secs(3);
    });
    let client = client_asking(&delivery, &server);
    let dead: Vec<_> = (0..600)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { post(&client, &format!("http://dead-{number}.example/")).await })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(2);
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    while Instant::now() < deadline {
        // Both names have a server that answers. Later rounds take their addresses from the cache.
        for host in ["healthy.example", "new.example"] {
            let began = Instant::now();
            let answer = post(&client, &format!("http://{host}:{}/", endpoint.address.port())).await;
            assert_eq!(answer, Ok((200, "ok".to_owned())));
            slowest = slowest.max(began.elapsed());
        }
        count += 1;
        // A pause between the rounds, which only limits the load.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{count} rounds, the slowest request took {slowest:?}");
    assert!(slowest < Duration::from_millis(1_500), "{slowest:?}");
    for dead in dead {
        let error = dead.await.unwrap().unwrap_err();
        assert!(error.code == FailureCode::Dns && error.detail.contains("name servers don't answer"), "{error:?}");
    }
}

#[tokio::test]
async fn concurrent_lookups_of_a_name_share_one_cached_answer() {
    let server = NameServer::start(|_| vec![Ipv4Addr::LOCALHOST]).await;
    let delivery = settings(|_| {});
    let names = Names::asking(server.address, limits(&delivery));
    let found = futures_util::future::join_all((0..100).map(|_| names.resolve("my_service.example"))).await;
    assert!(found.iter().all(|found| found.as_deref() == Ok(&[Ipv4Addr::LOCALHOST.into()][..])), "{:?}", found[0]);
    names.resolve("my_service.example").await.unwrap();
    assert!(server.queries("my_service.example") <= 2, "one query for each address family");
}

#[tokio::test]
async fn a_lookup_is_cancelled_with_the_attempts_that_wait_for_it() {
    let server = NameServer::start(|_| vec![]).await;
    let delivery = settings(|_| {});
    let names = Names::asking(server.address, limits(&delivery));
    let waiting = names.clone();
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting.resolve("dead.example")).await.is_err());
    let queries = server.queries("dead.example");
    // A fixed time, because the test proves that no query follows.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.queries("dead.example"), queries, "the lookup went on after its last caller had gone");
}

#[tokio::test]
async fn the_system_resolver_still_resolves_localhost() {
    let names = Names::system(limits(&settings(|_| {})));
    let found = names.resolve("localhost").await.unwrap();
    assert!(found.iter().all(std::net::IpAddr::is_loopback), "{found:?}");
    assert!(names.resolve("LOCALHOST").await.is_ok());
}

#[tokio::test]
async fn several_addresses_are_tried_in_turn_unless_one_is_forbidden() {
    let endpoint = Endpoint::answering(OK).await;
    let port = endpoint.address.port();
    let server = NameServer::start(|name| match name {
        // Nothing listens at the first two addresses. The endpoint listens at the third.
        "some.example" => vec![Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::LOCALHOST],
        "none.example" => vec![Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)],
        _ => vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 1)],
    })
    .await;
    let delivery = settings(|delivery| delivery.allow_networks.push("192.0.2.0/24".parse().unwrap()));
    let client = client_asking(&delivery, &server);
    let began = Instant::now();
    assert_eq!(post(&client, &format!("http://some.example:{port}/")).await, Ok((200, "ok".to_owned())));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let error = post(&client, &format!("http://none.example:{port}/")).await.unwrap_err();
    assert_eq!(error.code, FailureCode::Connect);
    assert!(error.detail.contains(&format!("127.0.0.2:{port}")) && error.detail.contains("127.0.0.3"), "{error:?}");
    let error = post(&client, &format!("http://mixed.example:{port}/")).await.unwrap_err();
    assert!(error.code == FailureCode::Dns && !error.detail.contains("10.0.0.1"), "{error:?}");
}

#[tokio::test]
async fn an_egress_proxy_forwards_http_and_tunnels_https() {
    let certificate = certificate(Flaw::None);
    let tls = acceptor(certificate.config, "http/1.1");
    let (received, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let proxy = Endpoint::start(move |mut stream, _| {
        let (tls, received) = (tls.clone(), received.clone());
        async move {
            while let Some(text) = request(&mut stream).await {
                let is_tunnel = text.starts_with("CONNECT ");
                received.send(text).unwrap();
                if !is_tunnel {
                    stream.write_all(OK).await.unwrap();
                    continue;
                }
                stream.write_all(b"HTTP/1.1 200 Connection established\r\nvia: a proxy\r\n\r\n").await.unwrap();
                let mut stream = tls.accept(stream).await.unwrap();
                received.send(request(&mut stream).await.unwrap()).unwrap();
                stream.write_all(OK).await.unwrap();
                let _ = stream.read_u8().await;
                return;
            }
        }
    })
    .await;
    let delivery = settings(|delivery| {
        delivery.allow_networks = vec![];
        delivery.proxy = format!("http://me:p%40ss@localhost:{}", proxy.address.port()).into();
    });
    let client = super::client_trusting(&delivery, certificate.roots);
    assert_eq!(post(&client, "http://outside.example/hook?a=b").await, Ok((200, "ok".to_owned())));
    let plain = requests.recv().await.unwrap();
    assert!(plain.starts_with("POST http://outside.example/hook?a=b HTTP/1.1\r\n"), "{plain}");
    assert!(plain.contains("proxy-authorization: Basic bWU6cEBzcw==\r\n"), "{plain}");
    assert_eq!(post(&client, "https://localhost:9443/hook").await, Ok((200, "ok".to_owned())));
    let tunnel = requests.recv().await.unwrap();
    assert!(tunnel.starts_with("CONNECT localhost:9443 HTTP/1.1\r\n") && tunnel.contains("Basic bWU6"), "{tunnel}");
    let inside = requests.recv().await.unwrap();
    assert!(inside.starts_with("POST /hook HTTP/1.1\r\n") && !inside.contains("Basic"), "{inside}");

    let refusing = Endpoint::answering("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await;
    let delivery = settings(|delivery| delivery.proxy = format!("http://me:hunter2@{}", refusing.address).into());
    let error = post(&self::client(&delivery), "https://outside.example/").await.unwrap_err();
    assert!(error.code == FailureCode::Egress && error.detail.contains("407"), "{error:?}");
    assert!(!error.detail.contains("hunter2"), "{error:?}");
    let error = post(&self::client(&delivery), "http://outside.example/").await.unwrap_err();
    assert!(error.code == FailureCode::Egress && error.detail.contains("407"), "{error:?}");
}

#[tokio::test]
async fn what_is_missing_on_our_own_side_is_no_failure_of_the_endpoint() {
    // No authority is trusted, so no certificate can be.
    let certificate = certificate(Flaw::None);
    let tls = acceptor(certificate.config, "http/1.1");
    let endpoint = Endpoint::start(move |stream, _| {
        let tls = tls.clone();
        async move {
            let _ = tls.accept(stream).await;
        }
    })
    .await;
    let server = NameServer::start(|_| vec![Ipv4Addr::LOCALHOST]).await;
    let client = client_asking(&settings(|_| {}), &server);
    let error = post(&client, &format!("https://localhost.example:{}/", endpoint.address.port())).await.unwrap_err();
    assert!(error.code == FailureCode::Egress && error.detail.contains("ca-certificates"), "{error:?}");

    // Nothing listens where the name server should be.
    let gone = server.address;
    drop(server);
    let delivery = settings(|delivery| delivery.resolve_timeout = Duration::from_secs(1));
    let names = Names::asking(gone, limits(&delivery));
    let client = Client::with(&delivery, rustls::RootCertStore::empty(), names).unwrap();
    let error = post(&client, "http://healthy.example/").await.unwrap_err();
    assert_eq!(error.code, FailureCode::Egress, "{error:?}");
}

#[tokio::test]
async fn name_servers_that_answer_nothing_are_no_failure_of_the_endpoint() {
    let server = NameServer::start(|_| vec![]).await;
    let delivery = settings(|delivery| {
        delivery.timeout = Duration::from_secs(6);
        delivery.resolve_timeout = Duration::from_secs(1);
    });
    let error = post(&client_asking(&delivery, &server), "http://healthy.example/").await.unwrap_err();
    assert!(error.code == FailureCode::Egress && error.detail.contains("name servers don't answer"), "{error:?}");
}
