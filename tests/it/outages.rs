//! Outages of Kafka and Redis: nothing is lost, and workers recover by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use optio_webhooks::event::EventType;
use optio_webhooks::offsets::commit_note;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use crate::harness::service::Service;
use crate::harness::{Reply, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restart_under_load_loses_no_delivery() {
    let kafka = Service::kafka();
    let world = World::with(&[("kafka.brokers", &kafka.address)]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|request| {
        Reply::status(if request.attempt() == 1 { 500 } else { 200 }).after(Duration::from_millis(20))
    });
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 3_000).await;
    world.receiver.arrived(500).await;
    kafka.halt();
    worker.readiness(false).await;
    kafka.resume();
    worker.readiness(true).await;
    let delivered = async || {
        let requests = world.receiver.requests();
        let second: std::collections::HashSet<String> =
            requests.iter().filter(|request| request.attempt() == 2).map(|request| request.delivery()).collect();
        (second.len() == 3_000).then_some(())
    };
    eventually("all second attempts arrive", delivered).await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restart_under_load_stops_sending_and_loses_no_delivery() {
    let redis = Service::redis();
    let world = World::with(&[("redis.url", &redis.address)]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_millis(20)));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 10_000).await;
    world.receiver.arrived(500).await;
    redis.halt();
    worker.readiness(false).await;
    // The snapshot is older than `staleness_max`, so no attempt starts. The last ones that did start still arrive.
    let count = eventually("half a second passes without a request", async || {
        let before = world.receiver.count();
        tokio::time::sleep(Duration::from_millis(500)).await;
        (world.receiver.count() == before).then_some(before)
    })
    .await;
    assert!(count < 10_000, "Redis stopped after all deliveries were sent");
    redis.resume();
    worker.readiness(true).await;
    world.receiver.delivered(10_000).await;
    assert!(worker.terminate().await.success());
    assert_eq!(world.receiver.count(), 10_000, "nothing is repeated, because the worker kept running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_started_without_kafka_and_redis_waits_for_both() {
    let (kafka, redis) = (Service::kafka(), Service::redis());
    let world = World::with(&[("kafka.brokers", &kafka.address), ("redis.url", &redis.address)]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.emit(EventType::TaskCompleted, 10).await;
    kafka.halt();
    redis.halt();
    let mut worker = crate::harness::worker::Worker::start(&world.environment());
    worker.readiness(false).await;
    assert_eq!(worker.page("/healthz").await.unwrap().0, 200, "the worker is alive although it is not ready");
    redis.resume();
    kafka.resume();
    worker.readiness(true).await;
    world.receiver.delivered(10).await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_loses_the_end_of_a_log_costs_no_open_event_and_no_new_one() {
    let kafka = Service::kafka_on_this_machine();
    let world = World::with(&[
        ("kafka.brokers", &kafka.address),
        ("topics.partitions", "1"),
        ("delivery.timeout", "4m"),
        ("worker.drain_timeout", "245s"),
        // Longer than a restart of the broker, so that a worker keeps its partition.
        ("kafka.properties.session_timeout_ms", "20000"),
    ])
    .await;
    world.webhook("/", &EventType::TASKS).await;
    let held = Arc::new(AtomicBool::new(true));
    world.receiver.answer({
        let held = held.clone();
        move |request| {
            let is_first = request.json()["taskId"] == "0" && held.load(Ordering::Relaxed);
            Reply::status(200).after(Duration::from_secs(if is_first { 230 } else { 0 }))
        }
    });
    // An idempotent producer does not go on after its records are lost.
    let producer: FutureProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &kafka.address).create().unwrap();
    let events = world.names().events().to_owned();
    world.known().await;
    let emit = async |tasks: std::ops::Range<usize>| {
        for task in tasks {
            let mut transition = World::transition(EventType::TaskCompleted);
            transition["taskId"] = serde_json::json!(task.to_string());
            let (key, value) = (task.to_string(), transition.to_string());
            let record = FutureRecord::to(&events).key(&key).payload(&value);
            producer.send(record, Timeout::Never).await.map_err(|(error, _)| error).unwrap();
        }
    };
    let arrived = |task: usize| {
        let (requests, task) = (world.receiver.requests(), task.to_string());
        requests.iter().filter(|request| request.json()["taskId"] == task.as_str()).count()
    };
    let all_arrived = async |tasks: std::ops::Range<usize>| {
        eventually("all of them arrive", async || tasks.clone().all(|task| arrived(task) > 0).then_some(())).await;
    };
    let lose_from = |offset| {
        kafka.kill();
        kafka.lose_from(&events, 0, offset);
        kafka.resume();
    };

    // The first event stays open. All others are settled above it, as the note in the commit says.
    let mut worker = world.worker().await;
    emit(0..21).await;
    all_arrived(0..21).await;
    eventually("the note in the commit names them", async || {
        let commit = world.events_commit()?;
        commit_note::decode(&commit.1, commit.0).filter(|note| note.settled == [(1, 20)])
    })
    .await;
    worker.kill();

    // The next owner gets other records at the offsets that the note names.
    lose_from(11);
    emit(100..108).await;
    let mut worker = world.worker().await;
    all_arrived(100..108).await;
    eventually("the open event is repeated", async || (arrived(0) == 2).then_some(())).await;
    assert_eq!(arrived(5), 1, "no other event is");

    // An owner that goes on reads from a lower offset, and the open event still holds its commit back.
    lose_from(15);
    emit(200..206).await;
    all_arrived(200..206).await;
    // A fixed time, because the test proves that nothing is committed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.events_commit().unwrap().0, 0);
    assert_eq!((arrived(0), arrived(5)), (2, 1), "nothing is read anew");
    worker.kill();
    held.store(false, Ordering::Relaxed);
    let _worker = world.worker().await;
    eventually("the open event arrives", async || (arrived(0) == 3).then_some(())).await;
    world.events_committed().await;
}
