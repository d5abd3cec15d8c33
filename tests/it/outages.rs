//! When a part is away: nothing is lost, and all goes on by itself.

use std::time::Duration;

use optio_webhooks::event::EventType;

use crate::harness::service::Service;
use crate::harness::{Reply, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_under_load_loses_nothing() {
    let kafka = Service::kafka();
    let world = World::with(&[("kafka.brokers", &kafka.address)]).await;
    world.webhook("/", &EventType::ALL).await;
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
    crate::harness::eventually("all second attempts", delivered).await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_restarts_under_load_loses_nothing_and_sends_nothing_meanwhile() {
    let redis = Service::redis();
    let world = World::with(&[("redis.url", &redis.address)]).await;
    world.webhook("/", &EventType::ALL).await;
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_millis(20)));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 10_000).await;
    world.receiver.arrived(500).await;
    redis.halt();
    worker.readiness(false).await;
    // Unconfirmed for longer than staleness_max: what was started before has arrived by now.
    let mut count = world.receiver.count();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = world.receiver.count();
        if now == count {
            break;
        }
        count = now;
    }
    assert!(count < 10_000, "it was in the middle");
    redis.resume();
    worker.readiness(true).await;
    world.receiver.delivered(10_000).await;
    assert!(worker.terminate().await.success());
    assert_eq!(world.receiver.count(), 10_000, "nothing is repeated either: the worker lived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_while_both_are_away_waits_for_them() {
    let (kafka, redis) = (Service::kafka(), Service::redis());
    let world = World::with(&[("kafka.brokers", &kafka.address), ("redis.url", &redis.address)]).await;
    world.webhook("/", &EventType::ALL).await;
    world.emit(EventType::TaskCompleted, 10).await;
    kafka.halt();
    redis.halt();
    let mut worker = crate::harness::worker::Worker::start(&world.environment());
    worker.readiness(false).await;
    assert_eq!(worker.page("/healthz").await.unwrap().0, 200, "alive all the same");
    redis.resume();
    kafka.resume();
    worker.readiness(true).await;
    world.receiver.delivered(10).await;
    assert!(worker.terminate().await.success());
}
