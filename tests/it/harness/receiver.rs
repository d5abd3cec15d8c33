//! An HTTP endpoint with scripted answers that records every request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::eventually;

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub arrived_at_ms: i64,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn attempt(&self) -> u32 {
        self.header("x-optio-attempt").parse().unwrap()
    }

    pub fn delivery(&self) -> String {
        self.header("x-optio-delivery").to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The answer to a request.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// The time between the request and its answer.
    pub after: Duration,
    /// The answer comes when this becomes true.
    pub when: Option<watch::Receiver<bool>>,
    pub body: Body,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: vec![], after: Duration::ZERO, when: None, body: Body::empty() }
    }

    pub fn when(self, when: watch::Receiver<bool>) -> Self {
        Self { when: Some(when), ..self }
    }

    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    requests: Mutex<Vec<Request>>,
    script: Mutex<Script>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { requests: Mutex::default(), script: Mutex::new(Arc::new(|_| Reply::status(200))) });
        let router = Router::new().fallback(receive).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    /// Answers requests with `script` from now on. Before the first call every request gets a 200.
    pub fn answer(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// Waits until at least `count` requests have arrived, and returns all of them.
    pub async fn arrived(&self, count: usize) -> Vec<Request> {
        let what = format!("{count} requests arrive");
        eventually(&what, async || (self.count() >= count).then(|| self.requests())).await
    }

    /// The number of requests of each delivery, by delivery id.
    pub fn deliveries(&self) -> HashMap<String, usize> {
        let mut deliveries = HashMap::new();
        for request in self.shared.requests.lock().unwrap().iter() {
            *deliveries.entry(request.delivery()).or_default() += 1;
        }
        deliveries
    }

    /// Waits until requests of at least `count` different deliveries have arrived.
    pub async fn delivered(&self, count: usize) -> HashMap<String, usize> {
        let what = format!("{count} deliveries arrive");
        eventually(&what, async || {
            if self.count() < count {
                return None;
            }
            let deliveries = self.deliveries();
            (deliveries.len() >= count).then_some(deliveries)
        })
        .await
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: axum::extract::Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    let arrived_at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let request = Request { path: head.uri.path().to_owned(), headers: head.headers, body, arrived_at_ms };
    let script = shared.script.lock().unwrap().clone();
    let reply = script(&request);
    shared.requests.lock().unwrap().push(request);
    tokio::time::sleep(reply.after).await;
    if let Some(mut when) = reply.when {
        // A test that has ended waits for no answer.
        let _ = when.wait_for(|is_time| *is_time).await;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(reply.body).unwrap()
}
