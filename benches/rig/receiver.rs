//! A receiver that costs as little as possible, so that a benchmark measures the sender. It speaks HTTP/1.1 with
//! keep-alive.
//!
//! `GET /count` answers the number of successful requests by path, `GET /latencies` the times from events to their
//! requests, and `GET /waits` the times from the answer of an attempt to the next attempt of the same delivery.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The counts and times of the received requests.
#[derive(Default)]
struct Seen {
    counts: BTreeMap<String, u64>,
    latencies_us: Vec<i64>,
    /// The time of the last answer to a delivery that will be tried again, by its id.
    answered: HashMap<String, Instant>,
    waits_ms: Vec<i64>,
}

/// The role `receiver`: listens at `address` until it is killed. It never answers requests to `/hang`, answers `/500`
/// with 500, `/slow` after nine seconds, and `/third` with 500 until the third attempt. It answers all other requests
/// with 200, those below `/100ms` after that time, and measures the latency of only those.
pub fn run(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("a port is free");
        let seen = Arc::new(Mutex::new(Seen::default()));
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, seen.clone()));
        }
    });
}

async fn serve(mut stream: tokio::net::TcpStream, seen: Arc<Mutex<Seen>>) {
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
        let answer = match path.as_str() {
            "/count" => page(&seen.lock().expect("the lock is not poisoned").counts),
            "/latencies" => page(&std::mem::take(&mut seen.lock().expect("the lock is not poisoned").latencies_us)),
            "/hang" => std::future::pending().await,
            "/500" => "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/slow" => {
                tokio::time::sleep(Duration::from_secs(9)).await;
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            "/waits" => page(&std::mem::take(&mut seen.lock().expect("the lock is not poisoned").waits_ms)),
            "/third" => {
                let mut seen = seen.lock().expect("the lock is not poisoned");
                let id = header(&buffer[..head], "x-optio-delivery:");
                if let Some(before) = seen.answered.insert(id, Instant::now()) {
                    seen.waits_ms.push(before.elapsed().as_millis() as i64);
                }
                if header(&buffer[..head], "x-optio-attempt:") == "3" {
                    *seen.counts.entry(path).or_default() += 1;
                    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
                } else {
                    "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
            }
            _ => {
                let latency_us = written_at_us(&buffer[head..head + length]).map(|at| now_us() - at);
                {
                    let mut seen = seen.lock().expect("the lock is not poisoned");
                    *seen.counts.entry(path.clone()).or_default() += 1;
                    seen.latencies_us.extend(latency_us);
                }
                if path.starts_with("/100ms") {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
            }
        };
        buffer.drain(..head + length);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The time in Unix microseconds.
pub fn now_us() -> i64 {
    std::time::UNIX_EPOCH.elapsed().expect("the clock is right").as_micros() as i64
}

fn page(value: &impl serde::Serialize) -> String {
    let body = serde_json::to_string(value).expect("strings and numbers always serialize");
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The time at which the benchmark wrote the event, which is the title of its task.
fn written_at_us(body: &[u8]) -> Option<i64> {
    const BEFORE: &[u8] = b"\"title\":\"";
    let at = body.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[at..at + digits]).ok()?.parse().ok()
}

/// The length of the head with its empty line, and the length of the body.
fn find_head(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    Some((end, header(&buffer[..end], "content-length:").parse().unwrap_or(0)))
}

/// The value of a header in lower case, or an empty text if it is missing. `name` is in lower case and ends with a
/// colon.
fn header(head: &[u8], name: &str) -> String {
    let head = String::from_utf8_lossy(head).to_lowercase();
    head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

/// Gets a page of the receiver. Waits until the receiver listens.
fn get<T: serde::de::DeserializeOwned>(address: SocketAddr, path: &str) -> T {
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    write!(stream, "GET {path} HTTP/1.1\r\n\r\n").expect("the receiver runs");
    stream.shutdown(std::net::Shutdown::Write).expect("the receiver runs");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the receiver runs");
    let body = answer.split("\r\n\r\n").nth(1).expect("the answer has a body");
    serde_json::from_str(body).expect("the receiver answers JSON")
}

/// Whether the server at `address` answers 200 to a request for `path`.
pub fn answers_ok(address: SocketAddr, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    let asked = write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// The number of successful requests, by path.
pub fn counts(address: SocketAddr) -> BTreeMap<String, u64> {
    get(address, "/count")
}

/// The sorted times from events to their requests, for all requests since the last call.
pub fn latencies_us(address: SocketAddr) -> Vec<i64> {
    let mut latencies: Vec<i64> = get(address, "/latencies");
    latencies.sort_unstable();
    latencies
}

/// The sorted times from an answer to the next attempt, for all later attempts since the last call.
pub fn waits_ms(address: SocketAddr) -> Vec<i64> {
    let mut waits: Vec<i64> = get(address, "/waits");
    waits.sort_unstable();
    waits
}

pub fn total(address: SocketAddr) -> u64 {
    counts(address).values().sum()
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("a bound socket has an address")
}
