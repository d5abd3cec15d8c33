//! The program as people meet it: the demo, repaired endpoints, disabled webhooks, and mistakes in their input.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use optio_webhooks::clock::now_ms;
use optio_webhooks::delivery::{Delivery, DeliveryId};
use optio_webhooks::event::EventType;
use optio_webhooks::position::RecordPosition;
use optio_webhooks::record::{self, LastError};
use optio_webhooks::report::BreakerState;
use optio_webhooks::store::workers::Reports;
use optio_webhooks::webhook::WebhookId;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::worker::{PROGRAM, client};
use crate::harness::{Reply, World, eventually};

fn run(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(world.environment()).envs(variables.iter().copied()).stdin(Stdio::null());
    tokio::task::block_in_place(|| command.output().unwrap())
}

/// Everything that the program printed.
fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The demo (`dev`). It ends when this is dropped.
struct Demo {
    child: Child,
    page: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(PROGRAM).arg("dev").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut page = None;
        for line in &mut lines {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once("Settings page: ") {
                page = rest.split('/').nth(2).map(|address| format!("http://{address}"));
            }
            if line.contains("It stays up until Ctrl-C") {
                break;
            }
        }
        // The rest of the output is read too. Otherwise a full pipe would block the demo.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, page: page.expect("the demo prints the address of its page") }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let request = client().request(method.parse().unwrap(), format!("{}{path}", self.page)).bearer_auth("dev");
        let request = match body {
            Value::Null => request,
            body => request.header("content-type", "application/json").body(body.to_string()),
        };
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// The id of the webhook whose URL ends with `path`, and its attempts, newest first.
    async fn attempts(&self, path: &str) -> (String, Vec<Value>) {
        let all = self.call("GET", "/api/webhooks", Value::Null).await;
        let mut webhooks = all["webhooks"].as_array().unwrap().iter();
        let webhook = webhooks.find(|webhook| webhook["url"].as_str().unwrap().ends_with(path)).unwrap();
        let id = webhook["id"].as_str().unwrap().to_owned();
        let log = self.call("GET", &format!("/api/webhooks/{id}/deliveries?limit=200"), Value::Null).await;
        (id, log["deliveries"].as_array().unwrap().clone())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_redelivers_a_delivery_and_replays_dead_letters() {
    let demo = tokio::task::block_in_place(Demo::start);
    let (steady, attempts) = demo.attempts("/steady").await;
    let delivery = attempts[0]["deliveryId"].as_str().unwrap();
    demo.call("POST", &format!("/api/webhooks/{steady}/deliveries/{delivery}/redeliver"), Value::Null).await;
    eventually("the delivery arrives again", async || {
        let (_, attempts) = demo.attempts("/steady").await;
        (attempts.iter().filter(|attempt| attempt["deliveryId"] == delivery).count() == 2).then_some(())
    })
    .await;

    let (_, before) = demo.attempts("/dead").await;
    // A filter by time also works, although the broker of the demo can't look up offsets by time.
    let found = demo.call("GET", "/api/dead-letters?since=1h", Value::Null).await;
    assert_eq!(found["deadLetters"].as_array().unwrap().len(), 1, "{found}");
    let started = demo.call("POST", "/api/dead-letters/replay", json!({ "since": "1h" })).await;
    let id = started["replay"]["id"].as_str().unwrap();
    eventually("the replay ends", async || {
        let replay = demo.call("GET", &format!("/api/dead-letters/replays/{id}"), Value::Null).await;
        (replay["replay"]["state"] == "done" && replay["replay"]["replayed"] == 1).then_some(())
    })
    .await;
    eventually("the dead letter is sent again", async || {
        (demo.attempts("/dead").await.1.len() > before.len()).then_some(())
    })
    .await;
}

fn admin_client(world: &World) -> AdminClient<DefaultClientContext> {
    optio_webhooks::kafka::clients::producer(&world.config()).create().unwrap()
}

/// The time within which workers must discover new partitions and topics.
const DISCOVERY_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_retry_topics_made_after_the_start_are_read_within_thirty_seconds() {
    let world = World::new().await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(1).await;
    let (admin, options) = (admin_client(&world), AdminOptions::new());
    let events = world.names().events().to_owned();
    let made = admin.create_partitions([&NewPartitions::new(&events, 5)], &options).await.unwrap();
    made[0].as_ref().unwrap();
    let tier = world.names().retry(7);
    let topic = NewTopic::new(&tier, 2, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &options).await.unwrap()[0].as_ref().unwrap();
    let began = Instant::now();

    let producer: rdkafka::producer::FutureProducer =
        optio_webhooks::kafka::clients::producer(&world.config()).create().unwrap();
    for partition in 2..5 {
        let value = World::transition(EventType::TaskCompleted).to_string();
        let record = FutureRecord::<str, str>::to(&events).partition(partition).payload(&value);
        producer.send(record, DISCOVERY_MAX).await.map_err(|(error, _)| error).unwrap();
    }
    let delivery = Delivery {
        id: DeliveryId(Uuid::now_v7()),
        webhook_id: webhook,
        event_type: EventType::TaskFailed,
        event_id: "e".into(),
        task_id: "t".into(),
        body: "{}".into(),
        attempts: 1,
        deferrals: 0,
        first_seen_at_ms: now_ms(),
        source: RecordPosition { topic: events.as_str().into(), partition: 0, offset: 0 },
        replays: 0,
        traceparent: None,
        by_hand: false,
    };
    let headers = record::headers(&delivery, Some(now_ms()), LastError::default());
    let record = FutureRecord::<str, str>::to(&tier).payload("{}").headers(headers);
    producer.send(record, DISCOVERY_MAX).await.map_err(|(error, _)| error).unwrap();

    let requests = world.receiver.arrived(5).await;
    assert!(began.elapsed() < DISCOVERY_MAX, "{:?}", began.elapsed());
    assert!(
        requests.iter().any(|request| request.delivery() == delivery.id.to_string()),
        "the retry in the new tier arrives too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_with_fewer_records_is_read_from_its_beginning() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    // All records go to one partition, so the recreated one has fewer records than were read of the old one.
    let emit = async |event: EventType, count: usize| {
        for _ in 0..count {
            world.write("task", Some(World::transition(event).to_string().as_bytes())).await;
        }
    };
    emit(EventType::TaskCompleted, 20).await;
    world.receiver.delivered(20).await;
    world.settled().await;
    let (admin, options) = (admin_client(&world), AdminOptions::new());
    let events = world.names().events().to_owned();
    admin.delete_topics(&[&events], &options).await.unwrap()[0].as_ref().unwrap();
    let topic = NewTopic::new(&events, 2, TopicReplication::Fixed(1));
    eventually("the topic is created again", async || {
        admin.create_topics([&topic], &options).await.unwrap()[0].is_ok().then_some(())
    })
    .await;
    let began = Instant::now();
    emit(EventType::TaskFailed, 10).await;
    world.receiver.delivered(30).await;
    assert!(began.elapsed() < DISCOVERY_MAX, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_failures_and_ten_successes_open_no_circuit_and_defer_nothing() {
    let world = World::with(&[
        ("delivery.breaker.attempts_min", "20"),
        ("delivery.breaker.open_initial", "1h"),
        ("delivery.breaker.open_max", "1h"),
        ("delivery.retry.initial", "30s"),
    ])
    .await;
    world.webhook("/", &EventType::TASKS).await;
    let worker = world.worker().await;
    for (status, count) in [(500, 10), (200, 10), (500, 1), (200, 40)] {
        world.receiver.answer(move |_| Reply::status(status));
        let before = world.receiver.count();
        world.emit(EventType::TaskCompleted, count).await;
        world.receiver.arrived(before + count).await;
        world.events_committed().await;
    }
    let metrics = worker.page("/metrics").await.unwrap().1;
    assert!(
        metrics.contains(r#"deferrals_total{reason="circuit_open"} 0"#) && !worker.log().contains("circuit opened"),
        "{metrics}"
    );
}

/// Settings with which circuits open early and stay open for longer than any test.
const LONG_OPEN_CIRCUITS: [(&str, &str); 4] = [
    ("delivery.breaker.attempts_min", "5"),
    ("delivery.breaker.open_initial", "1h"),
    ("delivery.breaker.open_max", "1h"),
    ("delivery.retry.initial", "60s"),
];

/// The number of workers for which the endpoint is backing off.
async fn backing_off_workers(world: &World, webhook: WebhookId) -> usize {
    let reports = Reports::new(world.redis.clone(), &world.keys()).all().await.unwrap();
    let is_backing_off = |one: &&optio_webhooks::report::EndpointReport| {
        one.webhook_id == webhook && (one.breaker == BreakerState::Open || one.backs_off_ms.is_some())
    };
    reports.iter().filter(|report| report.endpoints.iter().any(|one| is_backing_off(&one))).count()
}

/// Starts two workers, and opens the circuit of an endpoint on both.
async fn circuit_open_on_two_workers(world: &World) -> (WebhookId, [crate::harness::worker::Worker; 2]) {
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let workers = [world.worker().await, world.worker().await];
    let reports = Reports::new(world.redis.clone(), &world.keys());
    eventually("each worker has a partition of the events", async || {
        let events = world.names().events().to_owned();
        let all = reports.all().await.unwrap();
        let having = all.iter().filter(|report| report.partitions.iter().any(|one| one.topic == events)).count();
        (having == 2).then_some(())
    })
    .await;
    open_both_circuits(world, webhook).await;
    (webhook, workers)
}

/// Lets deliveries fail until both workers report an open circuit. Later attempts succeed.
async fn open_both_circuits(world: &World, webhook: WebhookId) {
    world.receiver.answer(|_| Reply::status(500));
    eventually("both workers report an open circuit", async || {
        world.emit(EventType::TaskFailed, 20).await;
        // A pause between the rounds, because a worker writes its report only once a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        (backing_off_workers(world, webhook).await == 2).then_some(())
    })
    .await;
    world.receiver.answer(|_| Reply::status(200));
}

/// Waits until both workers send to the endpoint again. They must do so within three seconds of `recovered`.
async fn both_send_again(world: &World, webhook: WebhookId, recovered: Instant) {
    let all_closed = async || (backing_off_workers(world, webhook).await == 0).then_some(());
    eventually("no worker reports an open circuit", all_closed).await;
    // The recovery takes a second at most, and so does the next report.
    assert!(recovered.elapsed() < Duration::from_secs(3), "{:?}", recovered.elapsed());
    let before = world.receiver.count();
    world.emit(EventType::TaskCompleted, 30).await;
    world.receiver.arrived(before + 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successful_test_closes_the_circuit_of_every_worker_at_once() {
    let world = World::with(&LONG_OPEN_CIRCUITS).await;
    let (webhook, workers) = circuit_open_on_two_workers(&world).await;
    let recovered = Instant::now();
    let (status, tested) = workers[0].call("POST", &format!("/api/webhooks/{webhook}/test"), None).await;
    assert_eq!((status, &tested["delivery"]["success"]), (200, &json!(true)));
    both_send_again(&world, webhook, recovered).await;

    // A test from the command line has the same effect.
    open_both_circuits(&world, webhook).await;
    let recovered = Instant::now();
    assert!(run(&world, &["webhooks", "test", &webhook.to_string()], &[]).status.success());
    both_send_again(&world, webhook, recovered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_is_sent_at_once_and_closes_an_open_circuit_everywhere() {
    let world = World::with(&LONG_OPEN_CIRCUITS).await;
    let (webhook, workers) = circuit_open_on_two_workers(&world).await;
    let logged = world.logged(webhook).await;
    let delivery = logged[0]["deliveryId"].as_str().unwrap();
    let before = world.receiver.count();
    let recovered = Instant::now();
    let path = format!("/api/webhooks/{webhook}/deliveries/{delivery}/redeliver");
    assert_eq!(workers[0].call("POST", &path, None).await.0, 202);
    let requests = world.receiver.arrived(before + 1).await;
    assert_eq!(requests[before].delivery(), delivery);
    both_send_again(&world, webhook, recovered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successful_redelivery_ends_the_cool_down_of_a_retry_after() {
    let world = World::with(&[("delivery.retry.initial", "60s")]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let worker = world.worker().await;
    world.receiver.answer(|_| Reply::status(503).header("retry-after", 3_600));
    world.emit(EventType::TaskFailed, 1).await;
    let first = world.receiver.arrived(1).await.remove(0);
    eventually("the endpoint cools down", async || (backing_off_workers(&world, webhook).await == 1).then_some(()))
        .await;
    world.receiver.answer(|_| Reply::status(200));
    let path = format!("/api/webhooks/{webhook}/deliveries/{}/redeliver", first.delivery());
    eventually("the attempt is logged", async || (worker.call("POST", &path, None).await.0 == 202).then_some(())).await;
    world.receiver.arrived(2).await;
    world.emit(EventType::TaskCompleted, 5).await;
    world.receiver.arrived(7).await;
}

/// Stores a history of failures in Redis. The numbers are days: since the first failure, since the last one, and the
/// failing time that counts.
async fn store_failing(world: &World, webhook: WebhookId, days: [u64; 3]) {
    let day_ms = 86_400_000;
    let [since, last, counted] = days.map(|days| days as i64 * day_ms);
    let failing = format!("{}:{}:{counted}", now_ms() - since, now_ms() - last);
    let mut command = redis::cmd("HSET");
    command.arg(world.keys().failing()).arg(webhook.to_string()).arg(failing);
    command.query_async::<()>(&mut world.redis.clone()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_days_and_successes_between_failures_do_not_disable_a_webhook() {
    let world = World::with(&[("delivery.attempts_max", "1")]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    let is_active = async || world.store().get(webhook).await.unwrap().unwrap().active;
    let attempt = async |status: u16| {
        world.receiver.answer(move |_| Reply::status(status));
        let before = world.logged(webhook).await.len();
        world.emit(EventType::TaskFailed, 1).await;
        eventually("the attempt is in the log", async || (world.logged(webhook).await.len() > before).then_some(()))
            .await;
    };
    // The first failure was six idle days ago. This worker did not see it, and now sees the second one.
    store_failing(&world, webhook, [6, 6, 0]).await;
    attempt(500).await;
    assert!(is_active().await, "idle days between two failures don't count");

    // Failures count for five days, but the log has a success among them.
    attempt(200).await;
    let kept: usize =
        redis::cmd("HLEN").arg(world.keys().failing()).query_async(&mut world.redis.clone()).await.unwrap();
    assert_eq!(kept, 0, "a success removes the failing time");
    store_failing(&world, webhook, [6, 1, 4]).await;
    attempt(500).await;
    assert!(is_active().await, "the log has a success since the first failure");

    // The same failures, but no success in the log. After a success, the worker records the next failure at once.
    attempt(200).await;
    let mut redis = world.redis.clone();
    redis::cmd("DEL").arg(world.keys().log(webhook)).query_async::<()>(&mut redis).await.unwrap();
    store_failing(&world, webhook, [6, 1, 4]).await;
    attempt(500).await;
    eventually("the webhook is disabled", async || (!is_active().await).then_some(())).await;
    let reason = world.store().get(webhook).await.unwrap().unwrap().disabled_reason.unwrap();
    assert!(reason.starts_with("failed for 5days without one success"), "{reason}");
    assert!(world.logged(webhook).await.iter().all(|entry| entry["success"] == false), "the log has only failures");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_another_worker_sees_keeps_a_webhook_from_being_disabled() {
    let world = World::with(&[
        ("webhooks.disable_after", "2s"),
        ("delivery.attempts_max", "50"),
        ("delivery.retry.max", "300ms"),
    ])
    .await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let _workers = [world.worker().await, world.worker().await];
    // The deliveries of one event always fail. Those of the others succeed, on both workers.
    world
        .receiver
        .answer(|request| Reply::status(if request.header("x-optio-event") == "task.failed" { 500 } else { 200 }));
    let began = Instant::now();
    world.emit(EventType::TaskFailed, 1).await;
    while began.elapsed() < Duration::from_secs(5) {
        world.emit(EventType::TaskCompleted, 2).await;
        // A fixed time, because the test proves that the webhook stays active for five seconds.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(world.store().get(webhook).await.unwrap().unwrap().active, "after {:?}", began.elapsed());
    }
    eventually("without successes the webhook is disabled", async || {
        (!world.store().get(webhook).await.unwrap().unwrap().active).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_looks_like_a_number_is_taken_literally() {
    for (token, other) in [
        ("0012345600123456", "12345600123456"),
        ("+555123455512345", "555123455512345"),
        ("1.50000000000000", "1.5"),
        ("\"quoted and long\"", "quoted and long"),
        ("päß wörd päß wörd", "pass word pass word"),
    ] {
        let mut world = World::new().await;
        world.set("admin.token", token);
        let admin = world.admin().await;
        let status = async |token: &str| {
            let request = client().get(format!("{}/api/webhooks", admin.address())).bearer_auth(token);
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!((status(token).await, status(other).await), (200, 401), "{token}");
    }
}

/// Settings with a secret value in many spellings: correct, misspelled, in the wrong place, and within a URL.
fn secret_settings() -> Vec<(&'static str, String)> {
    let secret = "hunter2/w#rd";
    let plain = [
        "ADMIN__TOKEN",
        "ADMIN",
        "ADMIN__TOKENS",
        "ADMIN__TOKEN__VALUE",
        "ADMIN__PASSWORD",
        "REDIS",
        "REDIS__PASSWORD",
        "KAFKA",
        "KAFKA__PROPERTIES",
        "KAFKA__SASL_PASSWORD",
        "KAFKA__PROPERTIES__SASL_PASSWORD",
        "KAFKA__PROPERTIES__SASL_PASWORD",
        "KAFKA__PROPERTIES__SASL__PASSWORD",
        "KAFKA__PROPERTIES__SASL_USERNAME",
        "KAFKA__PROPERTIES__SASL_OAUTHBEARER_CLIENT_SECRET",
        "KAFKA__PROPERTIES__SASL_OAUTHBEARER_CONFIG",
        "KAFKA__PROPERTIES__SASL_JAAS_CONFIG",
        "KAFKA__PROPERTIES__SSL_KEY_PASSWORD",
        "KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD",
        "KAFKA__PROPERTIES__SSL_KEY_PEM",
        "KAFKA__PROPERTIES__SSL_CERTIFICATE_PEM",
        "KAFKA__PROPERTIES__SSL_CA_PEM",
        "DELIVERY",
        "DELIVERY__PROXY_PASSWORD",
    ];
    let urls = [
        ("REDIS__URL", "redis://127.0.0.1:1/?password={}"),
        ("REDIS__URL", "redis+unix:///run/redis.sock?pass={}"),
        ("REDIS__URL", "redis://me:{}@127.0.0.1:1/"),
        ("REDIS__URL", "redis://:p@{}@127.0.0.1:1/"),
        ("REDIS__URL", "redis://127.0.0.1:{}"),
        ("REDIS__URL", "me:{}@127.0.0.1:1"),
        ("REDIS__URL", "redis://me:{}"),
        ("DELIVERY__PROXY", "http://me:{}@127.0.0.1:1/"),
        ("DELIVERY__PROXY", "http://me:p@{}@127.0.0.1:1/"),
        ("DELIVERY__PROXY", "me:{}@proxy:3128"),
        ("DELIVERY__PROXY", "http://proxy:3128/?key={}"),
        ("REDIS__SENTINELS", "redis://:{}@127.0.0.1:1"),
        ("REDIS__SENTINELS", "[\"redis://:{}@127.0.0.1:1\"]"),
        ("REDIS__CLUSTER_NODES", "me:{}@127.0.0.1:1"),
        ("REDIS__CLUSTER_NODES", "[\"me:{}@127.0.0.1:1\"]"),
        ("REDIS__SENTINEL_PASSWORD", "{}"),
        ("TRACES__ENDPOINT", "http://me:{}@127.0.0.1:1"),
        ("TRACES__ENDPOINT", "http://:{}@127.0.0.1:1"),
        ("TRACES__ENDPOINT", "http://127.0.0.1:1/?key={}"),
        ("TRACES__ENDPOINT", "{}"),
        ("TRACES__HEADERS", "{}"),
        ("KAFKA__BROKERS", "me:{}@127.0.0.1:1"),
        ("KAFKA__PROPERTIES__BOOTSTRAP_SERVERS", "me:{}@127.0.0.1:1"),
    ];
    let plain = plain.into_iter().map(|name| (name, secret.to_owned()));
    plain.chain(urls.into_iter().map(|(name, url)| (name, url.replace("{}", secret)))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_secret_setting_leaks_it_to_any_output() {
    let world = World::new().await;
    let mut leaks = Vec::new();
    for (name, value) in secret_settings() {
        let variable = format!("OPTIO_WEBHOOKS__{name}");
        for arguments in [["config", "show"].as_slice(), &["config", "show", "--json"], &["config", "check"]] {
            let output = run(&world, arguments, &[(&variable, &value)]);
            if printed(&output).contains("hunter2") {
                leaks.push(format!("{variable}={value} {arguments:?}: {}", printed(&output)));
            }
        }
        // A valid setting would start a worker, so only invalid ones are tried with `run`. They end it with code 78.
        let output = run(&world, &["config", "check"], &[(&variable, &value)]);
        if !output.status.success() {
            let output = run(&world, &["run"], &[(&variable, &value)]);
            assert_eq!(output.status.code(), Some(78), "{variable}={value}: {}", printed(&output));
            if printed(&output).contains("hunter2") {
                leaks.push(format!("{variable}={value} run: {}", printed(&output)));
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    for text in [
        "[admin]\ntoken = hunter2",
        "[admin]\ntoken = \"hunter2",
        "[admin]\ntoken = [\"hunter2\"]",
        "[kafka.properties]\nsasl.password = \"hunter2\"",
        "[kafka.properties]\n\"sasl.password\" = [\"hunter2\"]",
        "admin = \"hunter2\"",
        "redis = [\"hunter2\"]",
    ] {
        std::fs::write(&file, text).unwrap();
        let output = run(&world, &["--config", file.to_str().unwrap(), "config", "show"], &[]);
        if printed(&output).contains("hunter2") {
            leaks.push(format!("{text}: {}", printed(&output)));
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_password_that_needs_percent_encoding_is_refused_and_not_shown() {
    let world = World::new().await;
    for (name, value) in [
        ("OPTIO_WEBHOOKS__REDIS__URL", "redis://me:p@ss/w#rd@redis:6379/"),
        ("OPTIO_WEBHOOKS__DELIVERY__PROXY", "http://me:p@ss/w#rd@proxy:3128"),
    ] {
        let output = run(&world, &["config", "check"], &[(name, value)]);
        assert_eq!(output.status.code(), Some(78), "{}", printed(&output));
        let shown = printed(&output);
        assert!(shown.contains("percent-encode") && shown.contains("6379") != shown.contains("3128"), "{shown}");
        assert!(!["p@ss", "ss/w", "w#rd"].iter().any(|part| shown.contains(part)), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_with_an_unknown_field_or_without_effect_is_refused() {
    let world = World::new().await;
    let admin = world.admin().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    let path = format!("/api/webhooks/{webhook}");
    let shown = admin.call("GET", &path, None).await.1["webhook"].clone();
    for (change, word) in [
        (json!({ "colour": "red" }), "colour"),
        (json!({ "rate_per_second": 5 }), "rate_per_second"),
        (json!({ "active": true, "Url": "https://example.com/" }), "Url"),
        (json!({ "url": null, "descripton": "x" }), "descripton"),
        (json!({}), "ratePerSecond"),
        (json!({ "secret": "••••••" }), "mask"),
        (json!({ "id": shown["id"], "createdAt": shown["createdAt"] }), "nothing would change"),
        (json!({ "id": Uuid::now_v7(), "active": false }), "id"),
        (json!({ "createdAt": null, "active": false }), "createdAt"),
        (json!({ "updatedAt": "2020-01-01T00:00:00Z", "active": false }), "updatedAt"),
        (json!({ "ratePerSecond": -1 }), "ratePerSecond"),
        (json!({ "ratePerSecond": 4_294_967_296_u64 }), "ratePerSecond"),
        (json!([]), "map"),
    ] {
        let (status, problem) = admin.call("PATCH", &path, Some(change.clone())).await;
        let sentence = problem["error"].as_str().unwrap();
        assert!(status == 400 && sentence.contains(word), "{change}: {status} {sentence}");
    }
    assert_eq!(admin.call("GET", &path, None).await.1["webhook"], shown, "the refused changes had no effect");
    // A client may send back a webhook that it got, with its changes.
    let mut changed = shown.clone();
    changed["description"] = json!("changed");
    let (status, answer) = admin.call("PATCH", &path, Some(changed)).await;
    assert_eq!((status, &answer["webhook"]["description"]), (200, &json!("changed")));

    for (method, path, body, word) in [
        (
            "POST",
            "/api/webhooks".to_owned(),
            json!({ "url": "https://example.com/", "events": ["task.failed"], "id": "x" }),
            "id",
        ),
        ("POST", format!("{path}/test"), json!({ "evnt": "task.failed" }), "evnt"),
        ("POST", format!("{path}/test"), json!({ "event": 5 }), "event"),
        ("POST", format!("{path}/rotate-secret"), json!({ "overlaps": "1h" }), "overlaps"),
        ("POST", format!("{path}/rotate-secret"), json!({ "secret": "••••••" }), "mask"),
        ("POST", "/api/dead-letters/replay".to_owned(), json!({ "webhok": webhook }), "webhok"),
        ("POST", "/api/dead-letters/replay".to_owned(), json!({ "all": true, "limit": 0 }), "limit"),
        ("GET", "/api/webhooks?active=true".to_owned(), Value::Null, "active"),
        ("GET", format!("{path}?verbose"), Value::Null, "verbose"),
        ("GET", "/api/status?webhook=x".to_owned(), Value::Null, "webhook"),
        ("GET", format!("{path}/deliveries?succes=true"), Value::Null, "succes"),
        ("GET", format!("{path}/deliveries?limit=0"), Value::Null, "limit"),
        ("GET", format!("{path}/deliveries?limit=99999999999999999999"), Value::Null, "limit"),
        ("GET", "/api/dead-letters?limit=99999999999999999999".to_owned(), Value::Null, "limit"),
        ("GET", "/api/dead-letters?page=2".to_owned(), Value::Null, "page"),
        ("GET", "/api/dead-letters?cursor=0-99999999999999999999".to_owned(), Value::Null, "cursor"),
    ] {
        let (status, problem) = admin.call(method, &path, Some(body).filter(|body| !body.is_null())).await;
        let sentence = problem["error"].as_str().unwrap();
        assert!(status == 400 && sentence.contains(word), "{method} {path}: {status} {sentence}");
    }
    let update = run(&world, &["webhooks", "update", &webhook.to_string()], &[]);
    assert_eq!(update.status.code(), Some(2));
    assert!(printed(&update).contains("nothing would change"), "{}", printed(&update));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_number_beyond_the_last_page_shows_the_last_page() {
    let world = World::new().await;
    let admin = world.admin().await;
    world.webhook("/hook", &[EventType::TaskFailed]).await;
    let sign_in = client().post(format!("{}/sign-in", admin.address()));
    let form = format!("next=%2F&token={}", crate::harness::world::TOKEN.replace(' ', "+").replace('\'', "%27"));
    let signed_in = sign_in.header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = signed_in.send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    for (page, status) in
        [("0", 200), ("1", 200), ("18446744073709551615", 200), ("99999999999999999999", 400), ("-1", 400)]
    {
        let address = format!("{}/settings/webhooks?page={page}", admin.address());
        let answer = client().get(address).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{page}");
        assert_eq!(answer.text().await.unwrap().contains("/hook"), status == 200, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_format_follows_a_changed_url_unless_it_was_set_explicitly() {
    let world = World::new().await;
    let admin = world.admin().await;
    let added = run(
        &world,
        &["webhooks", "add", "--url", "https://hooks.slack.com./triggers/T0/1/x", "--events", "task.failed", "--json"],
        &[],
    );
    let added: Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!(added["webhook"]["format"], "slack");
    let path = format!("/api/webhooks/{}", added["webhook"]["id"].as_str().unwrap());
    for (change, format) in [
        (json!({ "url": "https://example.com/hook" }), "optio"),
        (json!({ "url": "https://HOOKS.SLACK.COM/services/T/B/x" }), "slack"),
        (json!({ "url": "https://example.com/other", "format": "slack" }), "slack"),
        (json!({ "url": "https://example.com/moved" }), "slack"),
        (json!({ "url": "https://hooks.slack.com/services/T/B/x", "format": "optio" }), "optio"),
        (json!({ "url": "https://hooks.slack.com/services/T/B/y" }), "optio"),
    ] {
        let (status, changed) = admin.call("PATCH", &path, Some(change.clone())).await;
        assert_eq!((status, &changed["webhook"]["format"]), (200, &json!(format)), "{change}");
    }
}
