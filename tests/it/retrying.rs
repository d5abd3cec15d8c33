//! Retry tiers and dead letters.

use std::collections::HashMap;

use optio_webhooks::event::EventType;
use rdkafka::Message as _;

use crate::harness::world::header;
use crate::harness::{Reply, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_delivery_is_tried_on_schedule_and_then_dead_lettered() {
    let world = World::new().await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(503));
    let _worker = world.worker().await;
    world.emit(EventType::TaskFailed, 20).await;
    let dead = world.dead_lettered(20).await;
    world.settled().await;

    let mut by_delivery: HashMap<String, Vec<_>> = HashMap::new();
    for request in world.receiver.requests() {
        by_delivery.entry(request.delivery()).or_default().push(request);
    }
    assert_eq!(by_delivery.len(), 20);
    let names = world.names();
    for tier in 1..=3 {
        let shortest_ms = 200 << (tier - 1);
        let waited = world.records(&names.retry(tier));
        assert_eq!(waited.len(), 20);
        for record in waited {
            let delivery = header(&record, "optio-delivery-id");
            let requests = &by_delivery[&delivery];
            assert_eq!(record.key(), Some(webhook.to_string().as_bytes()));
            assert_eq!(record.payload(), Some(requests[0].body.as_ref()), "the retry record has the exact body");
            assert_eq!(header(&record, "optio-attempts"), tier.to_string());
            assert_eq!(
                (header(&record, "optio-last-error"), header(&record, "optio-last-status")),
                ("status".into(), "503".into())
            );
            let due_at_ms: i64 = header(&record, "optio-due-at").parse().unwrap();
            let (before, after) = (&requests[tier as usize - 1], &requests[tier as usize]);
            assert!(due_at_ms >= before.arrived_at_ms + shortest_ms, "the due time respects the delay of the tier");
            assert!(after.arrived_at_ms >= due_at_ms, "no attempt is early");
        }
    }
    for requests in by_delivery.values() {
        assert_eq!(requests.iter().map(|request| request.attempt()).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(requests.iter().all(|request| request.body == requests[0].body), "every attempt sends the same bytes");
    }
    for dead in dead {
        assert_eq!(header(&dead, "optio-dead-reason"), "exhausted");
        assert_eq!(header(&dead, "optio-attempts"), "4");
        assert_eq!(header(&dead, "optio-event"), "task.failed");
        assert!(by_delivery.contains_key(&header(&dead, "optio-delivery-id")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_deliveries_of_a_deleted_webhook_are_dropped() {
    let world = World::with(&[("delivery.retry.initial", "4s")]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(500));
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 100).await;
    let tier = world.names().retry(1);
    eventually("100 deliveries wait", async || (world.records(&tier).len() == 100).then_some(())).await;
    assert_eq!(world.receiver.count(), 100);
    assert!(world.store().remove(webhook).await.unwrap());
    world.settled().await;
    assert_eq!(world.receiver.count(), 100, "no delivery is sent after the deletion");
    assert!(world.dead_letters().is_empty(), "no delivery is dead-lettered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_lengthens_the_wait_and_never_shortens_it() {
    let world = World::with(&[("delivery.retry.initial", "1s")]).await;
    world.webhook("/long", &[EventType::TaskCompleted]).await;
    world.webhook("/short", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|request| match (request.attempt(), request.path.as_str()) {
        (1, "/long") => Reply::status(429).header("retry-after", 3),
        (1, "/short") => Reply::status(503).header("retry-after", 0),
        _ => Reply::status(200),
    });
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    let requests = world.receiver.arrived(4).await;
    for (path, least_ms) in [("/long", 3_000), ("/short", 1_000)] {
        let of_path: Vec<i64> =
            requests.iter().filter(|request| request.path == path).map(|request| request.arrived_at_ms).collect();
        assert!(of_path[1] - of_path[0] >= least_ms, "{path}: {} ms", of_path[1] - of_path[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schedule_or_number_of_tiers_loses_no_waiting_delivery() {
    let mut world = World::with(&[("delivery.retry.initial", "2s"), ("delivery.retry.multiplier", "1")]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|request| Reply::status(if request.attempt() < 3 { 500 } else { 200 }));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 50).await;
    let second = world.names().retry(2);
    // All deliveries wait in the second tier, which the settings of the next worker don't have.
    eventually("all wait in the second tier", async || (world.records(&second).len() == 50).then_some(())).await;
    assert!(worker.terminate().await.success());

    world.set("delivery.attempts_max", "2");
    world.set("delivery.retry.initial", "100ms");
    let mut worker = world.worker().await;
    eventually("the third attempts arrive", async || (world.receiver.count() >= 150).then_some(())).await;
    assert!(worker.terminate().await.success());

    world.set("delivery.attempts_max", "6");
    let _worker = world.worker().await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 150);
    assert!(world.dead_letters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_full_of_later_retries_does_not_delay_due_ones() {
    let world = World::with(&[("delivery.retry.window_max", "10"), ("topics.partitions", "1")]).await;
    // A webhook each: an endpoint's `Retry-After` defers its other deliveries to the longest tier.
    for n in 0..50 {
        world.webhook(&format!("/far/{n}"), &[EventType::TaskFailed]).await;
    }
    world.webhook("/near", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|request| match (request.attempt(), request.path.starts_with("/far/")) {
        (1, true) => Reply::status(503).header("retry-after", 3_600),
        (1, _) => Reply::status(503),
        _ => Reply::status(200),
    });
    let mut worker = world.worker().await;
    world.emit(EventType::TaskFailed, 1).await;
    let first = world.names().retry(1);
    eventually("50 later retries wait", async || (world.records(&first).len() >= 50).then_some(())).await;
    world.emit(EventType::TaskCompleted, 20).await;
    let near = async || {
        let requests = world.receiver.requests();
        (requests.iter().filter(|request| request.path == "/near" && request.attempt() == 2).count() == 20)
            .then_some(())
    };
    eventually("the due retries are sent", near).await;
    assert!(worker.terminate().await.success());
    assert_eq!(
        world.receiver.requests().iter().filter(|request| request.path.starts_with("/far/")).count(),
        50,
        "no retry is early"
    );
    assert!(world.dead_letters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_too_old_for_its_next_attempt_is_dead_lettered_as_expired() {
    let world = World::with(&[("delivery.age_max", "2s"), ("delivery.retry.initial", "1500ms")]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(500));
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    let dead = world.dead_lettered(1).await;
    assert_eq!(header(&dead[0], "optio-dead-reason"), "expired");
    assert_eq!(world.receiver.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_delivery_survives_a_crash_of_its_worker() {
    let world = World::with(&[("delivery.retry.initial", "3s")]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 10).await;
    let first = world.names().retry(1);
    eventually("10 deliveries wait", async || (world.records(&first).len() == 10).then_some(())).await;
    worker.kill();
    let _worker = world.worker().await;
    world.receiver.arrived(20).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 20);
}
