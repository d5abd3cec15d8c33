//! Isolation: one endpoint never harms the deliveries to another.

use std::time::{Duration, Instant};

use optio_webhooks::clock::now_ms;
use optio_webhooks::event::EventType;
use optio_webhooks::store::failing::Failing;
use optio_webhooks::webhook::draft::Draft;

use crate::harness::world::header;
use crate::harness::{Reply, World, eventually};

/// Leaves requests to `/hang` unanswered for ten minutes, and answers all others at once.
fn leave_hang_unanswered(world: &World) {
    world.receiver.answer(|request| match request.path.as_str() {
        "/hang" => Reply::status(200).after(Duration::from_secs(600)),
        _ => Reply::status(200),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_to_a_hanging_endpoint_blocks_no_other() {
    let world = World::with(&[
        ("worker.in_flight_max", "200"),
        ("delivery.endpoint_in_flight_max", "20"),
        ("delivery.timeout", "30s"),
    ])
    .await;
    world.webhook("/hang", &[EventType::TaskCompleted]).await;
    for number in 0..4 {
        world.webhook(&format!("/{number}"), &[EventType::TaskCompleted]).await;
    }
    leave_hang_unanswered(&world);
    let _worker = world.worker().await;
    let began = Instant::now();
    world.emit(EventType::TaskCompleted, 2_000).await;
    let others = async || {
        let arrived = world.receiver.requests().iter().filter(|request| request.path != "/hang").count();
        (arrived == 8_000).then_some(())
    };
    eventually("all deliveries to the other endpoints arrive", others).await;
    // If they had waited for the hanging endpoint, they would have taken longer than its timeout.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_slow_endpoints_leave_permits_for_the_others() {
    let world =
        World::with(&[("worker.in_flight_max", "200"), ("delivery.timeout", "60s"), ("delivery.retry.initial", "30s")])
            .await;
    // The deliveries to `/slow` could exhaust the permit pool several times: ten events have 100 of them each, and
    // 500 events have 20 each.
    for _ in 0..100 {
        world.webhook("/slow", &[EventType::TaskPrOpened]).await;
    }
    for _ in 0..20 {
        world.webhook("/slow", &[EventType::TaskCompleted]).await;
    }
    let fast = world.webhook("/fast", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|request| match request.path.as_str() {
        "/slow" => Reply::status(200).after(Duration::from_secs(20)),
        _ => Reply::status(200),
    });
    let _worker = world.worker().await;
    world.emit(EventType::TaskPrOpened, 10).await;
    world.receiver.arrived(50).await;
    let began = Instant::now();
    world.emit(EventType::TaskCompleted, 500).await;
    eventually("all deliveries to the fast endpoint arrive", async || {
        let arrived = world.receiver.requests().iter().filter(|request| request.path == "/fast").count();
        (arrived == 500).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}: it waited for the slow ones", began.elapsed());
    let tiers = (1..=3).flat_map(|tier| world.records(&world.names().retry(tier)));
    let deferred = tiers.filter(|record| header(record, "optio-webhook-id") == fast.to_string()).count();
    assert_eq!(deferred, 0, "no delivery to the fast endpoint is deferred");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_an_open_circuit_gets_each_delivery_once_after_recovery() {
    let world = World::with(&[
        ("delivery.breaker.attempts_min", "10"),
        ("delivery.breaker.open_initial", "500ms"),
        ("delivery.breaker.open_max", "2s"),
        ("delivery.attempts_max", "6"),
        ("delivery.retry.max", "2s"),
    ])
    .await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(500));
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 300).await;
    let deferred = async || {
        let tiers = (1..=5).flat_map(|tier| world.records(&world.names().retry(tier)));
        let records: Vec<_> = tiers.filter(|record| header(record, "optio-last-error") == "circuit_open").collect();
        (records.len() >= 500).then_some(records)
    };
    let deferred = eventually("deliveries are deferred", deferred).await;
    assert!(deferred.iter().all(|record| header(record, "optio-deferrals") != "0"));
    assert!(deferred.iter().any(|record| header(record, "optio-attempts") == "0"), "a deferral spends no attempt");
    let attempts = world.receiver.count();
    assert!(attempts < 150, "{attempts} attempts of 300 deliveries despite the open circuit");
    let metrics = worker.page("/metrics").await.unwrap().1;
    let is_zero = metrics.contains("optio_webhooks_deferrals_total{reason=\"circuit_open\"} 0\n");
    assert!(!is_zero && metrics.contains("optio_webhooks_deferrals_total{reason=\"circuit_open\"}"), "{metrics}");

    world.receiver.answer(|_| Reply::status(200));
    let requests = world.receiver.requests();
    let delivered = async || {
        let counts: std::collections::HashMap<String, usize> =
            world.receiver.requests()[requests.len()..].iter().fold(Default::default(), |mut counts, request| {
                *counts.entry(request.delivery()).or_default() += 1;
                counts
            });
        (counts.len() == 300).then_some(counts)
    };
    let counts = eventually("all deliveries arrive", delivered).await;
    world.settled().await;
    assert!(counts.values().all(|count| *count == 1), "each delivery arrives once");
    assert!(world.dead_letters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_410_disables_the_webhook_and_drops_its_waiting_deliveries() {
    let world = World::with(&[("delivery.retry.initial", "3s")]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(500));
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 20).await;
    world.receiver.arrived(20).await;
    world.receiver.answer(|_| Reply::status(410));
    world.emit(EventType::TaskFailed, 1).await;
    let disabled = eventually("the webhook is disabled", async || {
        world.store().get(webhook).await.unwrap().filter(|webhook| !webhook.active)
    })
    .await;
    assert_eq!(disabled.disabled_reason.as_deref(), Some("the endpoint answered 410 Gone"));
    world.emit(EventType::TaskFailed, 5).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 21, "a disabled webhook gets nothing more");
    assert!(world.dead_letters().is_empty());
    assert!(worker.log().contains("webhook disabled"));
    assert!(worker.page("/metrics").await.unwrap().1.contains("optio_webhooks_disabled_total 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_disabled_only_after_long_failure_without_success() {
    let world = World::with(&[
        ("webhooks.disable_after", "2s"),
        ("delivery.attempts_max", "20"),
        ("delivery.retry.max", "300ms"),
    ])
    .await;
    let dead = world.webhook("/dead", &EventType::TASKS).await;
    let flaky = world.webhook("/flaky", &EventType::TASKS).await;
    world.receiver.answer(|request| {
        let fails = request.path == "/dead" || request.attempt() % 3 != 0;
        Reply::status(if fails { 500 } else { 200 })
    });
    let worker = world.worker().await;
    for _ in 0..3 {
        world.emit(EventType::TaskCompleted, 3).await;
        // A fixed time, because `webhooks.disable_after` measures how long failures go on.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let disabled = eventually("the webhook is disabled", async || {
        world.emit(EventType::TaskCompleted, 1).await;
        world.store().get(dead).await.unwrap().filter(|webhook| !webhook.active)
    })
    .await;
    assert_eq!(disabled.disabled_reason.as_deref(), Some("failed for 2s without one success"));
    assert!(world.store().get(flaky).await.unwrap().unwrap().active);
    assert!(worker.log().contains("webhook disabled"));
    assert!(worker.page("/metrics").await.unwrap().1.contains("optio_webhooks_disabled_total 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhooks_rate_limit_is_kept() {
    let world = World::new().await;
    let mut webhook = world.unsaved("/", &EventType::TASKS);
    webhook.rate_per_second = std::num::NonZeroU32::new(20);
    world.store().put(&webhook).await.unwrap();
    let _worker = world.worker().await;
    let began_ms = optio_webhooks::clock::now_ms();
    world.emit(EventType::TaskCompleted, 60).await;
    let requests = world.receiver.arrived(60).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 60, "deferred deliveries arrive once");
    assert!(requests.iter().all(|request| request.attempt() == 1), "a deferral spends no attempt");
    // The last of 60 requests may go out only after 59/20 s, even if a busy machine delays some of them.
    let took = requests.iter().map(|request| request.arrived_at_ms).max().unwrap() - began_ms;
    assert!(took >= 2_900, "60 requests within {took} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_for_a_thousand_hanging_webhooks_does_not_starve_another() {
    let world =
        World::with(&[("worker.in_flight_max", "200"), ("delivery.timeout", "60s"), ("topics.partitions", "1")]).await;
    for _ in 0..1_000 {
        world.webhook("/hang", &[EventType::TaskCompleted]).await;
    }
    world.webhook("/other", &[EventType::TaskFailed]).await;
    leave_hang_unanswered(&world);
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(50).await;
    let began = Instant::now();
    world.emit(EventType::TaskFailed, 50).await;
    let others = async || {
        (world.receiver.requests().iter().filter(|request| request.path == "/other").count() == 50).then_some(())
    };
    eventually("the deliveries of the other event arrive", others).await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_events_for_hanging_webhooks_do_not_starve_another() {
    let world =
        World::with(&[("worker.in_flight_max", "200"), ("delivery.timeout", "60s"), ("topics.partitions", "1")]).await;
    for _ in 0..70 {
        world.webhook("/hang", &[EventType::TaskCompleted]).await;
    }
    world.webhook("/other", &[EventType::TaskFailed]).await;
    leave_hang_unanswered(&world);
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 400).await;
    world.receiver.arrived(30).await;
    let began = Instant::now();
    world.emit(EventType::TaskFailed, 50).await;
    eventually("the deliveries of the other event arrive", async || {
        (world.receiver.requests().iter().filter(|request| request.path == "/other").count() == 50).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}: the deliveries waited for a timeout", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_rate_limit_of_a_webhook() {
    let world = World::with(&[("topics.partitions", "8")]).await;
    let mut webhook = world.unsaved("/", &EventType::TASKS);
    webhook.rate_per_second = std::num::NonZeroU32::new(20);
    world.store().put(&webhook).await.unwrap();
    let _workers = [world.worker().await, world.worker().await];
    let reports = async || -> Vec<(String, i64)> {
        let key = world.keys().consuming();
        redis::cmd("ZRANGE")
            .arg(key)
            .arg(&["0", "-1", "WITHSCORES"])
            .query_async(&mut world.redis.clone())
            .await
            .unwrap()
    };
    let both = async || Some(reports().await).filter(|workers| workers.len() == 2);
    let first = eventually("both workers have partitions", both).await;
    // A worker learns the number of workers when it writes its report.
    eventually("both workers have counted each other", async || {
        let now = reports().await;
        let is_renewed = |(worker, at): &(String, i64)| now.iter().any(|(one, later)| one == worker && later > at);
        first.iter().all(is_renewed).then_some(())
    })
    .await;
    world.emit(EventType::TaskCompleted, 80).await;
    let requests = world.receiver.arrived(80).await;
    let arrived = || requests.iter().map(|request| request.arrived_at_ms);
    // Each worker may send ten requests a second, the first one at once, and one of them gets at least 40.
    // These take 3.9 s. At 20 requests a second they would take two seconds.
    let took = arrived().max().unwrap() - arrived().min().unwrap();
    assert!(took >= 3_800, "80 requests within {took} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_410_from_an_old_url_does_not_disable_a_changed_webhook() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let webhook = world.webhook("/old", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|request| match request.path.as_str() {
        "/old" => Reply::status(410).after(Duration::from_millis(700)),
        _ => Reply::status(200),
    });
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(1).await;
    let url = world.receiver.url("/new");
    let draft = Draft { url: Some(url), ..Draft::default() };
    let store = world.store();
    store.change(webhook, draft.replaces(), |it| draft.apply(it, now_ms())).await.unwrap().unwrap().unwrap();
    world.settled().await;
    let requests = world.receiver.arrived(2).await;
    assert_eq!((requests[1].path.as_str(), requests[1].attempt()), ("/new", 2));
    assert_eq!(requests[1].delivery(), requests[0].delivery());
    assert!(world.store().get(webhook).await.unwrap().unwrap().active);
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_time_excludes_idle_gaps_and_is_dropped_with_its_webhook() {
    let world = World::new().await;
    let failing = Failing::new(world.redis.clone(), &world.keys());
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    let gap_max = Duration::from_millis(20);
    let first = failing.failed(webhook, gap_max).await.unwrap();
    assert_eq!(first.duration, Duration::ZERO);
    // Redis now says that the failures began a day ago.
    let day_ago = first.since_ms - 86_400_000;
    let overwrite = |text: String| {
        let (mut redis, key) = (world.redis.clone(), world.keys().failing());
        async move {
            redis::cmd("HSET").arg(key).arg(webhook.to_string()).arg(text).query_async::<()>(&mut redis).await.unwrap();
        }
    };
    overwrite(format!("{day_ago}:{day_ago}:7")).await;
    let later = failing.failed(webhook, gap_max).await.unwrap();
    assert_eq!((later.since_ms, later.duration), (day_ago, Duration::from_millis(27)));
    // An earlier version stored only the time of the first failure, so nothing is known of the time since then.
    overwrite(day_ago.to_string()).await;
    assert_eq!(failing.failed(webhook, gap_max).await.unwrap().duration, Duration::ZERO);
    failing.clear(webhook).await.unwrap();
    assert_eq!(failing.failed(webhook, gap_max).await.unwrap().duration, Duration::ZERO);
    world.store().remove(webhook).await.unwrap();
    // An attempt that was under way during the deletion fails.
    assert_eq!(failing.failed(webhook, gap_max).await.unwrap().duration, Duration::ZERO);
    let kept: usize =
        redis::cmd("HLEN").arg(world.keys().failing()).query_async(&mut world.redis.clone()).await.unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_egress_proxy_opens_no_circuit_and_disables_no_webhook() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let world = World::with(&[
        ("delivery.proxy", &proxy),
        ("delivery.breaker.attempts_min", "3"),
        ("webhooks.disable_after", "1s"),
    ])
    .await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    world.emit(EventType::TaskFailed, 10).await;
    let dead = world.dead_lettered(10).await;
    assert!(dead.iter().all(|record| header(record, "optio-last-error") == "egress"));
    let entries = world.logged(webhook).await;
    assert!(entries.len() == 40 && entries.iter().all(|entry| entry["error"] == "egress"), "no attempt was deferred");
    let (_, shown) = worker.call("GET", &format!("/api/webhooks/{webhook}"), None).await;
    assert_eq!(shown["webhook"]["active"], true);
    let metrics = worker.page("/metrics").await.unwrap().1;
    assert!(metrics.contains("optio_webhooks_deferrals_total{reason=\"circuit_open\"} 0\n"));
}
