//! Slow clients of the admin server: they lose their connections, and nobody else notices.

use std::time::Duration;

use optio_webhooks::event::EventType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::worker::Worker;
use crate::harness::world::TOKEN;
use crate::harness::{PATIENCE, World, eventually};

/// The files that the worker may open. Without a bound on connections, half as many slow ones end all deliveries.
const FILES_MAX: usize = 400;
/// The number of slow connections.
const SLOW: usize = 800;

/// A connection from 127.0.0.`last` on which `bytes` were sent.
async fn connect(worker: &Worker, last: u8, bytes: &str) -> TcpStream {
    let address = worker.address().trim_start_matches("http://").parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    let connecting = tokio::time::timeout(PATIENCE, socket.connect(address));
    let mut stream = connecting.await.expect("the server accepts connections").unwrap();
    // The server may have closed the connection already.
    let _ = stream.write_all(bytes.as_bytes()).await;
    stream
}

/// Everything that the server sends until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    let _ = read.await.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_end_neither_deliveries_nor_answers() {
    let mut world = World::new().await;
    world.set("admin.header_timeout", "5m");
    world.set("admin.idle_timeout", "5m");
    world.webhook("/hook", &[EventType::TaskCompleted]).await;
    let mut worker = Worker::start_with_files(FILES_MAX, &world.environment());
    worker.readiness(true).await;
    let kept_alive = connect(&worker, 1, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let cookie = worker.sign_in(TOKEN).await;
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let half = [
            "GET /sign-in HTTP/1.1\r\nhost: loc",
            "",
            "POST /sign-in HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\nt",
        ];
        slow.push(connect(&worker, 9, half[number % half.len()]).await);
    }
    assert_eq!(worker.page("/healthz").await.unwrap().0, 200);
    assert_eq!(worker.page("/readyz").await.unwrap().0, 200);
    assert_eq!(worker.page_as(&cookie, "/settings/webhooks").await.0, 200);
    assert_eq!(worker.call("GET", "/api/webhooks", None).await.0, 200);
    world.emit(EventType::TaskCompleted, 200).await;
    world.receiver.delivered(200).await;
    let (_, metrics) = worker.page("/metrics").await.unwrap();
    let evicted = metrics.lines().find(|line| line.contains("closed_total{reason=\"evicted\"}")).unwrap();
    let evicted: usize = evicted.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((SLOW - FILES_MAX / 4..=SLOW + 10).contains(&evicted), "{evicted}");
    let warnings = worker.log().matches("connections to the admin server are closed for new ones").count();
    assert_eq!(warnings, 1, "one line a minute");
    // The client that opens many loses its own, and not the older connection of another client.
    let mut kept_alive = kept_alive;
    kept_alive.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut kept_alive).await.matches("HTTP/1.1 200").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_takes_too_long_is_closed() {
    let mut world = World::new().await;
    world.set("admin.header_timeout", "300ms");
    world.set("admin.body_timeout", "300ms");
    world.set("admin.idle_timeout", "300ms");
    let worker = world.admin().await;
    for sent in [
        "",
        "GET /healthz HTTP/1.1\r\nhost: loc",
        "POST /sign-in HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\ntoken=",
        "POST /sign-in HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\ntoken\r\n",
    ] {
        assert_eq!(rest(&mut connect(&worker, 1, sent).await).await, "", "{sent}");
    }
    let answered = rest(&mut connect(&worker, 1, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await).await;
    assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("ok\n"), "{answered}");
    // Bytes now and then don't help: the time counts from the first byte.
    let mut dripping = connect(&worker, 1, "GET /healthz HTTP/1.1\r\n").await;
    eventually("the connection is closed", async || {
        let sent = dripping.write_all(b"a: b\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        sent.is_err().then_some(())
    })
    .await;
    let (_, metrics) = worker.page("/metrics").await.unwrap();
    assert!(metrics.contains("closed_total{reason=\"too_slow\"} 4"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_take_its_answers_is_closed() {
    let mut world = World::new().await;
    world.set("admin.idle_timeout", "300ms");
    let worker = world.admin().await;
    let mut stream = connect(&worker, 1, "").await;
    let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    // The answers fill the buffers of the system, because nobody reads them.
    eventually("the connection is closed", async || stream.write_all(request.as_bytes()).await.is_err().then_some(()))
        .await;
    eventually("it is counted", async || {
        let (_, metrics) = worker.page("/metrics").await.unwrap();
        metrics.contains("closed_total{reason=\"too_slow\"} 1").then_some(())
    })
    .await;
}
