//! Waiting deliveries: they block no others, their bytes are bounded, and commits and marks stay correct.

use std::collections::HashSet;
use std::time::Duration;

use optio_webhooks::clock::now_ms;
use optio_webhooks::event::EventType;
use optio_webhooks::kafka::clients;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use redis::AsyncCommands as _;

use crate::harness::world::{Raw, header};
use crate::harness::{Reply, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn one_long_retry_after_delays_no_retry_of_another_webhook() {
    let world = World::with(&[
        ("kafka.open_offsets_max", "100"),
        ("topics.partitions", "1"),
        ("delivery.retry.max", "12h"),
        ("delivery.attempts_max", "8"),
        ("delivery.retry.multiplier", "6"),
    ])
    .await;
    world.webhook("/long", &[EventType::TaskFailed]).await;
    world.webhook("/other", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|request| match request.path.as_str() {
        "/long" => Reply::status(503).header("retry-after", 43_200),
        _ => Reply::status(if request.attempt() == 1 { 500 } else { 200 }),
    });
    let mut worker = world.worker().await;
    world.emit(EventType::TaskFailed, 1).await;
    world.receiver.arrived(1).await;
    for round in 1..=5 {
        world.emit(EventType::TaskCompleted, 100).await;
        eventually("all second attempts arrive", async || {
            let requests = world.receiver.requests();
            let second: HashSet<String> =
                requests.iter().filter(|request| request.attempt() == 2).map(|request| request.delivery()).collect();
            (second.len() == 100 * round).then_some(())
        })
        .await;
    }
    let moved = eventually("the long wait moves to a later tier", async || {
        let records = (2..=7).flat_map(|tier| world.records(&world.names().retry(tier)));
        records.into_iter().find(|record| header(record, "optio-last-status") == "503")
    })
    .await;
    let due_at_ms: i64 = header(&moved, "optio-due-at").parse().unwrap();
    assert!(due_at_ms - now_ms() > 40_000_000, "the delivery waits as long as its endpoint asked for");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_deliveries_of_large_payloads_are_bounded_in_bytes() {
    let world = World::with(&[("delivery.retry.initial", "1h"), ("delivery.retry.max", "12h")]).await;
    for path in ["/1", "/2", "/3", "/4"] {
        world.webhook(path, &EventType::TASKS).await;
    }
    world.receiver.answer(|_| Reply::status(500));
    let mut worker = world.worker().await;
    let mut large = World::transition(EventType::TaskCompleted);
    large["task"]["title"] = "x".repeat(200_000).into();
    // `WAITING_EVENTS` sets another number of events. Four times as many deliveries wait.
    let events = std::env::var("WAITING_EVENTS").ok().and_then(|events| events.parse().ok()).unwrap_or(500);
    for number in 0..events {
        large["id"] = number.into();
        world.write("k", Some(large.to_string().as_bytes())).await;
    }
    let names = world.names();
    world.events_committed().await;
    let waiting = (1..=3).map(|tier| world.count(&names.retry(tier))).sum::<i64>();
    assert!(waiting >= 4 * events, "only {waiting} deliveries of 200 KB wait");
    // The windows are full now, and the worker reads no further.
    let peak_mib = worker.memory_peak_kib() >> 10;
    println!("{waiting} deliveries wait, and peak memory was {peak_mib} MiB");
    assert!(peak_mib < 300, "{peak_mib} MiB");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_too_old_is_dead_lettered_and_can_be_replayed() {
    let world = World::new().await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let worker = world.worker().await;
    let mut headers = World::retry_headers(webhook, "old");
    let four_days_ago = (now_ms() - 4 * 86_400_000).to_string().into_bytes();
    headers.push((b"optio-first-seen-at".to_vec(), Some(four_days_ago)));
    world.write_to(&world.names().retry(1), Raw { value: Some(b"{}"), headers, ..Raw::default() }).await;
    let dead = world.dead_lettered(1).await;
    assert_eq!(header(&dead[0], "optio-dead-reason"), "expired");
    assert_eq!(world.receiver.count(), 0);
    let request = serde_json::json!({ "reason": "expired", "all": true });
    assert_eq!(worker.call("POST", "/api/dead-letters/replay", Some(request)).await.0, 202);
    world.receiver.arrived(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_old_is_dead_lettered_and_not_sent() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    let value = World::transition(EventType::TaskCompleted).to_string();
    let timestamp_ms = Some(now_ms() - 4 * 86_400_000);
    world.write_to(world.names().events(), Raw { value: Some(value.as_bytes()), timestamp_ms, ..Raw::default() }).await;
    let dead = world.dead_lettered(1).await;
    assert_eq!(header(&dead[0], "optio-dead-reason"), "expired");
    assert_eq!(world.receiver.count(), 0);
}

/// The number of entries in all streams of marks.
async fn mark_entries(world: &World) -> usize {
    let mut redis = world.redis.clone();
    let keys: Vec<String> = redis.keys(format!("{}settled:*", world.config().redis.prefix)).await.unwrap();
    let mut entries = 0;
    for key in keys {
        entries += redis.xlen::<_, usize>(&key).await.unwrap();
    }
    entries
}

fn commits(worker: &crate::harness::worker::Worker) -> usize {
    worker.log().matches("offsets committed").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_no_lag_marks_are_trimmed_and_an_idle_worker_commits_nothing() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    let mut environment = world.environment();
    environment.push(("RUST_LOG".to_owned(), "optio_webhooks=debug".to_owned()));
    let mut worker = crate::harness::worker::Worker::start(&environment);
    worker.readiness(true).await;
    for _ in 0..3 {
        world.emit(EventType::TaskCompleted, 300).await;
        world.settled().await;
        eventually("all marks are trimmed", async || (mark_entries(&world).await == 0).then_some(())).await;
    }
    assert!(commits(&worker) > 0);
    // This waits for a fixed time, because the test proves that an idle worker commits nothing in two intervals.
    let mut before = commits(&worker);
    eventually("the commits stop", async || {
        tokio::time::sleep(2 * world.config().kafka.commit_interval).await;
        let now = commits(&worker);
        (std::mem::replace(&mut before, now) == now).then_some(())
    })
    .await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_reset_of_offsets_is_obeyed() {
    let world = World::with(&[("topics.partitions", "1"), ("kafka.commit_interval", "200ms")]).await;
    world.webhook("/", &EventType::TASKS).await;
    // One delivery that doesn't settle keeps the marks and commit notes of the others from being trimmed.
    world.receiver.answer(|request| {
        let is_stuck = request.json()["task"]["title"] == "stuck";
        Reply::status(200).after(Duration::from_secs(if is_stuck { 60 } else { 0 }))
    });
    let mut worker = world.worker().await;
    let mut stuck = World::transition(EventType::TaskCompleted);
    stuck["task"]["title"] = "stuck".into();
    world.write("k", Some(stuck.to_string().as_bytes())).await;
    world.emit(EventType::TaskCompleted, 60).await;
    world.receiver.delivered(61).await;
    eventually("settled deliveries have marks", async || (mark_entries(&world).await > 0).then_some(())).await;
    worker.kill();
    world.receiver.answer(|_| Reply::status(200));
    // This does the same as `kafka-consumer-groups --reset-offsets --to-earliest`. It fails until the group has noticed
    // that the killed worker is gone.
    let names = world.names();
    let consumer: BaseConsumer = clients::consumer(&world.config(), names.events_group()).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(names.events(), 0, Offset::Offset(0)).unwrap();
    eventually("the offsets are reset", async || {
        tokio::task::block_in_place(|| consumer.commit(&offsets, CommitMode::Sync)).ok()
    })
    .await;
    let _worker = world.worker().await;
    let again = async || world.receiver.deliveries().values().all(|count| *count == 2).then_some(());
    eventually("all 61 deliveries are sent again", again).await;
    eventually("all marks are trimmed", async || (mark_entries(&world).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_a_recreated_topic_are_trimmed() {
    let world = World::with(&[("topics.partitions", "1")]).await;
    world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 50).await;
    world.receiver.delivered(50).await;
    worker.kill();
    world.delete(world.names().events()).await;
    world.recreate_topics(1).await;
    let _worker = world.worker().await;
    world.emit(EventType::TaskFailed, 10).await;
    world.receiver.delivered(60).await;
    eventually("all marks are trimmed", async || (mark_entries(&world).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_during_a_pause_is_read_from_its_beginning() {
    let settings = [("topics.partitions", "1"), ("kafka.open_offsets_max", "100"), ("delivery.timeout", "60s")];
    let world = World::with(&settings).await;
    world.webhook("/", &EventType::TASKS).await;
    // The answers come after the topic was created again and has more records than were read.
    let (answer, answered) = tokio::sync::watch::channel(false);
    world.receiver.answer(move |_| Reply::status(200).when(answered.clone()));
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 200).await;
    eventually("the partition is paused", async || {
        let metrics = worker.page("/metrics").await?.1;
        metrics.contains("optio_webhooks_pauses_total{reason=\"open_offsets\"} 1").then_some(())
    })
    .await;
    world.delete(world.names().events()).await;
    world.recreate_topics(1).await;
    world.emit(EventType::TaskFailed, 260).await;
    answer.send(true).unwrap();
    let failed = || {
        let requests = world.receiver.requests();
        requests.iter().filter(|request| request.header("x-optio-event") == "task.failed").count()
    };
    eventually("every event of the new topic arrives", async || (failed() == 260).then_some(())).await;
    world.settled().await;
    assert_eq!(failed(), 260);
    assert!(worker.log().contains("the log has changed during a pause"), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_lost_offsets_the_setting_decides_where_the_group_starts() {
    let mut world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 20).await;
    world.receiver.delivered(20).await;
    assert!(worker.terminate().await.success());
    assert!(!worker.log().contains("has no committed offsets"), "a first start is not a loss: {}", worker.log());
    let group = world.config().kafka.group;

    world.set("kafka.group", &format!("{group}-latest"));
    world.set("kafka.offsets_lost", "latest");
    let mut worker = world.worker().await;
    world.emit(EventType::TaskFailed, 5).await;
    world.receiver.delivered(25).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 25, "past events aren't sent again");
    let warning = format!(
        "group {group}-latest has no committed offsets although its topics have 20 records and there are 1 webhooks"
    );
    assert!(worker.log().contains(&warning), "{}", worker.log());
    assert!(worker.terminate().await.success());

    world.set("kafka.group", &format!("{group}-refuse"));
    world.set("kafka.offsets_lost", "refuse");
    let mut worker = crate::harness::worker::Worker::start(&world.environment());
    assert_eq!(worker.exit().await.code(), Some(78), "{}", worker.log());
    assert!(worker.log().contains("kafka.offsets_lost = refuse: set it to earliest"), "{}", worker.log());

    world.set("kafka.group", &format!("{group}-earliest"));
    world.set("kafka.offsets_lost", "earliest");
    let mut worker = world.worker().await;
    world.receiver.arrived(50).await;
    assert!(worker.log().contains("it begins at the oldest record"), "{}", worker.log());
    assert!(worker.terminate().await.success());
}
