//! Operational events: owners of webhooks learn of disabled and failing webhooks and of dead letters.

use optio_webhooks::event::EventType;
use optio_webhooks::webhook::WebhookId;
use serde_json::{Value, json};

use crate::harness::world::TOKEN;
use crate::harness::{Reply, World, eventually};

/// The payloads of operational events that reached `path`.
fn told(world: &World, path: &str) -> Vec<Value> {
    let requests = world.receiver.requests();
    let operational = requests.iter().filter(|request| {
        let event = EventType::named(request.header("x-optio-event")).unwrap();
        request.path == path && event.is_operational()
    });
    operational.map(|request| request.json()).collect()
}

async fn told_of(world: &World, path: &str, event: &str, webhook: WebhookId) -> Value {
    eventually(&format!("{event} of {webhook} is told"), async || {
        let is_it = |told: &&Value| told["event"] == event && told["webhook"]["id"] == json!(webhook);
        told(world, path).iter().find(is_it).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_told_of_dead_letters_failure_and_recovery_and_never_about_the_webhook_itself() {
    let world = World::with(&[
        ("webhooks.failing_after", "1s"),
        ("admin.public_url", "https://hooks.example.com/base"),
        ("delivery.attempts_max", "3"),
        ("delivery.retry.max", "300ms"),
        ("delivery.breaker.attempts_min", "2"),
        ("delivery.breaker.open_initial", "5s"),
        ("delivery.breaker.open_max", "5s"),
    ])
    .await;
    let both = [&EventType::TASKS[..], &EventType::OPERATIONAL[..]].concat();
    let failing = world.webhook("/failing", &both).await;
    world.webhook("/owner", &EventType::OPERATIONAL).await;
    world.receiver.answer(|request| Reply::status(if request.path == "/failing" { 500 } else { 200 }));
    let workers = [world.worker().await, world.worker().await];
    world.emit(EventType::TaskFailed, 3).await;

    let died = told_of(&world, "/owner", "delivery.exhausted", failing).await;
    assert!(died["affected"].as_u64().is_some_and(|affected| (1..=3).contains(&affected)), "{died}");
    assert_eq!(died["webhook"]["host"], "127.0.0.1");
    assert_eq!(died["url"], format!("https://hooks.example.com/base/settings/webhooks/{failing}"));
    let told_failing = eventually("the webhook is told to fail", async || {
        world.emit(EventType::TaskFailed, 1).await;
        told(&world, "/owner").into_iter().find(|told| told["event"] == "webhook.failing")
    })
    .await;
    assert!(told_failing["reason"].as_str().unwrap().contains("without one success"), "{told_failing}");
    let cookie = workers[0].sign_in(TOKEN).await;
    let path = format!("/settings/webhooks/{failing}");
    let page = workers[0].page_as(&cookie, &path).await.1;
    assert!(page.contains("id=\"trouble\"") && page.contains("id=\"died\""), "{page}");

    // The endpoint works again, and a person sends a test event.
    world.receiver.answer(|_| Reply::status(200));
    assert_eq!(workers[0].call("POST", &format!("/api/webhooks/{failing}/test"), None).await.0, 200);
    told_of(&world, "/owner", "webhook.recovered", failing).await;
    assert!(!workers[0].page_as(&cookie, &path).await.1.contains("id=\"trouble\""));
    assert!(told(&world, "/failing").is_empty(), "no webhook is told about itself");
    let mut kinds: Vec<String> = told(&world, "/owner").iter().map(|told| told["event"].to_string()).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(told(&world, "/owner").len(), kinds.len(), "each kind is told once within the interval");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_told_of_a_disabled_webhook_in_the_format_of_each_recipient_and_across_a_crash() {
    let world = World::new().await;
    let gone = world.webhook("/gone", &EventType::TASKS).await;
    for format in ["optio", "optio-classic", "slack", "discord", "teams", "cloudevents"] {
        let mut owner = world.unsaved(&format!("/{format}"), &[EventType::WebhookDisabled]);
        owner.format = serde_json::from_value(json!(format)).unwrap();
        // A filter is about tasks, so it keeps no operational event away.
        owner.filter = serde_json::from_value(json!({ "field": "task.agentType", "equals": "x" })).unwrap();
        world.store().put(&owner).await.unwrap();
    }
    world.receiver.answer(|request| Reply::status(if request.path == "/gone" { 410 } else { 200 }));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskFailed, 1).await;
    eventually("the webhook is disabled", async || {
        (!world.store().get(gone).await.unwrap().unwrap().active).then_some(())
    })
    .await;
    // The notice follows from what Redis says, so a worker that dies right after the change loses nothing.
    worker.kill();
    let _worker = world.worker().await;
    let of = async |path: &str| {
        let path = path.to_owned();
        eventually(&format!("{path} is told"), async || {
            world.receiver.requests().into_iter().find(|request| request.path == path)
        })
        .await
    };
    let optio = of("/optio").await;
    assert_eq!(optio.header("x-optio-event"), "webhook.disabled");
    assert!(optio.json()["reason"].as_str().unwrap().contains("410 Gone"));
    assert_eq!(of("/optio-classic").await.json()["data"]["webhook"]["id"], json!(gone));
    assert!(of("/slack").await.json()["text"].as_str().unwrap().starts_with("Webhook disabled"));
    assert!(of("/discord").await.json()["embeds"][0]["title"].as_str().unwrap().contains("Webhook disabled"));
    assert!(of("/teams").await.json().to_string().contains("Webhook disabled"));
    assert_eq!(of("/cloudevents").await.json()["type"], "dev.optio.webhook.disabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_wrong_type_keep_no_owner_of_another_webhook_from_being_told() {
    let world = World::new().await;
    let keys = world.keys();
    let mut wrong = redis::pipe();
    let broken = world.webhook("/broken", &EventType::TASKS).await;
    // The log of a webhook is read once its owner was told of trouble.
    wrong.set(keys.log(broken), "of another type");
    wrong.hset(keys.notices(), broken.to_string(), json!({ "troubleSinceMs": 1 }).to_string());
    for key in [keys.failing(), keys.backing_off(), keys.died()] {
        wrong.set(key, "of another type");
    }
    wrong.exec_async(&mut world.redis.clone()).await.unwrap();
    let gone = world.webhook("/gone", &EventType::TASKS).await;
    world.webhook("/owner", &EventType::OPERATIONAL).await;
    world.receiver.answer(|request| Reply::status(if request.path == "/gone" { 410 } else { 200 }));
    let worker = world.worker().await;
    world.emit(EventType::TaskFailed, 1).await;
    told_of(&world, "/owner", "webhook.disabled", gone).await;
    eventually("a warning says what can't be read", async || {
        let page = worker.page("/readyz").await?.1;
        (page.contains("operational events") && page.contains("WRONGTYPE")).then_some(())
    })
    .await;
}
