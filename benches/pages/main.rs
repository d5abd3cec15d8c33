//! The cost of a full delivery log: the response time of its pages, and its memory in Redis.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench pages`.
//! Environment variables and their defaults: `WEBHOOKS` (1000); `ENTRIES`, the entries of each log (100); `ASKED`, the
//! number of requests of each kind (200).

#[path = "../rig/mod.rs"]
mod rig;

use std::time::{Duration, Instant};

use optio_webhooks::clock::now_ms;
use optio_webhooks::delivery::{Attempt, Delivery, DeliveryId, FailureCode};
use optio_webhooks::event::{Decoded, EventType, Limits, decode, sample};
use optio_webhooks::position::{RecordPosition, TimestampMs};
use optio_webhooks::store::log::{self, Logged};
use optio_webhooks::store::{Keys, connection};
use optio_webhooks::webhook::WebhookId;
use uuid::Uuid;

use rig::process::Process;
use rig::world::World;
use rig::{figure, receiver, setting};

const TOKEN: &str = "a token of the benchmark";

fn main() {
    tokio::runtime::Runtime::new().expect("the runtime starts").block_on(measure());
}

async fn measure() {
    let (webhooks, entries) = (setting("WEBHOOKS", 1_000), setting("ENTRIES", 100));
    let at = receiver::free_address();
    let world = World::new(&[("admin.token", TOKEN), ("admin.listen", &at.to_string())]).await;
    let paths: Vec<String> = (0..webhooks).map(|number| format!("/{number}")).collect();
    let ids = world.webhooks(receiver::free_address(), &paths, &EventType::TASKS).await;
    let before = memory(&world).await;
    fill(&world, &ids, entries).await;
    let grown = memory(&world).await - before;
    let count = webhooks * entries;
    println!(
        "{count} entries of {webhooks} logs take {:.1} MiB in redis: {} bytes each",
        grown as f64 / 1_048_576.0,
        grown / count as u64
    );

    let _admin: Process = world.start(&["run", "--only", "admin"]);
    let client = client(at).await;
    let log = |id: WebhookId| format!("/api/webhooks/{id}/deliveries");
    let page = |id: WebhookId| format!("/settings/webhooks/{id}/deliveries");
    for (name, path) in [
        ("the newest page", &(|id| log(id)) as &dyn Fn(WebhookId) -> String),
        ("the last page", &|id| format!("{}?limit=50&before=1-0", log(id))),
        ("the largest page", &|id| format!("{}?limit=200", log(id))),
        ("a filter that fits few", &|id| format!("{}?success=false&event=review.completed", log(id))),
        ("the page for people", &|id| page(id)),
        ("its filter", &|id| format!("{}?success=false&event=task.failed", page(id))),
        ("the list of webhooks", &|_| "/settings/webhooks?page=3".to_owned()),
    ] {
        let mut took = Vec::new();
        for number in 0..setting("ASKED", 200) {
            let began = Instant::now();
            let answer = client.get(format!("http://{at}{}", path(ids[number * 7 % ids.len()]))).send().await;
            let answer = answer.expect("the server answers");
            assert_eq!(answer.status(), 200);
            answer.bytes().await.expect("the answer has a body");
            took.push(began.elapsed());
        }
        took.sort();
        let ms = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64() * 1_000.0;
        figure("pages", &format!("{name}, median"), ms(50), "ms");
        figure("pages", &format!("{name}, p99"), ms(99), "ms");
    }
}

/// A client that is signed in to the API by its token and to the pages by a cookie.
async fn client(at: std::net::SocketAddr) -> reqwest::Client {
    let plain = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let plain = plain.build().expect("the client can be built");
    let signed_in = loop {
        let form = format!("token={}", TOKEN.replace(' ', "+").replace('\'', "%27"));
        let request = plain.post(format!("http://{at}/sign-in")).body(form);
        if let Ok(answer) = request.send().await {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let cookie = signed_in.headers()["set-cookie"]
        .to_str()
        .expect("the cookie is text")
        .split(';')
        .next()
        .expect("a cookie has a value")
        .to_owned();
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("cookie", cookie.parse().expect("the cookie is a valid header"));
    headers.insert("authorization", format!("Bearer {TOKEN}").parse().expect("the token is a valid header"));
    reqwest::Client::builder().default_headers(headers).no_proxy().build().expect("the client can be built")
}

async fn memory(world: &World) -> u64 {
    let mut redis = connection::open(&world.config.redis).expect("the URL is valid");
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.expect("Redis answers");
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("INFO has this field");
    line.trim().parse().expect("the field is a number")
}

/// Fills the logs as a worker does. Every tenth attempt is a failure, with a longer answer.
async fn fill(world: &World, webhooks: &[WebhookId], entries: usize) {
    let mut redis = connection::open(&world.config.redis).expect("the URL is valid");
    let keys = Keys::new(&world.config.redis.prefix);
    for webhook in webhooks {
        let mut pipe = redis::pipe();
        for number in 0..entries {
            let event_type = EventType::TASKS[number % EventType::TASKS.len()];
            let failed = number % 10 == 0;
            let delivery = delivery(*webhook, event_type);
            let attempt = Attempt {
                failure: failed.then_some(FailureCode::Status),
                detail: failed.then(|| "reading the answer: the endpoint answered with the status 503".to_owned()),
                status: Some(if failed { 503 } else { 200 }),
                response_body: if failed { "x".repeat(200) } else { "ok".to_owned() },
                duration: Duration::from_millis(12),
                retry_after: None,
                ended_at_ms: now_ms(),
                is_sent: true,
                custom_headers: Vec::new(),
                proofs: vec![
                    ("x-optio-signature", header(&format!("sha256={}", "0f".repeat(32)))),
                    ("webhook-timestamp", header("1795557529")),
                    ("webhook-signature", header(&format!("v1,{}=", "A".repeat(43)))),
                ],
            };
            let packed = Logged::new(&delivery, &attempt, None).packed(&delivery.body);
            log::append(&mut pipe, &keys, *webhook, &packed, &world.config.log);
            pipe.ignore();
        }
        pipe.query_async::<()>(&mut redis).await.expect("Redis answers");
    }
}

fn header(value: &str) -> hyper::header::HeaderValue {
    value.parse().unwrap()
}

fn delivery(webhook_id: WebhookId, event_type: EventType) -> Delivery {
    let value =
        sample::transition(event_type, Uuid::now_v7(), "Fix login redirect after checkout", now_ms()).to_string();
    let at = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
    let Ok(Decoded::Event(event)) = decode(Some(value.as_bytes()), &at, TimestampMs(0), Limits::NONE) else {
        panic!("a sample is a valid event")
    };
    Delivery {
        id: DeliveryId::of(&event.id, webhook_id),
        webhook_id,
        event_type,
        event_id: event.id,
        task_id: event.task_id,
        body: event.body,
        attempts: 0,
        deferrals: 0,
        first_seen_at_ms: now_ms(),
        source: RecordPosition { topic: "task-events".into(), partition: 3, offset: 123_456 },
        replays: 0,
        traceparent: None,
        by_hand: false,
    }
}
