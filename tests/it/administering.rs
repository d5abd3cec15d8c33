//! The API as Optio's clients and operators use it.

use std::time::Duration;

use axum::body::Body;
use optio_webhooks::clock::now_ms;
use optio_webhooks::event::EventType;
use optio_webhooks::signature::SigningSecret;
use optio_webhooks::webhook::WebhookId;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::worker::{PROGRAM, Worker, client};
use crate::harness::world::{SECRET, TOKEN, shared_signature};
use crate::harness::{Reply, World, eventually};

fn webhook_draft(url: &str) -> Value {
    json!({ "url": url, "events": ["task.completed"], "secret": SECRET, "description": "a test" })
}

fn id(webhook: &Value) -> String {
    webhook["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_creates_reads_updates_and_deletes_webhooks_in_optios_shapes() {
    let world = World::new().await;
    let worker = world.worker().await;
    assert_eq!(worker.call("GET", "/api/webhooks", None).await, (200, json!({ "webhooks": [] })));
    let (status, added) = worker.call("POST", "/api/webhooks", Some(webhook_draft(&world.receiver.url("/hook")))).await;
    let webhook = &added["webhook"];
    assert_eq!(status, 201);
    let mut keys: Vec<&str> = webhook.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "active",
            "createdAt",
            "description",
            "disabledReason",
            "events",
            "filter",
            "format",
            "headers",
            "id",
            "publicKey",
            "ratePerSecond",
            "secret",
            "secretOverlapUntil",
            "signing",
            "updatedAt",
            "url"
        ]
    );
    assert_eq!((&webhook["secret"], &webhook["active"]), (&json!("••••••"), &json!(true)));
    let path = format!("/api/webhooks/{}", id(webhook));
    assert_eq!(worker.call("GET", &path, None).await, (200, added.clone()));
    assert_eq!(worker.call("GET", "/api/webhooks", None).await.1["webhooks"], json!([webhook]));

    // A client may send back the mask that it got instead of the secret: the secret stays. A null removes a field.
    let change =
        json!({ "secret": "••••••", "description": null, "events": ["task.failed", "task.failed"], "active": false });
    let (status, changed) = worker.call("PATCH", &path, Some(change)).await;
    let webhook = &changed["webhook"];
    assert_eq!((status, &webhook["events"], &webhook["active"]), (200, &json!(["task.failed"]), &json!(false)));
    assert_eq!((&webhook["secret"], &webhook["description"]), (&json!("••••••"), &Value::Null));
    let saved = world.store().get(id(webhook).parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(saved.secret.unwrap().text().expose(), SECRET);

    assert_eq!(worker.call("DELETE", &path, None).await, (204, Value::Null));
    assert_eq!(worker.call("DELETE", &path, None).await.0, 404);
    assert_eq!(worker.call("GET", &path, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_is_refused_with_the_name_of_its_field() {
    let world = World::new().await;
    let worker = world.worker().await;
    let (_, added) = worker.call("POST", "/api/webhooks", Some(webhook_draft(&world.receiver.url("/hook")))).await;
    let path = format!("/api/webhooks/{}", id(&added["webhook"]));
    for (field, change) in [
        ("url", json!({ "url": "nonsense" })),
        ("url", json!({ "url": "ftp://example.com/" })),
        ("url", json!({ "url": "https://10.0.0.1/" })),
        ("url", json!({ "url": 5 })),
        ("events", json!({ "events": [] })),
        ("events", json!({ "events": ["task.done"] })),
        ("events", json!({ "events": "task.failed" })),
        ("secret", json!({ "secret": "" })),
        ("secret", json!({ "secret": "x".repeat(513) })),
        ("description", json!({ "description": "x".repeat(501) })),
        ("format", json!({ "format": "xml" })),
        ("ratePerSecond", json!({ "ratePerSecond": 0 })),
        ("active", json!({ "active": "yes" })),
    ] {
        let (status, problem) = worker.call("PATCH", &path, Some(change.clone())).await;
        let sentence = problem["error"].as_str().unwrap();
        assert!(status == 400 && sentence.starts_with(field), "{change}: {status} {sentence}");
    }
    assert_eq!(worker.call("GET", &path, None).await.1, added);
    let (status, problem) = worker.call("POST", "/api/webhooks", Some(json!({}))).await;
    assert!(status == 400 && problem["error"].as_str().unwrap().starts_with("url"), "{problem}");
    let (status, _) = worker.call("POST", "/api/webhooks", Some(json!({ "url": "x".repeat(70_000) }))).await;
    assert_eq!(status, 413);
    let large = Some(json!({ "secret": "x".repeat(70_000) }));
    let (status, problem) = worker.call("POST", &format!("{path}/rotate-secret"), large).await;
    assert!(status == 413 && problem["error"].is_string(), "{status} {problem}");
    for query in ["limit=0", "limit=x", "before=x", "success=maybe", "event=task.done"] {
        let (status, problem) = worker.call("GET", &format!("{path}/deliveries?{query}"), None).await;
        assert_eq!(status, 400, "{query}: {problem}");
        assert!(problem["error"].as_str().unwrap().contains(query.split('=').next().unwrap()), "{query}: {problem}");
    }
    for query in ["since=soon", "cursor=x", "reason=old", "limit=201", "webhook=x"] {
        let (status, problem) = worker.call("GET", &format!("/api/dead-letters?{query}"), None).await;
        assert_eq!(status, 400, "{query}: {problem}");
        assert!(problem["error"].as_str().unwrap().contains(query.split('=').next().unwrap()), "{query}: {problem}");
    }
    assert_eq!(worker.call("POST", &format!("{path}/rotate-secret"), Some(json!({ "overlap": "soon" }))).await.0, 400);
    assert_eq!(
        worker.call("POST", &format!("{path}/rotate-secret"), Some(json!({ "overlap": "31days" }))).await.0,
        400
    );
    assert_eq!(worker.call("POST", "/api/dead-letters/replay", Some(json!({}))).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_the_token_get_401_and_unknown_ids_get_404() {
    let world = World::new().await;
    let worker = world.worker().await;
    let nobody = "00000000-0000-0000-0000-000000000000";
    let calls = [
        ("GET", "/api/webhooks".to_owned()),
        ("POST", "/api/webhooks".to_owned()),
        ("GET", format!("/api/webhooks/{nobody}")),
        ("PATCH", format!("/api/webhooks/{nobody}")),
        ("DELETE", format!("/api/webhooks/{nobody}")),
        ("POST", format!("/api/webhooks/{nobody}/test")),
        ("POST", format!("/api/webhooks/{nobody}/rotate-secret")),
        ("GET", format!("/api/webhooks/{nobody}/deliveries")),
        ("POST", format!("/api/webhooks/{nobody}/deliveries/1-0/redeliver")),
        ("GET", "/api/dead-letters".to_owned()),
        ("POST", "/api/dead-letters/replay".to_owned()),
        ("GET", format!("/api/dead-letters/replays/{nobody}")),
        ("GET", "/api/status".to_owned()),
        ("GET", "/openapi.json".to_owned()),
    ];
    for (method, path) in &calls {
        let (status, body) = worker.call_without_token(method, path).await;
        assert_eq!(status, 401, "{method} {path}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["error"].as_str().unwrap().contains("token"));
    }
    for (method, path) in calls.iter().filter(|(_, path)| path.contains(nobody)) {
        let (status, problem) = worker.call(method, path, Some(json!({}))).await;
        assert!(status == 404 && problem["error"].is_string(), "{method} {path}: {status} {problem}");
    }
    assert_eq!(worker.call("GET", "/api/webhooks/nonsense", None).await.0, 404);
    assert_eq!(worker.call("GET", "/api/nonsense", None).await.0, 404);
    assert_eq!(worker.call("PUT", "/api/webhooks", None).await.0, 405);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(worker.call_without_token("GET", path).await.0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_admin_token_the_api_refuses_every_call() {
    let mut world = World::new().await;
    world.set("admin.token", "");
    let worker = world.worker().await;
    let (status, problem) = worker.call("GET", "/api/webhooks", None).await;
    assert!(status == 401 && problem["error"].as_str().unwrap().contains("admin.token is not set"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_served_openapi_document_is_the_published_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let published: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let world = World::new().await;
    assert_eq!(world.worker().await.call("GET", "/openapi.json", None).await, (200, published));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_is_sent_at_once_and_logged() {
    let world = World::new().await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply { body: "no such hook".into(), ..Reply::status(404) });
    let (status, tested) = worker.call("POST", &format!("/api/webhooks/{webhook}/test"), None).await;
    let delivery = &tested["delivery"];
    assert_eq!((status, &delivery["success"], &delivery["statusCode"]), (200, &json!(false), &json!(404)));
    assert_eq!((&delivery["event"], &delivery["responseBody"]), (&json!("task.failed"), &json!("no such hook")));
    assert_eq!((&delivery["error"], &delivery["payload"]["event"]), (&json!("status"), &json!("task.failed")));
    let request = &world.receiver.requests()[0];
    for name in ["x-optio-signature", "x-optio-delivery", "webhook-signature", "webhook-id", "user-agent"] {
        assert_eq!(delivery["requestHeaders"][name], request.header(name), "the log has {name} as sent");
    }
    let other = json!({ "event": "review.completed" });
    let (_, tested) = worker.call("POST", &format!("/api/webhooks/{webhook}/test"), Some(other)).await;
    assert_eq!(tested["delivery"]["event"], "review.completed");
    let (_, log) = worker.call("GET", &format!("/api/webhooks/{webhook}/deliveries"), None).await;
    assert_eq!(log["deliveries"], json!([tested["delivery"], delivery]), "newest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_sign_during_the_overlap_after_a_rotation() {
    let world = World::new().await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskCompleted]).await;
    let path = format!("/api/webhooks/{webhook}/rotate-secret");
    let (status, rotated) =
        worker.call("POST", &path, Some(json!({ "secret": "the next one", "overlap": "1h" }))).await;
    assert_eq!((status, &rotated["generatedSecret"]), (200, &Value::Null));
    assert!(rotated["webhook"]["secretOverlapUntil"].is_string());
    world.emit(EventType::TaskCompleted, 1).await;
    let request = world.receiver.arrived(1).await.remove(0);
    assert_eq!(request.header("x-optio-signature"), shared_signature("the next one", &request.body));
    let (id, at) = (request.delivery().parse().unwrap(), request.header("webhook-timestamp").parse().unwrap());
    let both =
        ["the next one", SECRET].map(|secret| SigningSecret::stored(secret.into()).standard(id, at, &request.body));
    assert_eq!(request.header("webhook-signature"), both.join(" "));

    let (_, rotated) = worker.call("POST", &path, Some(json!({ "overlap": "0s" }))).await;
    let generated = rotated["generatedSecret"].as_str().unwrap();
    assert!(generated.starts_with("whsec_"));
    world.emit(EventType::TaskCompleted, 1).await;
    let request = world.receiver.arrived(2).await.remove(1);
    assert_eq!(request.header("x-optio-signature"), shared_signature(generated, &request.body));
    assert!(!request.header("webhook-signature").contains(' '));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delivery_log_is_paged_and_filtered() {
    let world = World::new().await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskCompleted, EventType::TaskFailed]).await;
    world
        .receiver
        .answer(|request| Reply::status(if request.header("x-optio-event") == "task.failed" { 410 - 10 } else { 200 }));
    world.emit(EventType::TaskCompleted, 7).await;
    world.emit(EventType::TaskFailed, 2).await;
    world.receiver.arrived(7 + 2 * 4).await;
    world.settled().await;
    let path = format!("/api/webhooks/{webhook}/deliveries");
    let mut seen: Vec<String> = Vec::new();
    let mut before = String::new();
    loop {
        let (_, page) = worker.call("GET", &format!("{path}?limit=4{before}"), None).await;
        let deliveries = page["deliveries"].as_array().unwrap();
        assert!(deliveries.len() <= 4);
        seen.extend(deliveries.iter().map(id));
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    let mut ordered = seen.clone();
    ordered.sort_by(|one, other| other.cmp(one));
    ordered.dedup();
    assert_eq!((seen.len(), &seen), (15, &ordered), "each entry appears once, newest first");
    let count = async |query: &str| {
        let (_, page) = worker.call("GET", &format!("{path}?limit=200&{query}"), None).await;
        page["deliveries"].as_array().unwrap().len()
    };
    assert_eq!([count("success=true").await, count("success=false").await], [7, 8]);
    assert_eq!([count("event=task.failed").await, count("event=task.failed&success=true").await], [8, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_keeps_its_id_and_replaces_the_waiting_retry() {
    let world = World::with(&[("delivery.retry.initial", "3s"), ("delivery.retry.multiplier", "1")]).await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|_| Reply::status(500));
    world.emit(EventType::TaskCompleted, 1).await;
    let first = world.receiver.arrived(1).await.remove(0);
    let retries = world.names().retry(1);
    eventually("the retry is written", async || (world.count(&retries) == 1).then_some(())).await;
    let logged = eventually("the attempt is logged", async || world.logged(webhook).await.into_iter().next()).await;
    world.receiver.answer(|_| Reply::status(200));
    assert_eq!(worker.producers(), 1, "those that are seldom needed don't exist until then");

    let path = format!("/api/webhooks/{webhook}/deliveries/{}/redeliver", first.delivery());
    let (status, answer) = worker.call("POST", &path, None).await;
    assert_eq!(worker.producers(), 2);
    assert_eq!((status, &answer["deliveryId"]), (202, &logged["deliveryId"]));
    assert_eq!(world.count(&world.names().replays()), 1, "the redelivery is durable before the API answers");
    let again = world.receiver.arrived(2).await.remove(1);
    assert_eq!((again.delivery(), again.attempt(), again.body), (first.delivery(), 1, first.body));
    // The waiting retry comes due and is dropped: its offset is committed, and nothing is sent.
    world.settled().await;
    assert_eq!(world.receiver.count(), 2);
    let log = world.logged(webhook).await;
    assert_eq!(log.iter().map(|entry| entry["replays"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);

    let inactive = worker.call("PATCH", &format!("/api/webhooks/{webhook}"), Some(json!({ "active": false }))).await;
    assert_eq!(inactive.0, 200);
    assert_eq!(worker.call("POST", &path, None).await.0, 409);
    let (status, _) = worker.call("POST", &format!("/api/webhooks/{webhook}/deliveries/1-0/redeliver"), None).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_filters_dead_letters_and_replays_them_with_progress() {
    let world = World::with(&[("delivery.attempts_max", "1")]).await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply::status(500));
    world.emit(EventType::TaskFailed, 3).await;
    world.write("poison", Some(b"not json")).await;
    world.dead_lettered(4).await;
    let (_, all) = worker.call("GET", "/api/dead-letters", None).await;
    assert_eq!((all["deadLetters"].as_array().unwrap().len(), &all["next"]), (4, &Value::Null));
    let (_, ours) = worker.call("GET", &format!("/api/dead-letters?webhook={webhook}&reason=exhausted"), None).await;
    assert_eq!(ours["deadLetters"].as_array().unwrap().len(), 3);

    world.receiver.answer(|_| Reply::status(200));
    let request = json!({ "webhook": webhook, "reason": "exhausted" });
    let (status, started) = worker.call("POST", "/api/dead-letters/replay", Some(request.clone())).await;
    assert_eq!((status, &started["replay"]["state"]), (202, &json!("running")));
    let finished = async |started: &Value| {
        let path = format!("/api/dead-letters/replays/{}", id(&started["replay"]));
        eventually("the replay ends", async || {
            let (_, now) = worker.call("GET", &path, None).await;
            (now["replay"]["state"] != "running").then(|| now["replay"].clone())
        })
        .await
    };
    let done = finished(&started).await;
    assert_eq!((&done["state"], &done["replayed"]), (&json!("done"), &json!(3)));
    assert_eq!(world.receiver.delivered(3).await.len(), 3);
    let (_, started) = worker.call("POST", "/api/dead-letters/replay", Some(request)).await;
    let done = finished(&started).await;
    assert_eq!((&done["replayed"], &done["replayedBefore"]), (&json!(0), &json!(3)), "nothing is replayed twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replay_at_the_same_time_is_refused_with_the_reason() {
    let world = World::with(&[("delivery.attempts_max", "1")]).await;
    let worker = world.worker().await;
    world.webhook("/hook", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply::status(500));
    world.emit(EventType::TaskFailed, 100).await;
    world.dead_lettered(100).await;
    let replay = async |request: Value| worker.call("POST", "/api/dead-letters/replay", Some(request)).await;
    // At one dead letter per second this replay outlasts the test.
    let (status, started) = replay(json!({ "all": true, "rate": 1 })).await;
    assert_eq!((status, &started["replay"]["state"]), (202, &json!("running")));
    let (status, refused) = replay(json!({ "all": true })).await;
    assert_eq!(status, 409);
    assert!(refused["error"].as_str().is_some_and(|sentence| sentence.contains("another replay")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_what_blocks_a_watermark_and_every_endpoint() {
    let world = World::with(&[("delivery.timeout", "60s")]).await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hang", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_secs(50)));
    world.emit(EventType::TaskFailed, 1).await;
    world.receiver.arrived(1).await;
    let status = eventually("the status shows the blocked watermark", async || {
        let (_, status) = worker.call("GET", "/api/status", None).await;
        let partitions = status["partitions"].as_array()?;
        let blocked = partitions.iter().find(|one| one["holding"]["webhookId"] == json!(webhook))?;
        (blocked["holding"]["stage"] == "sending" && status["lag"] == 1).then(|| status.clone())
    })
    .await;
    assert!(status["oldestUndeliveredAgeMs"].as_i64().is_some_and(|age| (0..60_000).contains(&age)));
    let endpoint = &status["endpoints"][0];
    assert_eq!((&endpoint["webhookId"], &endpoint["inFlight"]), (&json!(webhook), &json!(1)));
    assert_eq!(status["workers"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_server_and_the_worker_can_run_as_separate_processes() {
    let world = World::new().await;
    let admin = world.admin().await;
    assert_eq!(admin.call("GET", "/api/webhooks", None).await.0, 200);
    let (status, standing) = admin.call("GET", "/api/status", None).await;
    assert_eq!((status, &standing["workers"]), (200, &json!([])));
    assert_eq!(standing["partitions"][0]["worker"], Value::Null);
    assert_eq!((&standing["lag"], &standing["oldestUndeliveredAgeMs"]), (&json!(0), &Value::Null));
    // The status shows how long events have waited even if no worker reads them.
    let began = now_ms();
    world.emit(EventType::TaskFailed, 2).await;
    let age = eventually("the status shows the age of the oldest event", async || {
        let (_, standing) = admin.call("GET", "/api/status", None).await;
        (standing["lag"] == 2).then_some(())?;
        standing["oldestUndeliveredAgeMs"].as_i64()
    })
    .await;
    assert!((0..=now_ms() - began).contains(&age), "{age}");
    // A worker without an admin server serves its health, but neither pages nor the API.
    let mut worker = Worker::start_with(&["run", "--only", "worker"], &world.environment());
    worker.readiness(true).await;
    for path in ["/api/webhooks", "/settings/webhooks", "/openapi.json"] {
        assert_eq!(worker.call_without_token("GET", path).await.0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slack_webhook_gets_the_same_slack_message_on_every_attempt() {
    let world = World::new().await;
    let worker = world.worker().await;
    let url = world.receiver.url("/slack");
    let draft = json!({ "url": url, "events": ["task.failed"], "format": "slack", "secret": SECRET });
    assert_eq!(worker.call("POST", "/api/webhooks", Some(draft)).await.0, 201);
    world.webhook("/plain", &[EventType::TaskFailed]).await;
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    world.emit(EventType::TaskFailed, 1).await;
    let requests = world.receiver.arrived(4).await;
    let of = |path: &str| requests.iter().filter(|request| request.path == path).cloned().collect::<Vec<_>>();
    let slack = of("/slack");
    assert!(slack[0].json()["blocks"].is_array() && slack[0].json()["text"].is_string());
    assert_eq!(slack[0].body, slack[1].body);
    assert_eq!(slack[0].header("x-optio-signature"), shared_signature(SECRET, &slack[0].body));
    assert_eq!(of("/plain")[0].json()["event"], "task.failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_success_rate_of_the_last_day_is_counted() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    world.emit(EventType::TaskCompleted, 5).await;
    world.receiver.arrived(10).await;
    world.settled().await;
    let webhooks = [webhook, WebhookId(uuid::Uuid::nil())];
    let counts = world.of_last_day(&webhooks).await;
    assert_eq!((counts[0].succeeded, counts[0].failed, counts[0].percent()), (5, 5, Some(50)));
    assert_eq!(counts[1].percent(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_only_so_many_test_events_a_minute_from_all_processes_together() {
    let limits = [("delivery.tests_per_minute", "3"), ("delivery.tests_per_minute_to_host", "5")];
    let mut world = World::with(&limits).await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    let other = world.webhook("/other", &[EventType::TaskCompleted]).await;
    let (one, two) = (world.admin().await, world.admin().await);
    let path = format!("/api/webhooks/{webhook}/test");
    assert_eq!(one.call("POST", &path, None).await.0, 200);
    // The counters expire after a minute. For the rest of the test they stay longer, however slow it is.
    for key in [world.keys().tests(webhook), world.keys().tests_to("127.0.0.1")] {
        let mut expiry = redis::cmd("PTTL");
        let left_ms: i64 = expiry.arg(&key).query_async(&mut world.redis).await.unwrap();
        assert!((1..=60_000).contains(&left_ms), "{key}: {left_ms}");
        let () = redis::cmd("PERSIST").arg(&key).query_async(&mut world.redis).await.unwrap();
    }
    assert_eq!(two.call("POST", &path, None).await.0, 200);
    let by_command_line = || {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["webhooks", "test", &webhook.to_string()]).envs(world.environment());
        tokio::task::block_in_place(|| command.output().unwrap())
    };
    assert!(by_command_line().status.success());

    let words =
        "The limit of test events in a minute to this webhook is reached (3, delivery.tests_per_minute). Try again";
    let answer = client().post(format!("{}{path}", one.address())).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    let wait_s: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait_s), "{wait_s}");
    let sentence = answer.text().await.unwrap();
    assert!(sentence.contains(words), "{sentence}");
    let cookie = two.sign_in(TOKEN).await;
    let page = format!("/settings/webhooks/{webhook}/test");
    let refused = two.send_form(&cookie, &page, &[("event", "task.completed")]).await;
    assert!(refused.0 == 429 && refused.1.contains(words), "{refused:?}");
    // A counter that lost its expiry gets one when it refuses, so that it can't refuse for ever.
    let mut expiry = redis::cmd("PTTL");
    let left_ms: i64 = expiry.arg(world.keys().tests(webhook)).query_async(&mut world.redis).await.unwrap();
    assert!((1..=60_000).contains(&left_ms), "{left_ms}");
    assert_eq!(world.receiver.count(), 3);

    let to_other = format!("/api/webhooks/{other}/test");
    for _ in 0..2 {
        assert_eq!(one.call("POST", &to_other, None).await.0, 200);
    }
    let refused = one.call("POST", &to_other, None).await;
    let words = "The limit of test events in a minute to 127.0.0.1 is reached (5, delivery.tests_per_minute_to_host).";
    assert!(refused.0 == 429 && refused.1["error"].as_str().unwrap().starts_with(words), "{refused:?}");
    assert_eq!(world.receiver.count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_test_events_are_sent_at_once_and_one_to_each_webhook() {
    let world = World::with(&[("delivery.test_in_flight_max", "2")]).await;
    let released = CancellationToken::new();
    let release = released.clone();
    world.receiver.answer(move |_| {
        let released = released.clone();
        let end = futures_util::stream::once(async move {
            released.cancelled().await;
            Ok::<_, std::io::Error>("ok")
        });
        Reply { body: Body::from_stream(end), ..Reply::status(200) }
    });
    let mut paths = Vec::new();
    for path in ["/1", "/2", "/3"] {
        let webhook = world.webhook(path, &[EventType::TaskCompleted]).await;
        paths.push(format!("/api/webhooks/{webhook}/test"));
    }
    let worker = world.admin().await;
    // The first client hangs up as soon as its request has arrived. That frees no place.
    let address = format!("{}{}", worker.address(), paths[0]);
    let hangs_up = tokio::spawn(client().post(address).bearer_auth(TOKEN).send());
    world.receiver.arrived(1).await;
    hangs_up.abort();
    assert!(hangs_up.await.unwrap_err().is_cancelled());
    let refused = async {
        world.receiver.arrived(2).await;
        let mut refused = Vec::new();
        for path in &paths {
            refused.push(worker.call("POST", path, None).await);
        }
        release.cancel();
        refused
    };
    let (two, refused) = tokio::join!(worker.call("POST", &paths[1], None), refused);
    assert_eq!(two.0, 200);
    let already =
        json!({ "error": "A test event to this webhook is being sent already. Try again when its result is there." });
    let busy = json!({ "error": "The limit of test events at the same time is reached (2, delivery.test_in_flight_max). Try again soon." });
    assert_eq!(refused, [(429, already.clone()), (429, already), (429, busy)]);
    // The test event whose client hung up is in the logs.
    let log = paths[0].replace("/test", "/deliveries");
    eventually("the first test event is in the delivery log", async || {
        let (_, shown) = worker.call("GET", &log, None).await;
        (shown["deliveries"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    eventually("both test events are in the audit log", async || {
        let (_, shown) = worker.call("GET", "/api/audit", None).await;
        (shown.to_string().matches("test_sent").count() == 2).then_some(())
    })
    .await;
    assert_eq!(worker.call("POST", &paths[2], None).await.0, 200);
}
