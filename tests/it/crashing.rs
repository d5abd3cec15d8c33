//! Deliveries that a crash may repeat, and drains that repeat none.

use std::time::Duration;

use optio_webhooks::event::EventType;

use crate::harness::{Reply, World, eventually};

/// The number of requests that repeat an earlier request of the same delivery.
fn repeats(world: &World) -> usize {
    world.receiver.deliveries().values().map(|count| count - 1).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigkill_at_most_in_flight_max_deliveries_are_repeated() {
    let in_flight_max = 100;
    // Commits are rare, so only the marks can keep the restarted worker from repeating deliveries.
    let world = World::with(&[("worker.in_flight_max", "100"), ("kafka.commit_interval", "20s")]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_millis(5)));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 5_000).await;
    world.receiver.arrived(2_000).await;
    worker.kill();
    let _worker = world.worker().await;
    world.receiver.delivered(5_000).await;
    // Another worker joins and drains. That gives every wrong repeat the time to arrive.
    let mut worker = world.worker().await;
    assert!(worker.terminate().await.success());
    assert!(repeats(&world) <= in_flight_max, "{} repeats", repeats(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_under_load_every_delivery_arrives_exactly_once() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_millis(5)));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 5_000).await;
    world.receiver.arrived(2_000).await;
    assert!(worker.terminate().await.success());
    assert!(world.receiver.count() < 5_000, "the worker ended before all deliveries were sent");
    let _worker = world.worker().await;
    world.receiver.delivered(5_000).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_join_and_leave_under_load_repeat_no_attempt() {
    let world = World::with(&[("topics.partitions", "4")]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|request| {
        let fails = request.attempt() == 1 && request.body.len() % 2 == 0;
        Reply::status(if fails { 500 } else { 200 }).after(Duration::from_millis(5))
    });
    let mut first = world.worker().await;
    let emit = async {
        for _ in 0..20 {
            world.emit(EventType::TaskCompleted, 250).await;
        }
    };
    let workers = async {
        world.receiver.arrived(300).await;
        let mut second = world.worker().await;
        world.receiver.arrived(1_500).await;
        assert!(first.terminate().await.success());
        let mut third = world.worker().await;
        world.receiver.delivered(4_000).await;
        assert!(second.terminate().await.success());
        world.receiver.delivered(5_000).await;
        world.settled().await;
        assert!(third.terminate().await.success());
    };
    tokio::join!(emit, workers);
    let mut seen = std::collections::HashSet::new();
    for request in world.receiver.requests() {
        assert!(seen.insert((request.delivery(), request.attempt())), "an attempt was repeated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_recreated_topic_are_not_skipped_by_old_marks() {
    let world = World::with(&[("topics.partitions", "1")]).await;
    world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 50).await;
    world.receiver.delivered(50).await;
    // The worker is killed before it commits, so the marks of the old topic's records stay in Redis.
    worker.kill();
    let config = world.config();
    let admin: rdkafka::admin::AdminClient<_> = optio_webhooks::kafka::clients::producer(&config).create().unwrap();
    admin.delete_topics(&[&config.kafka.topic], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    eventually("the topic is created again", async || {
        let created = optio_webhooks::kafka::admin::Topics::new(&config).unwrap().create().await;
        created.is_ok_and(|created| created == [config.kafka.topic.clone()]).then_some(())
    })
    .await;
    let _worker = world.worker().await;
    world.emit(EventType::TaskFailed, 50).await;
    world.receiver.delivered(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_the_worker_at_once() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_secs(60)));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(1).await;
    worker.signal("-TERM");
    worker.readiness(false).await;
    worker.signal("-INT");
    assert_eq!(worker.exit().await.code(), Some(1));
    assert!(worker.log().contains("second signal"));
}
