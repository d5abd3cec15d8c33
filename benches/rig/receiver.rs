//! A receiver as cheap as can be, so that what is measured is the sender: HTTP/1.1 with keep-alive, answers 200.
//!
//! `GET /count` answers how many requests succeeded, by path; `GET /latencies` how long after their events they came;
//! `GET /waits` how long after the attempt before it each later attempt came.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use optio_webhooks::clock::now_ms;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What came, and how long after its event was written or the attempt before it.
#[derive(Default)]
struct Seen {
    counts: BTreeMap<String, u64>,
    latencies_ms: Vec<i64>,
    /// When a delivery that will come again was answered, by its id.
    answered: HashMap<String, Instant>,
    waits_ms: Vec<i64>,
}

/// The role `receiver`: listens at `address` until it is killed. Requests to `/hang` are never answered, to `/500`
/// with 500, to `/slow` after nine seconds, to `/third` with 500 but for third attempts; all others with 200, and only
/// these are measured.
pub fn run(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("a free port");
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
            "/count" => page(&seen.lock().expect("nobody panics with it").counts),
            "/latencies" => page(&std::mem::take(&mut seen.lock().expect("nobody panics with it").latencies_ms)),
            "/hang" => std::future::pending().await,
            "/500" => "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/slow" => {
                tokio::time::sleep(Duration::from_secs(9)).await;
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            "/waits" => page(&std::mem::take(&mut seen.lock().expect("nobody panics with it").waits_ms)),
            "/third" => {
                let mut seen = seen.lock().expect("nobody panics with it");
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
                let latency_ms = written_at_ms(&buffer[head..head + length]).map(|at| now_ms() - at);
                let mut seen = seen.lock().expect("nobody panics with it");
                *seen.counts.entry(path).or_default() += 1;
                seen.latencies_ms.extend(latency_ms);
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
            }
        };
        buffer.drain(..head + length);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn page(value: &impl serde::Serialize) -> String {
    let body = serde_json::to_string(value).expect("strings and numbers");
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The benchmark writes it into the task's title.
fn written_at_ms(body: &[u8]) -> Option<i64> {
    const BEFORE: &[u8] = b"\"title\":\"";
    let at = body.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[at..at + digits]).ok()?.parse().ok()
}

/// Where the head ends, and how long the body is.
fn find_head(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    Some((end, header(&buffer[..end], "content-length:").parse().unwrap_or(0)))
}

/// The value of a header whose name with its colon is `name`, in small letters; empty where there is none.
fn header(head: &[u8], name: &str) -> String {
    let head = String::from_utf8_lossy(head).to_lowercase();
    head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

/// Asks the receiver; waits for it to listen.
fn ask<T: serde::de::DeserializeOwned>(address: SocketAddr, path: &str) -> T {
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    write!(stream, "GET {path} HTTP/1.1\r\n\r\n").expect("the receiver lives");
    stream.shutdown(std::net::Shutdown::Write).expect("the receiver lives");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the receiver lives");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    serde_json::from_str(body).expect("JSON")
}

/// How many requests came, by path.
pub fn counts(address: SocketAddr) -> BTreeMap<String, u64> {
    ask(address, "/count")
}

/// How long after its event each request came since the last call, sorted.
pub fn latencies_ms(address: SocketAddr) -> Vec<i64> {
    let mut latencies: Vec<i64> = ask(address, "/latencies");
    latencies.sort_unstable();
    latencies
}

/// How long after the attempt before it each later attempt came since the last call, sorted.
pub fn waits_ms(address: SocketAddr) -> Vec<i64> {
    let mut waits: Vec<i64> = ask(address, "/waits");
    waits.sort_unstable();
    waits
}

pub fn total(address: SocketAddr) -> u64 {
    counts(address).values().sum()
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address")
}
