//! Kept connections: their reuse, and requests on connections that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use optio_webhooks::delivery::FailureCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{client, client_trusting, post, settings};
use crate::harness::endpoint::{
    Act, Endpoint, Flaw, OK, REFUSED_STREAM, acceptor, certificate, http2, http2_of_few, request, reset,
};

/// An HTTP/2 endpoint over TLS. `act` gets the number of the connection, from 0, and of the request on it, from 1.
async fn h2_endpoint(act: impl Fn(usize, u32) -> Act + Send + Sync + 'static) -> (Endpoint, rustls::RootCertStore) {
    let certificate = certificate(Flaw::None);
    let acceptor = acceptor(certificate.config, "h2");
    let act = Arc::new(act);
    let endpoint = Endpoint::start(move |stream, number| {
        let (acceptor, act) = (acceptor.clone(), act.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            http2(stream, |count| act(number, count)).await;
        }
    })
    .await;
    (endpoint, certificate.roots)
}

fn https(endpoint: &Endpoint) -> String {
    format!("https://{}/hook", endpoint.address)
}

#[tokio::test]
async fn a_kept_connection_that_the_endpoint_closes_or_resets_costs_no_attempt() {
    for by_reset in [false, true] {
        for reads_first in [false, true] {
            let endpoint = Endpoint::start(move |mut stream, _| async move {
                request(&mut stream).await;
                stream.write_all(OK).await.unwrap();
                if reads_first {
                    request(&mut stream).await;
                } else {
                    // Closes after the first byte, so that the rest of the request meets a closed connection.
                    let _ = stream.read_u8().await;
                }
                if by_reset {
                    reset(stream);
                }
            })
            .await;
            let client = client(&settings(|_| {}));
            for number in 0..17 {
                let answer = post(&client, &endpoint.url()).await;
                assert_eq!(
                    answer,
                    Ok((200, "ok".to_owned())),
                    "reset: {by_reset}, after reading: {reads_first}, {number}"
                );
            }
            assert_eq!(endpoint.connections(), 17, "each connection served one request");
        }
    }
}

#[tokio::test]
async fn a_request_is_sent_again_only_if_a_reused_connection_gave_no_answer() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let endpoint = Endpoint::start(move |mut stream, _| {
        let counted = counted.clone();
        async move {
            request(&mut stream).await;
            counted.fetch_add(1, Ordering::SeqCst);
            stream.write_all(OK).await.unwrap();
            if request(&mut stream).await.is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 20").await.unwrap();
            }
        }
    })
    .await;
    let client = client(&settings(|_| {}));
    post(&client, &endpoint.url()).await.unwrap();
    let error = post(&client, &endpoint.url()).await.unwrap_err();
    assert_eq!(error.code, FailureCode::Connect, "{error:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 2);

    let closing = Endpoint::start(|mut stream, _| async move {
        request(&mut stream).await;
    })
    .await;
    let error = post(&client, &closing.url()).await.unwrap_err();
    assert_eq!((error.code, closing.connections()), (FailureCode::Connect, 1), "{error:?}");
}

#[tokio::test]
async fn connections_are_reused_and_closed_after_the_idle_timeout() {
    let closed = Arc::new(AtomicBool::new(false));
    let seen = closed.clone();
    let endpoint = Endpoint::start(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            while request(&mut stream).await.is_some() {
                stream.write_all(OK).await.unwrap();
            }
            seen.store(true, Ordering::SeqCst);
        }
    })
    .await;
    let client = client(&settings(|delivery| delivery.idle_timeout = Duration::from_millis(600)));
    for _ in 0..10 {
        post(&client, &endpoint.url()).await.unwrap();
    }
    assert_eq!(endpoint.connections(), 1);
    crate::harness::eventually("the idle connection is closed", async || closed.load(Ordering::SeqCst).then_some(()))
        .await;
    post(&client, &endpoint.url()).await.unwrap();
    assert_eq!(endpoint.connections(), 2);
    assert!(settings(|_| {}).idle_timeout < Duration::from_secs(5));
}

#[tokio::test]
async fn a_timeout_discards_all_frozen_connections_to_its_endpoint() {
    let frozen = Arc::new(AtomicBool::new(false));
    let freezing = frozen.clone();
    let endpoint = Endpoint::start(move |mut stream, number| {
        let freezing = freezing.clone();
        async move {
            while request(&mut stream).await.is_some() {
                if number < 8 && freezing.load(Ordering::SeqCst) {
                    return std::future::pending().await;
                }
                // The answers are so slow that eight requests at once need eight connections.
                tokio::time::sleep(Duration::from_millis(if number < 8 { 200 } else { 0 })).await;
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let client = client(&settings(|delivery| delivery.timeout = Duration::from_millis(1_500)));
    let url = endpoint.url();
    let warm = futures_util::future::join_all((0..8).map(|_| post(&client, &url))).await;
    assert!(warm.iter().all(Result::is_ok) && endpoint.connections() == 8, "{warm:?}");
    frozen.store(true, Ordering::SeqCst);
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(post(&client, &url).await.is_err());
    }
    assert_eq!(failed, 1, "only the first request fails: its timeout discards the other frozen connections");
}

#[tokio::test]
async fn an_http2_request_that_was_not_processed_costs_no_attempt() {
    for act in [Act::GoAway, Act::Reset(REFUSED_STREAM), Act::Close] {
        let (endpoint, roots) = h2_endpoint(move |_, count| if count % 3 == 0 { act } else { Act::Answer }).await;
        let client = client_trusting(&settings(|_| {}), roots);
        for number in 0..27 {
            let answer = post(&client, &https(&endpoint)).await;
            assert_eq!(answer.map(|(status, _)| status), Ok(200), "{act:?}, request {number}");
        }
    }
    // This also holds on a new connection. But a request is sent again three times at most.
    let (endpoint, roots) = h2_endpoint(|connection, _| if connection == 0 { Act::GoAway } else { Act::Answer }).await;
    let client = client_trusting(&settings(|_| {}), roots);
    assert_eq!(post(&client, &https(&endpoint)).await.unwrap().0, 200);
    let (endpoint, roots) = h2_endpoint(|_, _| Act::Reset(REFUSED_STREAM)).await;
    let error = post(&client_trusting(&settings(|_| {}), roots), &https(&endpoint)).await.unwrap_err();
    assert!(error.code == FailureCode::Connect && error.detail.contains("refused"), "{error:?}");
    assert_eq!(endpoint.connections(), 4);
}

#[tokio::test]
async fn a_frozen_http2_connection_is_replaced_within_the_attempt() {
    let (endpoint, roots) =
        h2_endpoint(|connection, count| if connection == 0 && count > 1 { Act::Freeze } else { Act::Answer }).await;
    let client = client_trusting(&settings(|delivery| delivery.timeout = Duration::from_secs(4)), roots);
    for number in 0..27 {
        let began = Instant::now();
        assert_eq!(post(&client, &https(&endpoint)).await.map(|(status, _)| status), Ok(200), "request {number}");
        assert!(began.elapsed() < Duration::from_secs(4));
    }
    assert_eq!(endpoint.connections(), 2);
}

#[tokio::test]
async fn after_a_timeout_over_http2_the_next_attempt_uses_a_new_connection() {
    let (endpoint, roots) =
        h2_endpoint(|connection, count| if connection == 0 && count > 1 { Act::Ignore } else { Act::Answer }).await;
    let client = client_trusting(&settings(|delivery| delivery.timeout = Duration::from_millis(1_500)), roots);
    post(&client, &https(&endpoint)).await.unwrap();
    let error = post(&client, &https(&endpoint)).await.unwrap_err();
    assert_eq!(error.code, FailureCode::Timeout);
    for _ in 0..5 {
        post(&client, &https(&endpoint)).await.unwrap();
    }
    assert_eq!(endpoint.connections(), 2);
}

#[tokio::test]
async fn many_requests_at_once_share_one_http2_connection() {
    let (endpoint, roots) = h2_endpoint(|_, _| Act::Answer).await;
    let client = client_trusting(&settings(|_| {}), roots);
    let url = https(&endpoint);
    let answers = futures_util::future::join_all((0..64).map(|_| post(&client, &url))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(endpoint.connections(), 1);
}

#[tokio::test]
async fn requests_do_not_wait_for_those_that_an_endpoint_leaves_unanswered_over_http2() {
    let certificate = certificate(Flaw::None);
    let tls = acceptor(certificate.config, "h2");
    let endpoint = Endpoint::start(move |stream, number| {
        let tls = tls.clone();
        async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            // Of the two requests that the first connection takes at once, none is answered after the first one.
            http2_of_few(stream, 2, |count| if number == 0 && count > 1 { Act::Ignore } else { Act::Answer }).await;
        }
    })
    .await;
    let client = client_trusting(&settings(|_| {}), certificate.roots);
    let url = https(&endpoint);
    assert!(post(&client, &url).await.is_ok(), "now the client knows how many requests may be under way");
    let mut hanging = std::pin::pin!(async { tokio::join!(post(&client, &url), post(&client, &url)) });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut hanging).await.is_err());
    for _ in 0..5 {
        assert!(tokio::time::timeout(Duration::from_secs(2), post(&client, &url)).await.unwrap().is_ok());
    }
    assert_eq!(endpoint.connections(), 2);
}
