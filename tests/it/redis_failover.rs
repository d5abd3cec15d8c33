//! Redis with sentinels and Redis Cluster: another server takes over, and no delivery is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use optio_webhooks::event::EventType;
use serde_json::json;

use crate::harness::redis_nodes::{Cluster, Watched};
use crate::harness::{Reply, World, eventually};

/// A world whose Redis has these settings, with a webhook for completed tasks.
async fn world(settings: &[(&'static str, String)]) -> World {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let world = World::with(&[&settings[..], &[("redis.timeout", "500ms")]].concat()).await;
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_millis(5)));
    world
}

/// The ledger: each of `events` events has arrived, and at most `repeated` of them more than once.
async fn all_arrive(world: &World, events: usize, repeated: usize) {
    let deliveries = world.receiver.delivered(events).await;
    world.settled().await;
    let more_than_once = deliveries.values().filter(|count| **count > 1).count();
    assert!(more_than_once <= repeated, "{more_than_once} deliveries are repeated");
    assert!(world.dead_letters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_sentinels_loses_no_delivery() {
    let mut redis = Watched::start().await;
    let world = world(&redis.settings()).await;
    let mut worker = world.worker().await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    redis.servers[0].replicated(2).await;
    world.emit(EventType::TaskCompleted, 1_000).await;
    world.receiver.arrived(300).await;

    redis.servers[0].kill();
    world.emit(EventType::TaskCompleted, 1_000).await;
    let second = redis.master_after(redis.servers[0].port).await;
    worker.readiness(true).await;
    all_arrive(&world, 2_000, 0).await;

    // A master that hangs is replaced, too. When it goes on, it is the wrong server, and nothing counts that it says.
    let port = redis.servers[second].port;
    redis.servers[second].signal("STOP");
    world.emit(EventType::TaskCompleted, 1_000).await;
    let third = redis.master_after(port).await;
    worker.readiness(true).await;
    all_arrive(&world, 3_000, 0).await;
    redis.servers[second].signal("CONT");
    eventually("the old master becomes a replica", async || {
        redis.servers[second].ask(&["ROLE"]).starts_with("slave").then_some(())
    })
    .await;
    let (status, answer) =
        worker.call("PATCH", &format!("/api/webhooks/{webhook}"), Some(json!({"description": "after it"}))).await;
    assert_eq!(status, 200, "{answer}");
    let stored = redis.servers[third].ask(&["--raw", "HGET", &world.keys().webhooks(), &webhook.to_string()]);
    assert!(stored.contains("after it"), "the change is on the new master: {stored}");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_a_master_or_moves_the_keys_loses_no_delivery() {
    let mut redis = Cluster::start().await;
    let world = world(&redis.settings()).await;
    let mut worker = world.worker().await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    let prefix = world.keys().prefix().to_owned();
    let (owner, slot) = redis.owner(0, &prefix);
    world.emit(EventType::TaskCompleted, 1_000).await;
    world.receiver.arrived(300).await;

    // The keys move to another master under load.
    let target = (owner + 1) % 3;
    redis.migrate(&slot, owner, target).await;
    world.emit(EventType::TaskCompleted, 1_000).await;
    all_arrive(&world, 2_000, 0).await;
    assert_eq!(redis.owner(owner, &prefix).0, target);
    let recorded = world.of_last_day(&[webhook]).await[0].succeeded;
    assert_eq!(recorded, 2_000, "each attempt is recorded once while the keys move");

    // The master that has the keys dies, and its replica takes over.
    world.emit(EventType::TaskCompleted, 1_000).await;
    world.receiver.arrived(2_100).await;
    redis.nodes[target].replicated(1).await;
    redis.nodes[target].kill();
    world.emit(EventType::TaskCompleted, 1_000).await;
    let replica = eventually("the replica takes over", async || {
        let (now, _) = redis.owner(owner, &prefix);
        (now != target).then_some(now)
    })
    .await;
    worker.readiness(true).await;
    all_arrive(&world, 4_000, 0).await;
    let keys = redis.nodes[replica].ask(&["--raw", "KEYS", &format!("{prefix}*")]);
    let kinds: BTreeSet<&str> = keys.lines().filter_map(|key| key.strip_prefix(&prefix)?.split(':').next()).collect();
    assert!(["log", "webhooks", "settled-seq"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    assert!(worker.terminate().await.success());
}
