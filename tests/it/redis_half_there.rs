//! Partial failures of Redis: lost data, refused writes, silent connections, and keys or commands that it refuses.

use std::collections::HashSet;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use optio_webhooks::clock::now_ms;
use optio_webhooks::event::EventType;
use optio_webhooks::store::connection;
use optio_webhooks::store::marks::NewEntry;
use optio_webhooks::store::settled::{Batch, Death, Line, Recorder};
use optio_webhooks::store::webhooks::WebhookStore;
use optio_webhooks::webhook::WebhookId;
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::proxy::Proxy;
use crate::harness::service::Service;
use crate::harness::worker::{PROGRAM, Worker};
use crate::harness::{Reply, World, eventually};

/// A world on a Redis of its own.
async fn world_on(redis: &Service, settings: &[(&str, &str)]) -> World {
    let mut all = vec![("redis.url", redis.address.as_str())];
    all.extend_from_slice(settings);
    World::with(&all).await
}

/// Sends a command to Redis, as `redis-cli` would.
async fn redis_command(world: &World, arguments: &[&str]) {
    let mut command = redis::cmd(arguments[0]);
    command.arg(&arguments[1..]);
    let _: redis::Value = eventually("Redis accepts the command", async || {
        // The first command on a connection that a failover broke fails.
        command.query_async(&mut world.redis.clone()).await.ok()
    })
    .await;
}

fn run(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(world.environment()).stdin(Stdio::null());
    tokio::task::block_in_place(|| command.output().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The keys that hold the webhooks, and their values in the format of `DUMP`.
async fn dump(world: &World) -> Vec<(String, Option<Vec<u8>>)> {
    let keys = world.keys();
    let mut dumped = Vec::new();
    for key in [keys.webhooks(), keys.webhooks_version(), keys.webhooks_count()] {
        let value = redis::cmd("DUMP").arg(&key).query_async(&mut world.redis.clone()).await.unwrap();
        dumped.push((key, value));
    }
    dumped
}

/// Puts back the keys from `dump`.
async fn restore(world: &World, dumped: &[(String, Option<Vec<u8>>)]) {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for (key, value) in dumped {
        pipe.del(key).ignore();
        if let Some(value) = value {
            pipe.cmd("RESTORE").arg(key).arg(0).arg(value).ignore();
        }
    }
    pipe.query_async::<()>(&mut world.redis.clone()).await.unwrap();
}

/// Waits until `/readyz` answers with this status and a text that contains all of `words`.
async fn readyz_shows(worker: &Worker, status: u16, words: &[&str]) {
    eventually(&format!("/readyz answers {status} with {words:?}"), async || {
        let (is, page) = worker.page("/readyz").await?;
        (is == status && words.iter().all(|word| page.contains(word))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_pauses_delivery_until_its_data_is_restored() {
    let redis = Service::redis();
    let world = world_on(&redis, &[("delivery.retry.initial", "2s")]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(500));
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 10).await;
    world.receiver.arrived(10).await;
    world.events_committed().await;
    let dumped = dump(&world).await;
    redis_command(&world, &["FLUSHALL"]).await;
    readyz_shows(&worker, 503, &["the version of the webhooks is gone", "with 1 webhooks; 0 are there"]).await;
    world.receiver.answer(|_| Reply::status(200));
    world.emit(EventType::TaskCompleted, 10).await;
    // A fixed time, because the test proves that nothing is sent, even after the retries have come due.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.receiver.count(), 10, "nothing is sent while the webhooks are missing");
    restore(&world, &dumped).await;
    readyz_shows(&worker, 200, &[]).await;
    world.receiver.delivered(20).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 30, "every retry and every new event arrives once");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_lose_webhooks_is_detected_and_named() {
    let world = World::new().await;
    let ids = [world.webhook("/a", &EventType::TASKS).await, world.webhook("/b", &EventType::TASKS).await];
    let worker = world.worker().await;
    let dumped = dump(&world).await;
    let (webhooks, version) = (world.keys().webhooks(), world.keys().webhooks_version());
    let first = ids[0].to_string();
    let losses: [(&[&[&str]], &str); 8] = [
        (&[&["DEL", &webhooks]], "2 of 2 webhooks are gone"),
        (&[&["HDEL", &webhooks, &first]], "1 of 2 webhooks are gone"),
        (&[&["DEL", &version]], "the version of the webhooks is gone"),
        (&[&["SET", &version, "1"]], "fell from 2 to 1"),
        (&[&["SET", &version, "many"]], "isn't a number"),
        (&[&["DEL", &version], &["LPUSH", &version, "2"]], "isn't a number"),
        (&[&["SET", &webhooks, "x"]], "WRONGTYPE"),
        (&[&["DEL", &webhooks], &["INCR", &version]], "2 of 2 webhooks are gone, but the number of changes"),
    ];
    for (commands, reason) in losses {
        for command in commands {
            redis_command(&world, command).await;
        }
        readyz_shows(&worker, 503, &[reason]).await;
        world.emit(EventType::TaskCompleted, 1).await;
        restore(&world, &dumped).await;
        readyz_shows(&worker, 200, &[]).await;
    }
    world.receiver.arrived(2 * losses.len()).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 2 * losses.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_worker_on_an_empty_redis_waits_for_webhooks_init() {
    let mut world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 3).await;
    world.settled().await;
    assert!(worker.terminate().await.success());
    // For the worker, a wrong prefix looks like an empty Redis.
    world.set("redis.prefix", &format!("{}wrong:", world.keys().prefix()));
    world.emit(EventType::TaskCompleted, 3).await;
    let worker = Worker::start(&world.environment());
    readyz_shows(&worker, 503, &["has commits", "webhooks init"]).await;
    let admin = world.admin().await;
    readyz_shows(&admin, 200, &["warning", "has commits"]).await;
    let (_, list) = admin.call("GET", "/api/webhooks", None).await;
    assert_eq!(list["webhooks"], json!([]));
    assert!(list["warning"].as_str().unwrap().contains("has commits"), "{list}");

    let output = run(&world, &["webhooks", "init"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("0 webhooks"));
    readyz_shows(&worker, 200, &[]).await;
    readyz_shows(&admin, 200, &[]).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 3, "after `webhooks init`, events without a webhook are committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_added_after_a_loss_does_not_resume_delivery() {
    let redis = Service::redis();
    let world = world_on(&redis, &[]).await;
    for path in ["/a", "/b", "/c"] {
        world.webhook(path, &EventType::TASKS).await;
    }
    let worker = world.worker().await;
    redis_command(&world, &["FLUSHALL"]).await;
    readyz_shows(&worker, 503, &["is gone"]).await;
    let reported: Option<String> = eventually("the worker has written a report", async || {
        let found: Vec<String> =
            redis::cmd("HVALS").arg(world.keys().reports()).query_async(&mut world.redis.clone()).await.unwrap();
        found.first().cloned().map(Some)
    })
    .await;
    assert!(reported.unwrap().contains(r#""webhooks":3"#));
    let url = world.receiver.url("/d");
    let output = run(&world, &["webhooks", "add", "--url", &url, "--events", "task.completed"]);
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("running workers last saw 3 of them"), "{}", text(&output.stderr));
    readyz_shows(&worker, 503, &["fell from 3 to 1; 0 of 3 webhooks are there"]).await;
    world.emit(EventType::TaskCompleted, 1).await;
    assert!(run(&world, &["webhooks", "init"]).status.success());
    readyz_shows(&worker, 200, &[]).await;
    assert_eq!(world.receiver.arrived(1).await[0].path, "/d");
}

/// Changes the stored JSON of a webhook, as another version of the program could. Returns the JSON before the change.
async fn rewrite(world: &World, webhook: WebhookId, change: impl FnOnce(&mut Value)) -> String {
    let mut redis = world.redis.clone();
    let (key, id) = (world.keys().webhooks(), webhook.to_string());
    let before: String = redis::cmd("HGET").arg(&key).arg(&id).query_async(&mut redis).await.unwrap();
    let mut value: Value = serde_json::from_str(&before).unwrap();
    change(&mut value);
    store_json(world, webhook, &value.to_string()).await;
    before
}

/// Stores this JSON as a webhook, whether it is valid or not.
async fn store_json(world: &World, webhook: WebhookId, json: &str) {
    let mut pipe = redis::pipe();
    pipe.atomic().hset(world.keys().webhooks(), webhook.to_string(), json).ignore();
    pipe.incr(world.keys().webhooks_version(), 1).ignore();
    pipe.query_async::<()>(&mut world.redis.clone()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_for_an_unsupported_webhook_wait_and_others_go_on() {
    let world = World::with(&[("delivery.retry.initial", "500ms")]).await;
    let (good, newer) =
        (world.webhook("/good", &EventType::TASKS).await, world.webhook("/newer", &EventType::TASKS).await);
    let worker = world.worker().await;
    let at = |path: &'static str| {
        let requests = world.receiver.requests();
        requests.into_iter().filter(|one| one.path == path).map(|one| one.delivery()).collect::<HashSet<_>>()
    };
    let formats: [fn(&mut Value); 2] = [
        |webhook| webhook["events"].as_array_mut().unwrap().push(json!("task.archived")),
        |webhook| webhook["format"] = json!("of a newer version"),
    ];
    for (round, change) in formats.into_iter().enumerate() {
        let delivered = round * 10;
        world.receiver.answer(|request| Reply::status(if request.path == "/newer" { 500 } else { 200 }));
        world.emit(EventType::TaskCompleted, 5).await;
        eventually("the first attempts arrive", async || (at("/newer").len() == delivered + 5).then_some(())).await;
        let before = rewrite(&world, newer, change).await;
        readyz_shows(&worker, 200, &["warning", "can't be read", &newer.to_string()]).await;
        let attempts = world.receiver.requests().iter().filter(|one| one.path == "/newer").count();
        world.receiver.answer(|_| Reply::status(200));
        world.emit(EventType::TaskCompleted, 5).await;
        eventually("the other webhook gets its deliveries", async || {
            (at("/good").len() == delivered + 10).then_some(())
        })
        .await;

        let listed = run(&world, &["webhooks", "list"]);
        assert!(text(&listed.stdout).contains("can't be read"), "{}", text(&listed.stdout));
        let path = format!("/api/webhooks/{newer}");
        let (status, refused) = worker.call("PATCH", &path, Some(json!({ "description": "x" }))).await;
        assert_eq!(status, 409, "{refused}");
        assert!(refused["error"].as_str().unwrap().contains("can't be read by this version"), "{refused}");
        // A fixed time, because the test proves that nothing is sent, even after the retries have come due.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.receiver.requests().iter().filter(|one| one.path == "/newer").count(), attempts);

        store_json(&world, newer, &before).await;
        eventually("the deliveries of the unsupported webhook arrive", async || {
            let delivered = at("/newer").len() == delivered + 10;
            (delivered && world.receiver.requests().iter().filter(|one| one.path == "/newer").count() >= attempts + 10)
                .then_some(())
        })
        .await;
    }
    world.settled().await;
    rewrite(&world, newer, |webhook| webhook["format"] = json!("of a newer version")).await;
    readyz_shows(&worker, 200, &["can't be read"]).await;
    world.emit(EventType::TaskCompleted, 1).await;
    assert_eq!(worker.call("DELETE", &format!("/api/webhooks/{newer}"), None).await.0, 204);
    world.settled().await;
    assert_eq!(worker.page("/readyz").await.unwrap().1.matches("can't be read").count(), 0);
    assert!(world.store().get(good).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_webhook_that_cannot_be_read_loses_nothing() {
    let open = [("delivery.breaker.open_initial", "1s"), ("delivery.breaker.open_max", "1s")];
    let world = World::with(&[open[0], open[1], ("delivery.retry.initial", "500ms")]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let worker = world.worker().await;
    let path = format!("/api/webhooks/{webhook}");
    let events: fn(&mut Value) = |webhook| webhook["events"].as_array_mut().unwrap().push(json!("task.archived"));
    let format: fn(&mut Value) = |webhook| webhook["format"] = json!("of a newer version");
    let active: fn(&mut Value) = |webhook| {
        (webhook["format"], webhook["active"]) = (json!("of a newer version"), json!(true));
    };
    // Without a format no body can be made, so events that aren't missed at once wait in memory.
    let rounds = [(events, true, false), (events, false, false), (format, true, true), (format, false, false)];
    for (number, (newer, hold, waits_in_memory)) in rounds.into_iter().chain([(active, false, true)]).enumerate() {
        let (status, answer) = worker.call("PATCH", &path, Some(json!({ "active": false, "hold": hold }))).await;
        assert_eq!(status, 200, "{answer}");
        let before = rewrite(&world, webhook, newer).await;
        readyz_shows(&worker, 200, &["can't be read", &webhook.to_string()]).await;
        world.emit(EventType::TaskCompleted, 5).await;
        if !waits_in_memory {
            world.events_committed().await;
        }
        store_json(&world, webhook, &before).await;
        eventually("the webhook can be read", async || {
            (worker.page("/readyz").await.unwrap().1.matches("can't be read").count() == 0).then_some(())
        })
        .await;
        world.events_committed().await;
        assert_eq!(worker.call("PATCH", &path, Some(json!({ "active": true }))).await.0, 200);
        let missed = worker.call("GET", &format!("{path}/missed"), None).await.1;
        assert_eq!(missed["events"], if hold { 0 } else { 5 }, "{missed}");
        if !hold {
            let request = json!({ "webhook": webhook, "missed": true });
            assert_eq!(worker.call("POST", "/api/dead-letters/replay", Some(request)).await.0, 202);
        }
        world.receiver.arrived((number + 1) * 5).await;
    }
    world.settled().await;
    assert_eq!(world.receiver.deliveries().len(), 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_writes_stops_sending_at_once() {
    let redis = Service::redis();
    let world = world_on(&redis, &[("topics.partitions", "4")]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_millis(20)));
    let worker = world.worker().await;
    let refusals: [(&[&str], &[&str], &str); 3] = [
        (&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"], "OOM"),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"], "READONLY"),
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
            "NOREPLICAS",
        ),
    ];
    for (round, (fail, repair, code)) in refusals.into_iter().enumerate() {
        world.receiver.arrived(round * 3_000).await;
        world.emit(EventType::TaskCompleted, 3_000).await;
        world.receiver.arrived(round * 3_000 + 300).await;
        let before = world.receiver.count();
        redis_command(&world, fail).await;
        readyz_shows(&worker, 503, &["reads but refuses writes", code]).await;
        let (status, shown) = worker.call("GET", "/api/status", None).await;
        assert_eq!(status, 200, "what can be read is shown: {shown}");
        // Fixed times, because they measure: sending stops within 300 ms, and then nothing is sent for 700 ms.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let then = world.receiver.count();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(world.receiver.count(), then, "nothing is sent while Redis refuses writes");
        assert!(then - before < 1_000, "{code}: sending went on for {} requests", then - before);
        redis_command(&world, repair).await;
        readyz_shows(&worker, 200, &[]).await;
    }
    world.receiver.delivered(9_000).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 9_000, "nothing is repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_died_without_fin_are_replaced_within_three_timeouts() {
    let redis = Service::redis();
    let proxy = Proxy::start(&redis.address).await;
    let world = World::with(&[("redis.url", &proxy.url())]).await;
    world.webhook("/", &EventType::TASKS).await;
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 20).await;
    world.settled().await;
    let timeout = world.config().redis.timeout;
    for round in 1..=2 {
        let opened = proxy.opened();
        proxy.freeze();
        let frozen_at = Instant::now();
        readyz_shows(&worker, 503, &[r#""reason":"away""#]).await;
        world.emit(EventType::TaskCompleted, 20).await;
        world.receiver.delivered(20 + 20 * round).await;
        let took = frozen_at.elapsed();
        assert!(took < timeout * 3, "sending resumed after {took:?}");
        assert!(proxy.opened() > opened);
        world.settled().await;
        readyz_shows(&worker, 200, &[]).await;
    }
    // Workers also see changes of webhooks again. The test needs a new connection, because its own is frozen too.
    let fresh = connection::open(&world.config().redis).unwrap();
    WebhookStore::new(fresh, world.keys(), crate::harness::world::sealing())
        .put(&world.unsaved("/another", &EventType::TASKS))
        .await
        .unwrap();
    eventually("the new webhook gets a delivery", async || {
        world.emit(EventType::TaskFailed, 1).await;
        world.receiver.requests().iter().any(|request| request.path == "/another").then_some(())
    })
    .await;
    proxy.cut();
    world.emit(EventType::TaskCompleted, 20).await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_recorded_twice_adds_no_second_entry_and_no_second_count() {
    let world = World::new().await;
    let (keys, webhook) = (world.keys(), WebhookId(uuid::Uuid::now_v7()));
    let mut recorder = Recorder::new(world.redis.clone(), keys.clone(), world.config().log);
    let batch = |numbers: std::ops::Range<u64>| Batch {
        missed: Vec::new(),
        died: numbers.clone().map(|number| Death { number, webhook }).collect(),
        lines: numbers
            .map(|number| Line {
                number,
                webhook,
                packed: b"packed",
                succeeded: number.is_multiple_of(2),
                cut: true,
                duration: Duration::from_millis(5),
            })
            .collect(),
        marks: vec![NewEntry { key: keys.marks("group", "topic", 0), value: vec![0; 16] }],
    };
    for numbers in [1..9, 1..9, 1..5, 5..9, 5..11] {
        let recorded = recorder.record(&batch(numbers), now_ms()).await.unwrap();
        assert!(recorded.entries[0].is_some() && recorded.refused.is_empty(), "{recorded:?}");
    }
    let mut redis = world.redis.clone();
    let entries: u64 = redis::cmd("XLEN").arg(keys.log(webhook)).query_async(&mut redis).await.unwrap();
    assert_eq!(entries, 10);
    let counts = world.of_last_day(&[webhook]).await;
    assert_eq!((counts[0].succeeded, counts[0].failed), (5, 5));
    let died: u64 = redis::cmd("HGET").arg(keys.died()).arg(webhook.to_string()).query_async(&mut redis).await.unwrap();
    assert_eq!(died, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_wrong_type_costs_only_its_own_data() {
    let world = World::with(&[("topics.partitions", "1")]).await;
    let (wrong, right) = (world.webhook("/a", &EventType::TASKS).await, world.webhook("/b", &EventType::TASKS).await);
    let keys = world.keys();
    let log = keys.log(wrong);
    let marks = keys.marks(world.names().events_group(), world.names().events(), 0);
    for key in [&log, &keys.backing_off(), &keys.failing(), &keys.reports(), &keys.consuming(), &keys.replaced()] {
        redis_command(&world, &["SET", key, "of another type"]).await;
    }
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.delivered(2).await;
    world.settled().await;
    // The first read of a new partition removes a wrong key in place of its marks, so the test sets this key later.
    redis_command(&world, &["SET", &marks, "of another type"]).await;
    world.emit(EventType::TaskCompleted, 9).await;
    world.receiver.delivered(20).await;
    world.settled().await;
    assert_eq!(world.logged(right).await.len(), 10);
    readyz_shows(&worker, 200, &["warning", &log, &marks, "WRONGTYPE"]).await;
    let counts = world.of_last_day(&[wrong, right]).await;
    assert_eq!(counts.iter().map(|counts| counts.succeeded).collect::<Vec<_>>(), [10, 10]);
    assert_eq!(worker.call("GET", &format!("/api/webhooks/{wrong}/deliveries"), None).await.0, 200);
    redis_command(&world, &["DEL", &log, &marks]).await;
    world.emit(EventType::TaskCompleted, 1).await;
    eventually("the log is written again", async || (world.logged(wrong).await.len() == 1).then_some(())).await;
    eventually("the warning is gone", async || (!worker.page("/readyz").await?.1.contains(&log)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_an_acl_refuses_costs_only_its_own_data() {
    let redis = Service::redis();
    let world = world_on(&redis, &[]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let worker = world.worker().await;
    for (round, (refused, name)) in [("-xadd", "log:"), ("-@scripting", "EVALSHA")].into_iter().enumerate() {
        redis_command(&world, &["ACL", "SETUSER", "default", refused]).await;
        world.emit(EventType::TaskCompleted, 10).await;
        world.receiver.delivered(10 + round * 10).await;
        world.settled().await;
        readyz_shows(&worker, 200, &["warning", name]).await;
        redis_command(&world, &["ACL", "SETUSER", "default", "+@all"]).await;
    }
    assert_eq!(world.logged(webhook).await.len(), 10, "the log is written even without scripts");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_50_megabits_per_second_300_large_payloads_are_recorded_once_each() {
    let redis = Service::redis();
    let proxy = Proxy::start(&redis.address).await;
    let world = World::with(&[("redis.url", &proxy.url())]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    proxy.throttle(50_000_000 / 8);
    for number in 0..300 {
        let mut event = World::transition(EventType::TaskCompleted);
        event["task"]["title"] = json!("x".repeat(100_000));
        let (key, value) = (number.to_string(), event.to_string());
        let record = FutureRecord::to(world.names().events().to_owned().leak()).key(&key).payload(&value);
        world.producer().send(record, Duration::from_secs(30)).await.unwrap();
    }
    world.settled().await;
    proxy.throttle(0);
    assert_eq!(world.logged(webhook).await.len(), 300);
    assert_eq!(world.receiver.count(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_from_other_workers_are_clamped_when_read() {
    let world = World::with(&[
        ("topics.partitions", "1"),
        ("delivery.breaker.open_initial", "500ms"),
        ("delivery.breaker.open_max", "1s"),
        ("delivery.retry_after_max", "1s"),
        ("webhooks.disable_after", "1h"),
    ])
    .await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let (keys, id) = (world.keys(), webhook.to_string());
    let future = (now_ms() + 400 * 86_400_000).to_string();
    redis_command(&world, &["ZADD", &keys.backing_off(), "9999999999999.5", &id]).await;
    redis_command(&world, &["ZADD", &keys.consuming(), "inf", "a", "1e300", "b", &future, "c"]).await;
    redis_command(&world, &["HSET", &keys.failing(), &id, "0"]).await;
    redis_command(
        &world,
        &["HSET", &keys.reports(), "of the future", &format!(r#"{{"atMs":{future}}}"#), "garbage", "{"],
    )
    .await;
    redis_command(&world, &["XADD", &keys.replaced(), "*", "delivery", &id, "at", &future]).await;
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(2).await;
    world.settled().await;
    let kept = world.store().get(webhook).await.unwrap().unwrap();
    assert!(kept.active, "it failed once, not since 1970");
    assert_eq!(worker.call("GET", "/api/status", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_too_old_stops_the_worker_with_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4_096];
                while let Ok(count @ 1..) = client.read(&mut bytes).await {
                    let commands = text(&bytes[..count]);
                    let mut answer = String::new();
                    for command in commands.split('*').skip(1) {
                        let info = "# Server\r\nredis_version:6.0.16\r\n";
                        if command.lines().any(|line| line == "INFO") {
                            answer += &format!("${}\r\n{info}\r\n", info.len());
                        } else {
                            answer += "+OK\r\n";
                        }
                    }
                    client.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    let mut world = World::new().await;
    world.set("redis.url", &url);
    let mut worker = Worker::start(&world.environment());
    assert_eq!(worker.exit().await.code(), Some(78));
    assert!(worker.log().contains("Redis 6.0.16; 6.2 or newer is required"), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_configured_to_lose_data_causes_a_warning() {
    let redis = Service::redis();
    let world = world_on(&redis, &[]).await;
    let worker = world.worker().await;
    assert!(!worker.log().contains("maxmemory-policy") && !worker.log().contains("on disk"), "{}", worker.log());
    redis_command(&world, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    redis_command(&world, &["CONFIG", "SET", "appendonly", "no"]).await;
    let other = world.worker().await;
    assert!(other.log().contains("maxmemory-policy is allkeys-lru"));
    assert!(other.log().contains("redis keeps nothing on disk"));
}
