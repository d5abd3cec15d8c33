//! The whole program under a mix of good and malformed records, and of good and faulty endpoints.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use optio_webhooks::event::EventType;
use rdkafka::Message as _;
use uuid::Uuid;

use crate::harness::odd::{Effect, odd_record};
use crate::harness::world::{Raw, header};
use crate::harness::{Reply, World, eventually};

/// The number of good events. There is one odd record for every twenty of them.
const GOOD: usize = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn under_a_hostile_mix_no_event_is_lost_or_delivered_twice() {
    let world = World::with(&[("topics.partitions", "4"), ("delivery.timeout", "2s")]).await;
    world.webhook("/", &EventType::TASKS).await;
    // Faulty endpoints beside the good one: one never answers, one fails, one sends an absurd `Retry-After`.
    for path in ["/silent", "/failing", "/later"] {
        world.webhook(path, &[EventType::TaskNeedsAttention]).await;
    }
    world.receiver.answer(|request| match request.path.as_str() {
        "/silent" => Reply::status(200).after(Duration::from_secs(600)),
        "/failing" => Reply::status(500),
        "/later" => Reply::status(503).header("retry-after", "99999999999999999999"),
        _ => Reply::status(200),
    });
    let mut worker = world.worker().await;
    let names = world.names();
    let mut expected: HashMap<bool, usize> = HashMap::new();
    for batch in 0..GOOD / 200 {
        world.emit(EventType::TaskCompleted, 200).await;
        world.emit(EventType::TaskNeedsAttention, 2).await;
        for number in 0..10 {
            let (record, effect) = odd_record(batch * 10 + number);
            world.write_to(names.events(), record).await;
            if effect != Effect::Nothing {
                *expected.entry(effect == Effect::Delivery).or_default() += 1;
            }
        }
        // Odd records in a retry tier: one that is no retry record, and one for a webhook that doesn't exist.
        world.write_to(&names.retry(1), Raw { value: Some(b"poison"), ..Raw::default() }).await;
        *expected.entry(false).or_default() += 1;
        let headers = World::retry_headers(optio_webhooks::webhook::WebhookId(Uuid::now_v7()), "none");
        world.write_to(&names.retry(1), Raw { value: Some(b"{}"), headers, ..Raw::default() }).await;
    }
    let arrivals = GOOD + GOOD / 200 * 2 + expected[&true];
    eventually("all good events are delivered", async || {
        let requests = world.receiver.requests();
        let main: HashSet<String> =
            requests.iter().filter(|request| request.path == "/").map(|request| request.delivery()).collect();
        (main.len() >= arrivals).then_some(())
    })
    .await;
    let malformed = eventually("all malformed records are dead letters", async || {
        let dead = world.dead_letters();
        let odd = dead.iter().filter(|dead| header(dead, "optio-dead-reason") != "exhausted").count();
        (odd >= expected[&false]).then_some(odd)
    })
    .await;
    let main = world.receiver.requests().into_iter().filter(|request| request.path == "/").count();
    assert_eq!((main, malformed), (arrivals, expected[&false]), "each exactly once");
    assert!(world.dead_letters().iter().all(|dead| dead.headers().is_some()));
    assert_eq!(worker.log().matches("panicked").count(), 0, "{}", worker.log());
    worker.readiness(true).await;
    assert!(worker.terminate().await.success(), "the worker survives until it is asked to stop");
}
