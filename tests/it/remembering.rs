//! The knowledge about an endpoint: how workers share it, and when they forget it.

use std::time::Duration;

use optio_webhooks::clock::now_ms;
use optio_webhooks::event::EventType;
use optio_webhooks::report::BreakerState;
use optio_webhooks::store::backoffs::Backoffs;
use optio_webhooks::store::failing::Failing;
use optio_webhooks::store::workers::Reports;
use optio_webhooks::webhook::WebhookId;
use optio_webhooks::webhook::draft::Draft;

use crate::harness::world::header;
use crate::harness::{Reply, World, eventually};

async fn change_webhook(world: &World, webhook: WebhookId, draft: Draft) {
    world.store().change(webhook, draft.replaces(), |it| draft.apply(it, now_ms())).await.unwrap().unwrap().unwrap();
}

/// Waits until Redis has the back-off of the endpoint, so that other workers can read it.
async fn back_off_is_stored(world: &World, webhook: WebhookId) {
    let backoffs = Backoffs::new(world.redis.clone(), &world.keys());
    eventually("the back-off is stored", async || {
        backoffs.all().await.unwrap().iter().any(|(one, _)| *one == webhook).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_worker_sends_nothing_to_an_endpoint_that_is_cooling_down() {
    let world = World::with(&[("topics.partitions", "1")]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(503).header("retry-after", 3_600));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    back_off_is_stored(&world, webhook).await;

    world.emit(EventType::TaskCompleted, 5).await;
    world.events_committed().await;
    assert_eq!(world.receiver.count(), 1, "other deliveries are deferred during the cool-down");
    let waiting = || (1..=3).flat_map(|tier| world.records(&world.names().retry(tier))).collect::<Vec<_>>();
    let deferred: Vec<_> = waiting().into_iter().filter(|record| header(record, "optio-deferrals") == "1").collect();
    assert_eq!(deferred.len(), 5);
    assert!(deferred.iter().all(|record| header(record, "optio-last-error") == "saturated"));
    assert!(deferred.iter().all(|record| header(record, "optio-attempts") == "0"));

    assert!(worker.terminate().await.success());
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 5).await;
    world.events_committed().await;
    assert_eq!(world.receiver.count(), 1, "a new worker reads the cool-down from Redis");
    assert!(worker.terminate().await.success());

    // If Redis loses the cool-down, a new worker makes an attempt and learns it again.
    let _: () = redis::cmd("DEL").arg(world.keys().backing_off()).query_async(&mut world.redis.clone()).await.unwrap();
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(2).await;
    back_off_is_stored(&world, webhook).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_url_is_tried_at_once_without_the_old_failures() {
    let world = World::with(&[
        ("delivery.breaker.attempts_min", "5"),
        ("delivery.breaker.open_initial", "1h"),
        ("delivery.breaker.open_max", "1h"),
    ])
    .await;
    let webhook = world.webhook("/dead", &EventType::TASKS).await;
    world.receiver.answer(|request| Reply::status(if request.path == "/dead" { 500 } else { 200 }));
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 10).await;
    back_off_is_stored(&world, webhook).await;
    change_webhook(&world, webhook, Draft { url: Some(world.receiver.url("/new")), ..Draft::default() }).await;
    world.emit(EventType::TaskFailed, 1).await;
    eventually("the new URL gets a request", async || {
        world.receiver.requests().iter().any(|request| request.path == "/new").then_some(())
    })
    .await;
    assert!(Backoffs::new(world.redis.clone(), &world.keys()).all().await.unwrap().is_empty());
    let failing = Failing::new(world.redis.clone(), &world.keys());
    let lasts = failing.failed(webhook, Duration::from_secs(60)).await.unwrap().duration;
    assert!(lasts < Duration::from_secs(1), "failures of the old URL still count: {lasts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_enabled_again_starts_without_its_old_failures() {
    let world = World::with(&[
        ("delivery.breaker.attempts_min", "10"),
        ("delivery.breaker.open_initial", "1h"),
        ("delivery.breaker.open_max", "1h"),
        ("webhooks.disable_after", "1s"),
        ("delivery.attempts_max", "8"),
        ("delivery.retry.multiplier", "1"),
    ])
    .await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(500));
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(5).await;
    // All ten attempts are under way before the first failure disables the webhook, so they open the circuit too.
    world.receiver.answer(|_| Reply::status(500).after(Duration::from_secs(1)));
    world.emit(EventType::TaskCompleted, 10).await;
    let is_active = async |active: bool| {
        let webhook = world.store().get(webhook).await.unwrap().unwrap();
        (webhook.active == active).then_some(webhook)
    };
    eventually("the webhook is disabled", async || is_active(false).await).await;
    back_off_is_stored(&world, webhook).await;
    let disabled_at_ms = now_ms();
    let reports = Reports::new(world.redis.clone(), &world.keys());
    eventually("the worker has forgotten the endpoint of the disabled webhook", async || {
        let report = reports.all().await.unwrap().pop().filter(|report| report.at_ms > disabled_at_ms)?;
        let mut endpoints = report.endpoints.iter();
        endpoints.all(|one| one.webhook_id != webhook || one.breaker == BreakerState::Closed).then_some(())
    })
    .await;

    let before = world.receiver.count();
    change_webhook(&world, webhook, Draft { active: Some(true), ..Draft::default() }).await;
    world.emit(EventType::TaskFailed, 1).await;
    world.receiver.arrived(before + 1).await;
    let enabled = is_active(true).await.expect("one failure doesn't disable it: older failures don't count");
    assert_eq!(enabled.disabled_reason, None);
    assert!(Backoffs::new(world.redis.clone(), &world.keys()).all().await.unwrap().is_empty());
}
