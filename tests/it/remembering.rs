//! What is known of an endpoint: who learns it, and when it is forgotten.

use std::time::Duration;

use optio_webhooks::clock::now_ms;
use optio_webhooks::event::EventType;
use optio_webhooks::report::BreakerState;
use optio_webhooks::store::backoffs::Backoffs;
use optio_webhooks::store::failing::Failing;
use optio_webhooks::store::reports::Reports;
use optio_webhooks::webhook::WebhookId;
use optio_webhooks::webhook::draft::Draft;

use crate::harness::world::header;
use crate::harness::{Reply, World, eventually};

async fn change(world: &World, webhook: WebhookId, draft: Draft) {
    world.store().change(webhook, |it| draft.apply(it, now_ms())).await.unwrap().unwrap().unwrap();
}

/// Waits until others can know that the endpoint is left alone.
async fn told(world: &World, webhook: WebhookId) {
    let left_alone = Backoffs::new(world.redis.clone(), &world.keys());
    eventually("it is told", async || {
        left_alone.all().await.unwrap().iter().any(|(one, _)| *one == webhook).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asked_to_be_left_alone_is_by_a_fresh_worker_too_and_redis_that_forgot_costs_a_probe() {
    let world = World::with(&[("topics.partitions", "1")]).await;
    let webhook = world.webhook("/", &EventType::ALL).await;
    world.receiver.answer(|_| Reply::status(503).header("retry-after", 3_600));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    told(&world, webhook).await;

    world.emit(EventType::TaskCompleted, 5).await;
    world.committed(world.names().events_group(), vec![world.names().events().to_owned()]).await;
    assert_eq!(world.receiver.count(), 1, "the others are held as well");
    let waiting = || (1..=3).flat_map(|tier| world.records(&world.names().retry(tier))).collect::<Vec<_>>();
    let held: Vec<_> = waiting().into_iter().filter(|record| header(record, "optio-deferrals") == "1").collect();
    assert_eq!(held.len(), 5);
    assert!(held.iter().all(|record| header(record, "optio-last-error") == "saturated"));
    assert!(held.iter().all(|record| header(record, "optio-attempts") == "0"));

    assert!(worker.terminate().await.success());
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 5).await;
    world.committed(world.names().events_group(), vec![world.names().events().to_owned()]).await;
    assert_eq!(world.receiver.count(), 1, "a fresh worker knows");
    assert!(worker.terminate().await.success());

    let _: () = redis::cmd("DEL").arg(world.keys().left_alone()).query_async(&mut world.redis.clone()).await.unwrap();
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(2).await;
    told(&world, webhook).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_with_another_url_is_tried_at_once_and_begins_anew() {
    let world = World::with(&[
        ("delivery.breaker.attempts_min", "5"),
        ("delivery.breaker.open_initial", "1h"),
        ("delivery.breaker.open_max", "1h"),
    ])
    .await;
    let webhook = world.webhook("/dead", &EventType::ALL).await;
    world.receiver.answer(|request| Reply::status(if request.path == "/dead" { 500 } else { 200 }));
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 10).await;
    told(&world, webhook).await;
    change(&world, webhook, Draft { url: Some(world.receiver.url("/mended")), ..Draft::default() }).await;
    world.emit(EventType::TaskFailed, 1).await;
    eventually("the new URL is asked", async || {
        world.receiver.requests().iter().any(|request| request.path == "/mended").then_some(())
    })
    .await;
    assert!(Backoffs::new(world.redis.clone(), &world.keys()).all().await.unwrap().is_empty());
    let failing = Failing::new(world.redis.clone(), &world.keys());
    let lasts = failing.failed(webhook, Duration::from_secs(60)).await.unwrap().lasts;
    assert!(lasts < Duration::from_secs(1), "its failures of before count no more: {lasts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_enabled_again_begins_anew() {
    let world = World::with(&[
        ("delivery.breaker.attempts_min", "10"),
        ("delivery.breaker.open_initial", "1h"),
        ("delivery.breaker.open_max", "1h"),
        ("webhooks.disable_after", "1s"),
        ("delivery.attempts_max", "8"),
        ("delivery.retry.multiplier", "1"),
    ])
    .await;
    let webhook = world.webhook("/", &EventType::ALL).await;
    world.receiver.answer(|_| Reply::status(500));
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(5).await;
    // All are under way before the first of them disables it: so many failures open its breaker too.
    world.receiver.answer(|_| Reply::status(500).after(Duration::from_secs(1)));
    world.emit(EventType::TaskCompleted, 10).await;
    let is_active = async |active: bool| {
        let webhook = world.store().get(webhook).await.unwrap().unwrap();
        (webhook.active == active).then_some(webhook)
    };
    eventually("it is disabled", async || is_active(false).await).await;
    told(&world, webhook).await;
    let disabled_at_ms = now_ms();
    let reports = Reports::new(world.redis.clone(), &world.keys());
    eventually("the worker has seen it, and forgotten what it knew of its endpoint", async || {
        let report = reports.all().await.unwrap().pop().filter(|report| report.at_ms > disabled_at_ms)?;
        let mut endpoints = report.endpoints.iter();
        endpoints.all(|one| one.webhook_id != webhook || one.breaker == BreakerState::Closed).then_some(())
    })
    .await;

    let asked = world.receiver.count();
    change(&world, webhook, Draft { active: Some(true), ..Draft::default() }).await;
    world.emit(EventType::TaskFailed, 1).await;
    world.receiver.arrived(asked + 1).await;
    let enabled = is_active(true).await.expect("one failure doesn't disable it: what was before counts no more");
    assert_eq!(enabled.disabled_reason, None);
    assert!(Backoffs::new(world.redis.clone(), &world.keys()).all().await.unwrap().is_empty());
}
