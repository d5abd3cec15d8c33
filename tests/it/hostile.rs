//! The whole program under a mix of good and odd records and endpoints.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use optio_webhooks::event::EventType;
use rdkafka::Message as _;
use uuid::Uuid;

use crate::harness::world::{Raw, header};
use crate::harness::{Reply, World, eventually};

/// Good events, and of these every twentieth with an odd record beside it.
const GOOD: usize = 4_000;

/// An odd record of each kind in turn; whether it leads to a delivery, to a dead letter, or to nothing.
fn odd(number: usize) -> (Raw<'static>, Outcome) {
    let value = |value: &'static [u8]| Raw { value: Some(value), ..Raw::default() };
    let leak = |text: String| -> &'static [u8] { Box::leak(text.into_bytes().into_boxed_slice()) };
    let transition = || World::transition(EventType::TaskCompleted).to_string();
    match number % 14 {
        0 => {
            let headers = vec![(b"\xff".to_vec(), Some(b"x".to_vec()))];
            (Raw { headers, ..value(leak(transition())) }, Outcome::Delivered)
        }
        1 => (value(b"\xff\x00 not json {"), Outcome::Dead),
        2 => (value(br#"["e","t","completed",null,{}]"#), Outcome::Dead),
        3 => (value(br#"{"taskId":7,"toState":"completed"}"#), Outcome::Dead),
        4 => (value(br#"{"toState":"running","taskId":{}}"#), Outcome::Nothing),
        5 => (Raw::default(), Outcome::Nothing),
        6 => (
            value(leak(format!(
                r#"{{"taskId":"deep","toState":"failed","x":{}1{}}}"#,
                "[".repeat(500),
                "]".repeat(500)
            ))),
            Outcome::Dead,
        ),
        7 => (
            value(leak(format!(
                r#"{{"taskId":"t{number}","toState":"completed","task":{{"title":"{}"}}}}"#,
                "y".repeat(400_000)
            ))),
            Outcome::Dead,
        ),
        8 => (
            value(leak(format!(
                r#"{{"taskId":"t{number}","toState":"completed","task":{{"title":"x\ud83d","costUsd":1e999}}}}"#
            ))),
            Outcome::Delivered,
        ),
        9 => (Raw { timestamp_ms: Some(1), ..value(leak(transition())) }, Outcome::Delivered),
        10 => {
            let headers = vec![(b"traceparent".to_vec(), Some(b"\r\nx: y".to_vec())), (b"k".to_vec(), None)];
            (Raw { headers, ..value(leak(transition())) }, Outcome::Delivered)
        }
        11 => (value(b""), Outcome::Dead),
        12 => (value(leak(format!("\u{feff}{}", transition()))), Outcome::Delivered),
        _ => {
            let headers = vec![(b"big".to_vec(), Some(vec![b'z'; 200_000]))];
            (Raw { headers, ..value(b"{") }, Outcome::Dead)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Dead,
    Nothing,
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_hostile_mix_every_good_event_arrives_once_and_every_odd_one_is_accounted_for() {
    let world = World::with(&[("topics.partitions", "4"), ("delivery.timeout", "2s")]).await;
    world.webhook("/", &EventType::ALL).await;
    // Odd endpoints beside it: one that is silent, one that fails, one that asks for absurd waits.
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
            let (record, outcome) = odd(batch * 10 + number);
            world.write_to(names.events(), record).await;
            if outcome != Outcome::Nothing {
                *expected.entry(outcome == Outcome::Delivered).or_default() += 1;
            }
        }
        // Odd records of the retry tiers: one that is none, and one for a webhook that doesn't exist.
        world.write_to(&names.retry(1), Raw { value: Some(b"poison"), ..Raw::default() }).await;
        *expected.entry(false).or_default() += 1;
        let headers = World::retry_headers(optio_webhooks::webhook::WebhookId(Uuid::now_v7()), "none");
        world.write_to(&names.retry(1), Raw { value: Some(b"{}"), headers, ..Raw::default() }).await;
    }
    let arrivals = GOOD + GOOD / 200 * 2 + expected[&true];
    eventually("all good events", async || {
        let requests = world.receiver.requests();
        let main: HashSet<String> =
            requests.iter().filter(|request| request.path == "/").map(|request| request.delivery()).collect();
        (main.len() >= arrivals).then_some(())
    })
    .await;
    let malformed = eventually("all odd ones are dead letters", async || {
        let dead = world.dead_letters();
        let odd = dead.iter().filter(|dead| header(dead, "optio-dead-reason") != "exhausted").count();
        (odd >= expected[&false]).then_some(odd)
    })
    .await;
    let main = world.receiver.requests().into_iter().filter(|request| request.path == "/").count();
    assert_eq!((main, malformed), (arrivals, expected[&false]), "each once");
    assert!(world.dead_letters().iter().all(|dead| dead.headers().is_some()));
    assert_eq!(worker.log().matches("panicked").count(), 0, "{}", worker.log());
    worker.readiness(true).await;
    assert!(worker.terminate().await.success(), "the process lives until it is asked to end");
}
