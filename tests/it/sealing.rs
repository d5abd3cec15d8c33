//! Secrets at rest: sealed in Redis, and opened by the workers that have the key.

use optio_webhooks::event::EventType;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use crate::harness::world::{SEALING_KEY, SECRET, shared_signature};
use crate::harness::{World, eventually};

/// A second key. Its base64 is the one of 32 zeros.
const NEW_KEY: &str = "new:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

async fn stored(world: &World) -> Vec<String> {
    let mut redis = world.redis.clone();
    redis.hvals(world.keys().webhooks()).await.unwrap()
}

fn run(world: &World, arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_optio-webhooks"))
        .args(arguments)
        .envs(world.environment())
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_takes_over_while_a_worker_with_both_keys_sends() {
    let mut world = World::new().await;
    world.set("secrets.keys", &format!("{NEW_KEY},{SEALING_KEY}"));
    let webhook = world.webhook("/hook", &[EventType::TaskCompleted]).await;
    let worker = world.worker().await;
    assert!(stored(&world).await[0].contains(r#""key":"tests""#) && !stored(&world).await[0].contains(SECRET));
    let (code, printed) = run(&world, &["secrets", "rotate"], &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("sealed with key \"new\": 1 webhooks"), "{printed}");
    assert!(stored(&world).await[0].contains(r#""key":"new""#));
    world.emit(EventType::TaskCompleted, 1).await;
    let request = world.receiver.arrived(1).await.remove(0);
    assert_eq!(request.header("x-optio-signature"), shared_signature(SECRET, &request.body));
    let (code, printed) = run(&world, &["secrets", "rotate"], &[]);
    assert!(code == Some(0) && printed.contains("0 webhooks; 1 needed nothing"), "{printed}");
    let path = format!("/api/webhooks/{webhook}/rotate-secret");
    let (status, rotated) = worker.call("POST", &path, Some(json!({ "signing": "ed25519" }))).await;
    assert_eq!((status, &rotated["generatedSecret"]), (200, &Value::Null), "a private key is never shown");
    assert!(rotated["webhook"]["publicKey"].as_str().unwrap().starts_with("whpk_"));
    let (_, printed) = run(&world, &["webhooks", "show", &webhook.to_string()], &[]);
    assert!(printed.contains("\npublic key: whpk_"), "{printed}");
    world.emit(EventType::TaskCompleted, 1).await;
    let request = world.receiver.arrived(2).await.remove(1);
    assert!(request.header("webhook-signature").starts_with("v1a,"));
    assert!(request.header("webhook-signature").contains(" v1,"), "the old secret signs until the overlap ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_deliveries_wait_and_a_new_secret_can_be_set() {
    let mut world = World::new().await;
    let webhook = world.webhook("/hook", &[EventType::TaskCompleted]).await;
    world.set("secrets.keys", NEW_KEY);
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    eventually("the webhook is reported", async || {
        let (_, ready) = worker.page("/readyz").await?;
        ready.contains("its secret can't be opened").then_some(())
    })
    .await;
    let (code, printed) = run(&world, &["secrets", "rotate"], &[]);
    assert!(code == Some(1) && printed.contains("is sealed with the key \"tests\""), "{printed}");
    let id = webhook.to_string();
    let (code, printed) = run(&world, &["webhooks", "update", &id, "--secret", "another long secret of tests"], &[]);
    assert_eq!(code, Some(0), "{printed}");
    let request = world.receiver.arrived(1).await.remove(0);
    assert_eq!(request.header("x-optio-signature"), shared_signature("another long secret of tests", &request.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_a_secret_is_refused_with_a_sentence() {
    let mut world = World::new().await;
    world.set("secrets.keys", "");
    let worker = world.worker().await;
    let draft = json!({ "url": world.receiver.url("/hook"), "events": ["task.completed"], "secret": SECRET });
    let (status, problem) = worker.call("POST", "/api/webhooks", Some(draft)).await;
    let sentence = problem["error"].as_str().unwrap();
    assert!(status == 400 && sentence.contains("secrets.keys") && !sentence.contains(SECRET), "{sentence}");
    assert!(stored(&world).await.is_empty());
    let unsigned = json!({ "url": world.receiver.url("/hook"), "events": ["task.completed"] });
    assert_eq!(worker.call("POST", "/api/webhooks", Some(unsigned)).await.0, 201);
}
