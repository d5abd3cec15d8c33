//! What a webhook misses while it is paused or disabled: it is counted, held, or sent later.

use std::collections::{BTreeMap, HashMap};

use optio_webhooks::event::EventType;
use optio_webhooks::store::missed::MissedEvents;
use optio_webhooks::webhook::WebhookId;
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};

use crate::harness::worker::Worker;
use crate::harness::world::TOKEN;
use crate::harness::{Reply, World, eventually};

async fn set(worker: &Worker, webhook: WebhookId, change: Value) {
    let (status, answer) = worker.call("PATCH", &format!("/api/webhooks/{webhook}"), Some(change)).await;
    assert_eq!(status, 200, "{answer}");
}

async fn missed(worker: &Worker, webhook: WebhookId) -> u64 {
    let (status, answer) = worker.call("GET", &format!("/api/webhooks/{webhook}/missed"), None).await;
    assert_eq!(status, 200, "{answer}");
    answer["events"].as_u64().unwrap()
}

/// Writes `count` events of `tasks` tasks in turn. The title of each is its number.
async fn emit_in_order(world: &World, numbers: std::ops::Range<usize>, tasks: usize) {
    world.known().await;
    let topic = world.names().events().to_owned();
    let mut sent = Vec::new();
    for number in numbers {
        let task = uuid::Uuid::from_u128((number % tasks) as u128 + 1).to_string();
        let mut value = World::transition(EventType::TaskCompleted);
        value["taskId"] = json!(task);
        value["task"]["title"] = json!(number.to_string());
        let value = value.to_string();
        sent.push(
            world
                .producer()
                .send_result(FutureRecord::to(&topic).key(&task).payload(&value))
                .map_err(|(error, _)| error)
                .unwrap(),
        );
    }
    for sent in sent {
        sent.await.unwrap().map_err(|(error, _)| error).unwrap();
    }
}

async fn replayed(admin: &Worker, id: &str) -> Value {
    eventually("the replay ends", async || {
        let replay = admin.call("GET", &format!("/api/dead-letters/replays/{id}"), None).await.1["replay"].clone();
        (replay["state"] != "running").then_some(replay)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_in_an_outage_of_ten_thousand_events_is_sent_once_and_in_order_although_a_worker_dies() {
    const EVENTS: usize = 10_000;
    let world = World::with(&[
        ("delivery.attempts_max", "2"),
        ("delivery.retry.initial", "1s"),
        ("worker.in_flight_max", "64"),
        ("log.entries_max", "20000"),
    ])
    .await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    let admin = world.admin().await;
    let mut worker = world.worker().await;

    // First the endpoint fails, so that some deliveries die and others wait. Then its owner pauses it.
    world.receiver.answer(|_| Reply::status(500));
    emit_in_order(&world, 0..500, 50).await;
    world.dead_lettered(200).await;
    emit_in_order(&world, 500..1_000, 50).await;
    set(&admin, webhook, json!({ "active": false })).await;
    emit_in_order(&world, 1_000..EVENTS, 50).await;
    world.settled().await;
    let dead = world.dead_letters().len();
    assert_eq!(missed(&admin, webhook).await as usize, EVENTS - dead);
    let path = "/api/dead-letters/replay";
    let (status, refused) = admin.call("POST", path, Some(json!({ "webhook": webhook, "missed": true }))).await;
    assert_eq!((status, refused["error"].as_str().unwrap().contains("resume it first")), (409, true), "{refused}");

    world.receiver.answer(|_| Reply::status(200));
    let failed = world.receiver.count();
    set(&admin, webhook, json!({ "active": true })).await;
    let (status, begun) = admin.call("POST", path, Some(json!({ "webhook": webhook, "missed": true }))).await;
    assert_eq!(status, 202, "{begun}");
    world.receiver.arrived(failed + 2_000).await;
    worker.kill();
    let _worker = world.worker().await;
    let replay = replayed(&admin, begun["replay"]["id"].as_str().unwrap()).await;
    assert_eq!((&replay["state"], replay["replayed"].as_u64()), (&json!("done"), Some(EVENTS as u64)), "{replay}");
    world.settled().await;

    let requests = &world.receiver.requests()[failed..];
    let mut times: HashMap<String, usize> = HashMap::new();
    let mut numbers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for request in requests {
        let payload = request.json();
        let times = times.entry(request.delivery()).or_default();
        *times += 1;
        if *times == 1 {
            let number = payload["task"]["title"].as_str().unwrap().parse().unwrap();
            numbers.entry(payload["taskId"].as_str().unwrap().to_owned()).or_default().push(number);
        }
    }
    assert_eq!(times.len(), EVENTS, "none is missing");
    let repeated = requests.len() - EVENTS;
    assert!(repeated <= 64, "{repeated} were repeated, but only those in flight at the kill may be");
    assert!(numbers.values().all(|numbers| numbers.is_sorted()), "the events of a task are in order");
    assert_eq!(missed(&admin, webhook).await, 0);

    // Nothing is left to send.
    let (_, begun) = admin.call("POST", path, Some(json!({ "webhook": webhook, "missed": true }))).await;
    assert_eq!(replayed(&admin, begun["replay"]["id"].as_str().unwrap()).await["replayed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deliveries_wait_for_the_end_of_a_pause_and_arrive_once() {
    let world = World::with(&[
        ("delivery.breaker.open_max", "1s"),
        ("delivery.breaker.open_initial", "500ms"),
        ("delivery.retry.initial", "500ms"),
    ])
    .await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    let worker = world.worker().await;
    let (status, refused) =
        worker.call("PATCH", &format!("/api/webhooks/{webhook}"), Some(json!({ "hold": true }))).await;
    assert_eq!((status, refused["error"].as_str().unwrap().starts_with("hold: is true")), (400, true), "{refused}");
    let cookie = worker.sign_in(TOKEN).await;
    let form = [("active", "false"), ("hold", "true")];
    let (status, _) = worker.send_form(&cookie, &format!("/settings/webhooks/{webhook}/active"), &form).await;
    assert_eq!(status, 303);
    world.emit(EventType::TaskCompleted, 20).await;
    eventually("deliveries are deferred", async || {
        let metrics = worker.page("/metrics").await?.1;
        let deferrals = metrics.lines().find(|line| line.starts_with("optio_webhooks_deferrals_total"))?;
        (deferrals.rsplit(' ').next()?.parse::<f64>().ok()? >= 40.0).then_some(())
    })
    .await;
    assert_eq!((world.receiver.count(), missed(&worker, webhook).await), (0, 0));
    set(&worker, webhook, json!({ "active": true })).await;
    world.receiver.arrived(20).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 20);
    assert!(world.dead_letters().is_empty());
    assert!(world.receiver.requests().iter().all(|request| request.attempt() == 1), "a hold spends no attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_paused_webhook_missed_does_not_arrive_by_itself_after_a_crash_and_the_command_sends_it() {
    let world = World::new().await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    let mut worker = world.worker().await;
    set(&worker, webhook, json!({ "active": false })).await;
    world.emit(EventType::TaskCompleted, 50).await;
    eventually("all are missed", async || (missed(&worker, webhook).await == 50).then_some(())).await;
    worker.kill();
    let admin = world.admin().await;
    set(&admin, webhook, json!({ "active": true })).await;
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.receiver.arrived(1).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 1, "what was missed is not sent by itself");
    let page = worker.page_as(&worker.sign_in(TOKEN).await, &format!("/settings/webhooks/{webhook}")).await.1;
    assert!(page.contains("It missed 50 events") && page.contains("Send what it missed"), "{page}");

    let id = webhook.to_string();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::worker::PROGRAM);
        command.args(["replay", "--missed", "--webhook", &id, "--json"]).args(arguments).envs(world.environment());
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let counted = run(&["--dry-run"]);
    assert_eq!(counted["replayed"], 50, "{counted}");
    let sent = run(&[]);
    assert_eq!(sent["replayed"], 50, "{sent}");
    world.receiver.arrived(51).await;
    world.settled().await;
    assert_eq!((world.receiver.deliveries().len(), missed(&worker, webhook).await), (51, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missed_after_another_run_has_sent_the_rest_stays() {
    let world = World::new().await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    let worker = world.worker().await;
    let pause = async |events: usize| {
        set(&worker, webhook, json!({ "active": false })).await;
        world.emit(EventType::TaskCompleted, events).await;
        eventually("all are missed", async || (missed(&worker, webhook).await == events as u64).then_some(())).await;
    };
    pause(20).await;
    let store = MissedEvents::new(world.redis.clone(), world.keys());
    // A run reads what there is, and another one sends it and ends before the first one does.
    let read = store.begin(webhook, optio_webhooks::clock::now_ms(), false).await.unwrap();
    store.clear(webhook, &read).await.unwrap();
    assert_eq!(missed(&worker, webhook).await, 0);
    set(&worker, webhook, json!({ "active": true })).await;
    pause(10).await;
    store.clear(webhook, &read).await.unwrap();
    assert_eq!(missed(&worker, webhook).await, 10, "these are not among those that were sent");
    let read = store.begin(webhook, optio_webhooks::clock::now_ms(), false).await.unwrap();
    world.emit(EventType::TaskCompleted, 5).await;
    eventually("more are missed", async || (missed(&worker, webhook).await == 15).then_some(())).await;
    store.clear(webhook, &read).await.unwrap();
    assert_eq!(missed(&worker, webhook).await, 5, "what is missed meanwhile stays");
}
