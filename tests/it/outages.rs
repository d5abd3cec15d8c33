//! Outages of Kafka and Redis: nothing is lost, and workers recover by themselves.

use std::time::Duration;

use optio_webhooks::event::EventType;

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
