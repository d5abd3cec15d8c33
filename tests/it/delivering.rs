//! Deliveries: matching, sending and recording.

use std::time::Duration;

use axum::body::Body;
use optio_webhooks::event::EventType;
use serde_json::json;

use crate::harness::world::Raw;
use crate::harness::{Reply, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_every_subscribed_webhook_with_the_documented_request() {
    let world = World::new().await;
    let first = world.webhook("/first", &[EventType::TaskCompleted]).await;
    world.webhook("/second", &EventType::TASKS).await;
    world.webhook("/other", &[EventType::TaskFailed]).await;
    let mut unsigned = world.unsaved("/unsigned", &[EventType::TaskCompleted]);
    unsigned.secret = None;
    world.store().put(&unsigned).await.unwrap();
    let _worker = world.worker().await;

    let mut transition = World::transition(EventType::TaskCompleted);
    transition["surprise"] = json!("unknown fields are ignored");
    world.write("k", Some(transition.to_string().as_bytes())).await;
    let requests = world.receiver.arrived(3).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 3, "one request for each subscribed webhook");

    for request in &requests {
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("user-agent"), concat!("Optio-Webhooks/", env!("CARGO_PKG_VERSION")));
        assert_eq!(request.header("x-optio-event"), "task.completed");
        assert_eq!(request.header("x-optio-attempt"), "1");
        let signed = request.path != "/unsigned";
        for name in ["x-optio-signature", "webhook-id", "webhook-timestamp", "webhook-signature"] {
            assert_eq!(request.headers.contains_key(name), signed, "{name} of {}", request.path);
        }
        let task = &transition["task"];
        let of_task = |keys: &[&str]| {
            keys.iter().map(|key| (key.to_string(), task[key].clone())).collect::<serde_json::Map<_, _>>()
        };
        let expected = json!({
            "event": "task.completed", "taskId": transition["taskId"], "timestamp": transition["timestamp"],
            "task": of_task(&["id", "title", "state", "repoUrl", "prUrl", "prNumber", "agentType", "costUsd", "createdAt", "completedAt"]),
        });
        assert_eq!(request.json(), expected);
    }
    let id_of_first = requests.iter().find(|request| request.path == "/first").unwrap().delivery();
    let logged = world.logged(first).await;
    assert_eq!(logged.len(), 1);
    assert_eq!(
        (&logged[0]["deliveryId"], &logged[0]["success"], &logged[0]["statusCode"]),
        (&json!(id_of_first), &json!(true), &json!(200))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn first_attempts_of_one_task_to_one_webhook_keep_their_order() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    // Earlier events get slower answers. Without an order, later events would overtake them.
    world.receiver.answer(|request| {
        let number: u64 = request.json()["task"]["title"].as_str().unwrap().parse().unwrap();
        Reply::status(200).after(Duration::from_millis(20 * (10 - number)))
    });
    let _worker = world.worker().await;
    for number in 0..10 {
        let mut transition = World::transition(EventType::TaskPrOpened);
        transition["taskId"] = json!("one task");
        transition["task"]["title"] = json!(number.to_string());
        world.write("one task", Some(transition.to_string().as_bytes())).await;
    }
    let requests = world.receiver.arrived(10).await;
    let titles: Vec<String> =
        requests.iter().map(|request| request.json()["task"]["title"].as_str().unwrap().to_owned()).collect();
    assert_eq!(titles, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed_slow_answers_time_out_large_bodies_are_cut() {
    let world = World::with(&[("delivery.attempts_max", "1"), ("delivery.timeout", "700ms")]).await;
    let redirect = world.webhook("/redirect", &[EventType::TaskCompleted]).await;
    let drip = world.webhook("/drip", &[EventType::TaskCompleted]).await;
    let huge = world.webhook("/huge", &[EventType::TaskCompleted]).await;
    let hang = world.webhook("/hang", &[EventType::TaskCompleted]).await;
    let elsewhere = world.receiver.url("/elsewhere");
    world.receiver.answer(move |request| match request.path.as_str() {
        "/redirect" => Reply::status(307).header("location", &elsewhere),
        "/drip" => {
            let endless = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Ok::<_, std::io::Error>("drop "), ()))
            });
            Reply { body: Body::from_stream(endless), ..Reply::status(200) }
        }
        "/huge" => Reply { body: Body::from("x".repeat(8 << 20)), ..Reply::status(200) },
        "/hang" => Reply::status(200).after(Duration::from_secs(600)),
        _ => Reply::status(200),
    });
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.dead_lettered(3).await;
    world.settled().await;

    let only = async |webhook| {
        let mut logged = world.logged(webhook).await;
        assert_eq!(logged.len(), 1);
        logged.remove(0)
    };
    let logged = only(redirect).await;
    assert_eq!((&logged["error"], &logged["statusCode"]), (&json!("redirect"), &json!(307)));
    assert_eq!(only(drip).await["error"], "timeout");
    assert_eq!(only(hang).await["error"], "timeout");
    let logged = only(huge).await;
    assert_eq!((&logged["success"], logged["responseBody"].as_str().unwrap().len()), (&json!(true), 2_000));
    assert!(world.receiver.requests().iter().all(|request| request.path != "/elsewhere"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_public_is_not_dialled_even_by_name() {
    let mut world = World::with(&[("delivery.attempts_max", "1"), ("delivery.allow_networks", "[]")]).await;
    let by_address = world.webhook("/", &[EventType::TaskCompleted]).await;
    let mut named = world.unsaved("/", &[EventType::TaskCompleted]);
    named.url.set_host(Some("localhost")).unwrap();
    world.store().put(&named).await.unwrap();
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.dead_lettered(2).await;
    assert_eq!(world.logged(by_address).await[0]["error"], "address_blocked");
    // A name gives away nothing about its addresses.
    assert_eq!(world.logged(named.id).await[0]["error"], "dns");
    assert_eq!(world.receiver.count(), 0);
    assert!(worker.terminate().await.success());

    // The same endpoints are reachable once they are allowed, so it was the address check that blocked them.
    world.set("delivery.allow_networks", r#"["127.0.0.0/8", "::1/128"]"#);
    let _worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    eventually("the allowed address is dialled", async || {
        world.receiver.requests().iter().any(|request| !request.header("host").starts_with("localhost")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_or_removed_webhook_takes_effect_within_staleness_max() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for round in 0..10 {
        let webhook = world.webhook(&format!("/{round}"), &[EventType::TaskCompleted]).await;
        // The fixed times measure: a change must take effect within `webhooks.staleness_max`, and this is half of it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.emit(EventType::TaskCompleted, 1).await;
        world.receiver.arrived(round + 1).await;
        assert_eq!(world.receiver.requests()[round].path, format!("/{round}"));
        world.settled().await;
        world.store().remove(webhook).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(world.receiver.count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_for_10_000_webhooks_reaches_each_in_bounded_memory() {
    let world = World::with(&[("log.entries_max", "10")]).await;
    let mut store = redis::pipe();
    let keys = optio_webhooks::store::Keys::new(&world.config().redis.prefix);
    for _ in 0..10_000 {
        let webhook = world.unsaved("/", &[EventType::TaskCompleted]);
        store
            .hset(
                keys.webhooks(),
                webhook.id.to_string(),
                serde_json::to_string(&crate::harness::world::sealing().seal(&webhook, None).unwrap()).unwrap(),
            )
            .ignore();
    }
    store.incr(keys.webhooks_version(), 1).ignore();
    store.query_async::<()>(&mut world.redis.clone()).await.unwrap();
    let mut worker = world.worker().await;
    let before = worker.memory_peak_kib();
    world.emit(EventType::TaskCompleted, 1).await;
    let deliveries = world.receiver.delivered(10_000).await;
    world.settled().await;
    assert!(deliveries.values().all(|count| *count == 1));
    // The kernel counts the peak on each processor, so a later figure may be a little lower.
    let grown_mib = worker.memory_peak_kib().saturating_sub(before) / 1_024;
    assert!(grown_mib < 150, "memory grew by {grown_mib} MiB");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_context_of_the_standards_form_travels_on_and_the_log_shows_what_was_sent() {
    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let world = World::new().await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    let newer = format!("cc{}-more", &GOOD[2..]);
    let given: [(&[u8], Option<&str>); 6] = [
        (GOOD.as_bytes(), Some(GOOD)),
        (newer.as_bytes(), Some(GOOD)),
        (&GOOD.to_uppercase().into_bytes(), None),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx: y", None),
        (b"\xff\xfe", None),
        (&GOOD.replace("b7ad6b7169203331", "0000000000000000").into_bytes(), None),
    ];
    for (topic, offset) in [(world.names().events().to_owned(), 0), (world.names().retry(1), given.len())] {
        for (at, (value, _)) in given.iter().enumerate() {
            let id = (at + offset).to_string();
            let mut transition = World::transition(EventType::TaskCompleted);
            transition["id"] = json!(id);
            let is_event = topic == world.names().events();
            let mut headers = if is_event { vec![] } else { World::retry_headers(webhook, &id) };
            headers.push((b"traceparent".to_vec(), Some(value.to_vec())));
            let body = if is_event { transition.to_string() } else { json!({ "retry": id }).to_string() };
            world.write_to(&topic, Raw { value: Some(body.as_bytes()), headers, ..Raw::default() }).await;
        }
    }
    let _worker = world.worker().await;
    let requests = world.receiver.arrived(2 * given.len()).await;
    world.settled().await;

    let sent = |wanted: Option<&str>| {
        requests
            .iter()
            .filter(|request| request.headers.get("traceparent").map(|v| v.to_str().unwrap()) == wanted)
            .count()
    };
    assert_eq!((sent(Some(GOOD)), sent(None)), (4, 8));
    let entries = world.logged(webhook).await;
    assert_eq!(entries.len(), 2 * given.len());
    for entry in entries {
        let request = requests.iter().find(|request| entry["deliveryId"] == request.delivery()).unwrap();
        let logged = entry["proofs"].as_array().unwrap();
        for header in logged {
            assert_eq!(request.header(header[0].as_str().unwrap()), header[1], "{entry}");
        }
        let shows = logged.iter().any(|header| header[0] == "traceparent");
        assert_eq!(shows, request.headers.contains_key("traceparent"), "{entry}");
    }
}
