//! Answers that the client accepts or refuses.

use optio_webhooks::delivery::FailureCode;
use tokio::io::AsyncWriteExt as _;

use super::{client, post, settings};
use crate::harness::endpoint::{Endpoint, request};

#[tokio::test]
async fn unusual_answers_that_other_clients_accept_are_accepted() {
    let many = (0..300).map(|n| format!("x-{n}: {n}\r\n")).collect::<String>();
    let large = (0..15).map(|n| format!("x-{n}: {}\r\n", "v".repeat(4_000))).collect::<String>();
    let small = (0..1_500).map(|n| format!("x-{n}: {n}\r\n")).collect::<String>();
    let one = format!("x-one: {}\r\n", "v".repeat(60_000));
    let rest = "content-length: 2\r\n\r\nok";
    for (what, answer) in [
        ("a line without a colon", format!("HTTP/1.1 200 OK\r\nthis is no header\r\n{rest}")),
        ("a line with a space in its name", format!("HTTP/1.1 200 OK\r\nbad name: x\r\n{rest}")),
        ("a line without a name", format!("HTTP/1.1 200 OK\r\n: nothing\r\n{rest}")),
        ("a space before the colon", format!("HTTP/1.1 200 OK\r\nx-a : b\r\n{rest}")),
        ("control characters in a value", format!("HTTP/1.1 200 OK\r\nx-a: \x01\x02\r\n{rest}")),
        ("bytes beyond ASCII in a value", format!("HTTP/1.1 200 OK\r\nx-a: é\r\n{rest}")),
        ("bytes beyond ASCII in a name", format!("HTTP/1.1 200 OK\r\né: a\r\n{rest}")),
        (
            "101 headers",
            format!("HTTP/1.1 200 OK\r\n{}{rest}", (0..100).map(|n| format!("x-{n}: {n}\r\n")).collect::<String>()),
        ),
        ("300 headers", format!("HTTP/1.1 200 OK\r\n{many}{rest}")),
        ("1,500 headers", format!("HTTP/1.1 200 OK\r\n{small}{rest}")),
        ("60 KB of headers", format!("HTTP/1.1 200 OK\r\n{large}{rest}")),
        ("one header of 60 KB", format!("HTTP/1.1 200 OK\r\n{one}{rest}")),
        ("no reason", format!("HTTP/1.1 200\r\n{rest}")),
        ("an empty reason", format!("HTTP/1.1 200 \r\n{rest}")),
        ("bytes beyond ASCII in the reason", format!("HTTP/1.1 200 Très bien\r\n{rest}")),
        ("bare line feeds", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok".to_owned()),
        ("a folded line", format!("HTTP/1.1 200 OK\r\nx-a: one\r\n  two\r\n\tthree\r\n{rest}")),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nok".to_owned()),
        ("a body without length that ends with the connection", "HTTP/1.1 200 OK\r\n\r\nok".to_owned()),
        ("chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n".to_owned()),
        (
            "chunks and a length",
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned(),
        ),
        ("the same length twice", format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{rest}")),
        (
            "interim answers",
            format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n{rest}"
            ),
        ),
        ("empty lines before the status line", format!("\r\n\r\nHTTP/1.1 200 OK\r\n{rest}")),
    ] {
        let endpoint = Endpoint::answering(answer).await;
        let answer = post(&client(&settings(|_| {})), &endpoint.url()).await;
        assert_eq!(answer, Ok((200, "ok".to_owned())), "{what}");
    }
}

#[tokio::test]
async fn an_invalid_answer_fails_with_the_reason_in_words() {
    let huge = "x-a: v\r\n".repeat(20_000);
    for (what, answer, code, words) in [
        (
            "not HTTP",
            "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
            FailureCode::Protocol,
            "isn't an HTTP answer: invalid HTTP version",
        ),
        (
            "an HTTP/2 preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            FailureCode::Protocol,
            "isn't an HTTP answer",
        ),
        ("status 99", "HTTP/1.1 099 Low\r\n\r\n".to_owned(), FailureCode::Protocol, "invalid HTTP status-code"),
        ("status 1000", "HTTP/1.1 1000 High\r\n\r\n".to_owned(), FailureCode::Protocol, "invalid HTTP status-code"),
        (
            "a huge status line",
            format!("HTTP/1.1 200 {}", "x".repeat(200_000)),
            FailureCode::Protocol,
            "more or larger headers than allowed",
        ),
        (
            "160 KB of headers",
            format!("HTTP/1.1 200 OK\r\n{huge}\r\n"),
            FailureCode::Protocol,
            "more or larger headers than allowed",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok".to_owned(),
            FailureCode::Protocol,
            "content-length",
        ),
        (
            "a length that is no number",
            "HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok".to_owned(),
            FailureCode::Protocol,
            "content-length",
        ),
        (
            "a head that breaks off",
            "HTTP/1.1 200 OK\r\nx-a: b".to_owned(),
            FailureCode::Connect,
            "before its answer was complete",
        ),
        ("no answer at all", String::new(), FailureCode::Connect, "before its answer was complete"),
        (
            "a body shorter than its length",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok".to_owned(),
            FailureCode::Body,
            "reading the answer's body: it broke off",
        ),
        (
            "broken chunks",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n".to_owned(),
            FailureCode::Body,
            "it broke off",
        ),
    ] {
        let endpoint = Endpoint::answering(answer).await;
        let error = post(&client(&settings(|_| {})), &endpoint.url()).await.unwrap_err();
        assert!(error.code == code && error.detail.contains(words), "{what}: {error:?}");
        assert!(
            error.detail.chars().count() <= 300 && !error.detail.chars().any(char::is_control),
            "{what}: {error:?}"
        );
    }
}

#[tokio::test]
async fn an_endless_answer_ends_with_the_timeout_of_the_attempt() {
    let settings = settings(|delivery| delivery.timeout = std::time::Duration::from_millis(400));
    for (what, begin, each, words) in [
        ("interim answers", "", "HTTP/1.1 100 Continue\r\n\r\n", "waiting for an answer from 127.0.0.1:"),
        ("a slow head", "HTTP/1.1 200 OK\r\n", "x-a: b\r\n", "waiting for an answer from 127.0.0.1:"),
        ("a slow body", "HTTP/1.1 200 OK\r\n\r\n", "x", "reading the answer's body"),
        ("no answer at all", "", "", "waiting for an answer from 127.0.0.1:"),
    ] {
        let endpoint = Endpoint::start(move |mut stream, _| async move {
            request(&mut stream).await;
            let _ = stream.write_all(begin.as_bytes()).await;
            while stream.write_all(each.as_bytes()).await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        let began = std::time::Instant::now();
        let error = post(&client(&settings), &endpoint.url()).await.unwrap_err();
        assert!(error.code == FailureCode::Timeout && error.detail.contains(words), "{what}: {error:?}");
        assert!(began.elapsed() < std::time::Duration::from_secs(3), "{what}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn an_unrequested_upgrade_counts_as_its_status_and_closes_the_connection() {
    let endpoint =
        Endpoint::answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    let client = client(&settings(|_| {}));
    for _ in 0..2 {
        assert_eq!(post(&client, &endpoint.url()).await.unwrap().0, 101);
    }
    assert_eq!(endpoint.connections(), 2);
}
