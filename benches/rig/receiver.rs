//! A receiver as cheap as can be, so that what is measured is the sender: HTTP/1.1 with keep-alive, answers 200.
//!
//! `GET /count` answers how many requests came, by path.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// The role `receiver`: listens at `address` until it is killed.
pub fn run(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("a free port");
        let counts = Counts::default();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, counts.clone()));
        }
    });
}

async fn serve(mut stream: tokio::net::TcpStream, counts: Counts) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        let Some((head, length)) = find_head(&buffer) else {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let line = buffer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let path = String::from_utf8_lossy(line).into_owned();
        buffer.drain(..head + length);
        let answer = if path == "/count" {
            let counts = counts.lock().expect("nobody panics with it");
            let body = serde_json::to_string(&*counts).expect("strings and numbers");
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        } else {
            *counts.lock().expect("nobody panics with it").entry(path).or_default() += 1;
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Where the head ends, and how long the body is.
fn find_head(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    Some((end, length))
}

/// How many requests came, by path; waits for the receiver to listen.
pub fn counts(address: SocketAddr) -> BTreeMap<String, u64> {
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    stream.write_all(b"GET /count HTTP/1.1\r\n\r\n").expect("the receiver lives");
    stream.shutdown(std::net::Shutdown::Write).expect("the receiver lives");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the receiver lives");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    serde_json::from_str(body).expect("JSON")
}

pub fn total(address: SocketAddr) -> u64 {
    counts(address).values().sum()
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address")
}
