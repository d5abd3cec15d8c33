//! Hosts that requests may not go to: what the names of a hostile name server lead to, and what their owner learns.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use optio_webhooks::config::DeliverySettings;
use optio_webhooks::delivery::FailureCode;
use optio_webhooks::http::client::limits;
use optio_webhooks::http::failure::SendError;
use optio_webhooks::http::names::Names;
use optio_webhooks::http::vetting::Vetting;

use super::dialling::client_asking;
use super::{client, post, settings};
use crate::harness::endpoint::{Endpoint, NameServer, OK};

/// The addresses that the name server of the tests knows.
fn addresses(name: &str) -> Option<Vec<IpAddr>> {
    let found: &[&str] = match name {
        "public.example" => &["1.1.1.1", "2606:4700::1111"],
        "internal.example" => &["10.0.0.1"],
        "denied.example" => &["1.1.1.2"],
        "internal-6.example" => &["fd00::1"],
        "mixed.example" => &["1.1.1.1", "10.0.0.1"],
        "mixed-families.example" => &["1.1.1.1", "fd00::1"],
        "loopback.example" => &["127.0.0.1"],
        "mapped.example" => &["::ffff:127.0.0.1"],
        "compatible.example" => &["::127.0.0.1"],
        "metadata.example" => &["169.254.169.254"],
        "nat64-private.example" => &["64:ff9b::10.0.0.1"],
        "nat64-public.example" => &["64:ff9b::1.1.1.1"],
        "6to4.example" => &["2002:7f00:1::"],
        "silent.example" => return None,
        _ => &[],
    };
    Some(found.iter().map(|address| address.parse().unwrap()).collect())
}

const FORBIDDEN: [&str; 11] = [
    "internal.example",
    "denied.example",
    "internal-6.example",
    "mixed.example",
    "mixed-families.example",
    "loopback.example",
    "mapped.example",
    "compatible.example",
    "metadata.example",
    "nat64-private.example",
    "6to4.example",
];

/// The default settings, except that one public network is denied.
fn guarded() -> DeliverySettings {
    settings(|delivery| {
        delivery.allow_networks.clear();
        delivery.deny_networks = vec!["1.1.1.2/32".parse().unwrap()];
        delivery.resolve_timeout = Duration::from_millis(300);
    })
}

#[tokio::test]
async fn a_name_whose_address_changes_to_a_private_one_is_not_dialled() {
    let public = Endpoint::answering(OK).await;
    let port = public.address.port();
    let private = tokio::net::TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await.unwrap();
    let is_rebound = Arc::new(AtomicUsize::new(0));
    let rebound = is_rebound.clone();
    let server = NameServer::start(move |_| {
        let last = if rebound.load(Ordering::SeqCst) == 0 { 1 } else { 2 };
        vec![Ipv4Addr::new(127, 0, 0, last)]
    })
    .await;
    // 127.0.0.1 stands for a public address. Nothing is cached and no connection is kept, so each request resolves anew.
    let delivery = settings(|delivery| {
        delivery.allow_networks = vec!["127.0.0.1/32".parse().unwrap()];
        delivery.resolve_cache_max = Duration::ZERO;
        delivery.idle_timeout = Duration::ZERO;
    });
    let client = client_asking(&delivery, &server);
    let url = format!("http://rebinding.example:{port}/");
    assert_eq!(post(&client, &url).await, Ok((200, "ok".to_owned())));
    assert!(server.queries("rebinding.example") <= 2, "the name is resolved once, for both address families");
    is_rebound.store(1, Ordering::SeqCst);
    let error = post(&client, &url).await.unwrap_err();
    assert_eq!(error.code, FailureCode::Dns, "{error:?}");
    let dialled = tokio::time::timeout(Duration::ZERO, private.accept()).await;
    assert!(dialled.is_err(), "the private address was dialled");
}

#[tokio::test]
async fn a_forbidden_address_and_an_unknown_name_fail_alike() {
    let server = NameServer::knowing(addresses).await;
    let client = client_asking(&guarded(), &server);
    let failure = async |name: &str| -> (SendError, Duration) {
        let began = std::time::Instant::now();
        let error = post(&client, &format!("http://{name}:8080/")).await.unwrap_err();
        let detail = error.detail.replace(name, "NAME");
        (SendError { detail, ..error }, began.elapsed())
    };
    let (unknown, _) = failure("unknown.example").await;
    assert_eq!(unknown.code, FailureCode::Dns);
    assert_eq!(unknown.detail, "resolving NAME: no address that may be used is known for this name");
    let all = futures_util::future::join_all(FORBIDDEN.iter().chain(&["unknown-2.example"]).map(|name| failure(name)));
    for (name, (error, took)) in FORBIDDEN.iter().chain(&["unknown-2.example"]).zip(all.await) {
        assert_eq!(error, unknown, "{name}");
        assert!(
            took >= Duration::from_millis(250),
            "{name} failed after {took:?}, which tells that it is in the cache"
        );
    }
}

#[tokio::test]
async fn a_host_with_a_forbidden_address_is_refused_when_it_is_saved_and_an_unknown_one_warns() {
    let server = NameServer::knowing(addresses).await;
    let vetting =
        |delivery: &DeliverySettings| Vetting::with(delivery, Names::asking(server.address, limits(delivery)));
    let check = async |name: &str| vetting(&guarded()).check(&format!("https://{name}/").parse().unwrap()).await;
    for name in ["public.example", "nat64-public.example"] {
        assert_eq!(check(name).await, Ok(None), "{name}");
    }
    let expected = |name: &str| {
        format!(
            "url: the host {name} has an address that requests may not go to; only hosts with public addresses are \
             allowed, and those in delivery.allow_networks"
        )
    };
    for name in FORBIDDEN {
        assert_eq!(check(name).await.unwrap_err().to_string(), expected(name));
    }
    for name in ["unknown.example", "silent.example"] {
        let began = std::time::Instant::now();
        let warning = check(name).await.unwrap().unwrap();
        assert!(warning.starts_with(&format!("The host {name} has no address for now.")), "{warning}");
        assert!(began.elapsed() < Duration::from_secs(3), "delivery.resolve_timeout ends the lookup");
    }
    // Behind a proxy no name is resolved, while an address in the URL is still checked.
    let queries = server.queries("internal.example");
    let proxied = DeliverySettings { proxy: "http://127.0.0.1:3128".into(), ..guarded() };
    let check = async |url: &str| vetting(&proxied).check(&url.parse().unwrap()).await;
    assert_eq!(check("https://internal.example/").await, Ok(None));
    assert_eq!(server.queries("internal.example"), queries);
    assert!(check("https://10.0.0.1/").await.is_err());
    assert!(check("https://public.example:25/").await.unwrap_err().to_string().contains("the port 25 is not allowed"));
}

#[tokio::test]
async fn every_name_of_this_machine_is_refused() {
    let delivery = guarded();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["localhost", "LOCALHOST", "localhost.", "ｌｏｃａｌｈｏｓｔ", "%6cocalhost", "some.localhost"]
    {
        let error = post(&client(&delivery), &format!("http://{host}:{port}/")).await.unwrap_err();
        assert_eq!(error.code, FailureCode::Dns, "{host}: {error:?}");
        assert!(!error.detail.contains("127.0.0.1"), "{error:?}");
    }
    assert!(tokio::time::timeout(Duration::ZERO, listener.accept()).await.is_err(), "this machine was dialled");
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_not_followed() {
    let private = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let inside = private.local_addr().unwrap();
    for (status, location) in [
        (301, format!("http://{inside}/")),
        (302, format!("//{inside}/")),
        (303, "http://169.254.169.254/latest/meta-data/".to_owned()),
        (307, format!("http://localhost:{}/", inside.port())),
        (308, format!("http://[::ffff:127.0.0.2]:{}/", inside.port())),
    ] {
        let head = format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\nrefresh: 0; url={location}\r\n");
        let endpoint = Endpoint::answering(format!("{head}content-length: 0\r\n\r\n")).await;
        let answer = post(&client(&settings(|_| {})), &format!("http://{}/", endpoint.address)).await;
        assert_eq!(answer, Ok((status, String::new())));
        assert_eq!(endpoint.connections(), 1);
    }
    assert!(tokio::time::timeout(Duration::ZERO, private.accept()).await.is_err(), "a redirect was followed");
}
