//! Connections that are kept, and what becomes of requests on those that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use optio_webhooks::delivery::FailureCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{client, post, settings, trusting};
use crate::harness::endpoint::{Act, Endpoint, Flaw, OK, REFUSED_STREAM, acceptor, certified, http2, request, reset};

/// An HTTP/2 endpoint over TLS: `act` gets the connection's number from 0 and the request's on it from 1.
async fn h2_endpoint(act: impl Fn(usize, u32) -> Act + Send + Sync + 'static) -> (Endpoint, rustls::RootCertStore) {
    let certified = certified(Flaw::None);
    let acceptor = acceptor(certified.config, "h2");
    let act = Arc::new(act);
    let endpoint = Endpoint::start(move |stream, number| {
        let (acceptor, act) = (acceptor.clone(), act.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            http2(stream, |count| act(number, count)).await;
        }
    })
    .await;
    (endpoint, certified.roots)
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
                    // At the first byte, so that the rest finds a closed connection.
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
async fn a_request_is_not_sent_again_once_any_of_an_answer_came_or_where_the_connection_was_new() {
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
async fn connections_are_reused_and_given_up_before_servers_close_them() {
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
async fn of_eight_frozen_connections_the_first_timeout_frees_all() {
    let frozen = Arc::new(AtomicBool::new(false));
    let freezing = frozen.clone();
    let endpoint = Endpoint::start(move |mut stream, number| {
        let freezing = freezing.clone();
        async move {
            while request(&mut stream).await.is_some() {
                if number < 8 && freezing.load(Ordering::SeqCst) {
                    return std::future::pending().await;
                }
                // Slow enough for eight connections to be made.
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
    assert_eq!(failed, 1, "only the one that was on a frozen connection");
}

#[tokio::test]
async fn a_request_that_an_http2_endpoint_says_it_did_not_process_costs_no_attempt() {
    for act in [Act::GoAway, Act::Reset(REFUSED_STREAM), Act::Close] {
        let (endpoint, roots) = h2_endpoint(move |_, count| if count % 3 == 0 { act } else { Act::Answer }).await;
        let client = trusting(&settings(|_| {}), roots);
        for number in 0..27 {
            let answer = post(&client, &https(&endpoint)).await;
            assert_eq!(answer.map(|(status, _)| status), Ok(200), "{act:?}, request {number}");
        }
    }
    // On a new connection, too; but not for ever.
    let (endpoint, roots) = h2_endpoint(|connection, _| if connection == 0 { Act::GoAway } else { Act::Answer }).await;
    let client = trusting(&settings(|_| {}), roots);
    assert_eq!(post(&client, &https(&endpoint)).await.unwrap().0, 200);
    let (endpoint, roots) = h2_endpoint(|_, _| Act::Reset(REFUSED_STREAM)).await;
    let error = post(&trusting(&settings(|_| {}), roots), &https(&endpoint)).await.unwrap_err();
    assert!(error.code == FailureCode::Connect && error.detail.contains("refused"), "{error:?}");
    assert_eq!(endpoint.connections(), 4);
}

#[tokio::test]
async fn a_frozen_http2_connection_is_noticed_by_pings_and_replaced_within_the_attempt() {
    let (endpoint, roots) =
        h2_endpoint(|connection, count| if connection == 0 && count > 1 { Act::Freeze } else { Act::Answer }).await;
    let client = trusting(&settings(|delivery| delivery.timeout = Duration::from_secs(4)), roots);
    for number in 0..27 {
        let began = Instant::now();
        assert_eq!(post(&client, &https(&endpoint)).await.map(|(status, _)| status), Ok(200), "request {number}");
        assert!(began.elapsed() < Duration::from_secs(4));
    }
    assert_eq!(endpoint.connections(), 2);
}

#[tokio::test]
async fn after_a_timeout_over_http2_the_next_attempt_dials_anew_though_pings_are_answered() {
    let (endpoint, roots) =
        h2_endpoint(|connection, count| if connection == 0 && count > 1 { Act::Ignore } else { Act::Answer }).await;
    let client = trusting(&settings(|delivery| delivery.timeout = Duration::from_millis(1_500)), roots);
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
    let client = trusting(&settings(|_| {}), roots);
    let url = https(&endpoint);
    let answers = futures_util::future::join_all((0..64).map(|_| post(&client, &url))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(endpoint.connections(), 1);
}
