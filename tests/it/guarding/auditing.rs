//! What happens to changes while Redis doesn't take entries of the audit log.

use std::process::Command;

use optio_webhooks::event::EventType;
use serde_json::json;

use crate::harness::World;
use crate::harness::service::Service;
use crate::harness::worker::PROGRAM;
use crate::harness::world::TOKEN;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_audit_entry_is_refused_is_not_made() {
    let redis = Service::redis();
    let world = World::with(&[("redis.url", &redis.address)]).await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    let worker = world.admin().await;
    let cookie = worker.sign_in(TOKEN).await;
    let redis = async |arguments: &[&str]| {
        let mut command = redis::cmd(arguments[0]);
        let () = command.arg(&arguments[1..]).query_async(&mut world.redis.clone()).await.unwrap();
    };
    let before = world.store().get(webhook).await.unwrap();
    let path = format!("/api/webhooks/{webhook}");
    redis(&["ACL", "SETUSER", "default", "-xadd"]).await;
    let draft = json!({ "url": world.receiver.url("/other"), "events": ["task.failed"] });
    for (method, path, body) in [
        ("POST", "/api/webhooks", Some(draft)),
        ("PATCH", &path, Some(json!({ "description": "changed" }))),
        ("POST", &format!("{path}/rotate-secret"), None),
        ("DELETE", &path, None),
    ] {
        let (status, problem) = worker.call(method, path, body).await;
        let sentence = problem["error"].as_str().unwrap();
        assert!(status == 503 && sentence.contains("nothing was changed"), "{method} {path}: {status} {sentence}");
        assert!(sentence.contains("the entry in the audit log: "), "{sentence}");
    }
    let mut command = Command::new(PROGRAM);
    command.args(["webhooks", "remove", &webhook.to_string()]).envs(world.environment());
    let removal = tokio::task::block_in_place(|| command.output().unwrap());
    let stderr = String::from_utf8_lossy(&removal.stderr).into_owned();
    assert!(removal.status.code() == Some(1) && stderr.contains("nothing was changed"), "{stderr}");
    let (_, all) = world.store().all().await.unwrap();
    assert_eq!((all.len(), Some(&all[0])), (1, before.as_ref()));
    // What can't be undone is done without its entry.
    assert_eq!(worker.send_form(&cookie, "/sign-out", &[]).await.0, 303);
    let (_, metrics) = worker.page("/metrics").await.unwrap();
    assert!(metrics.contains("optio_webhooks_audit_missing_total 5"), "{metrics}");
    assert_eq!(worker.log().matches("the audit log doesn't take entries").count(), 1, "one line a minute");
    // The person reads that Redis refuses something, and not that it is away.
    let (status, page) = worker.try_sign_in(TOKEN).await;
    assert!(status == 503 && page.contains("Redis refuses what a sign-in writes"), "{status} {page}");

    // An entry of a change that fails is removed again.
    redis(&["ACL", "SETUSER", "default", "+@all"]).await;
    let version = world.keys().webhooks_version();
    redis(&["SET", &version, "not a number"]).await;
    let entries = async || {
        let mut command = redis::cmd("XLEN");
        let count: u64 = command.arg(world.keys().audit()).query_async(&mut world.redis.clone()).await.unwrap();
        count
    };
    let count = entries().await;
    let (status, _) = worker.call("PATCH", &path, Some(json!({ "description": "changed" }))).await;
    assert_eq!((status, entries().await), (503, count));
    redis(&["SET", &version, "7"]).await;
    assert_eq!(worker.call("PATCH", &path, Some(json!({ "description": "changed" }))).await.0, 200);
    assert_eq!(entries().await, count + 1);
}
