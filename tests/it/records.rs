//! Unexpected records: each one is delivered or dead-lettered, and consumption continues.

use std::collections::HashSet;

use optio_webhooks::event::EventType;
use optio_webhooks::kafka::headers;
use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;

use crate::harness::world::{Raw, header};
use crate::harness::{Reply, World, eventually};

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A header whose key isn't UTF-8.
fn odd_header() -> Headers {
    vec![(b"\xff".to_vec(), Some(b"\xfe".to_vec()))]
}

fn has_odd_header(record: &OwnedMessage) -> bool {
    let all = record.headers().map(rdkafka::message::OwnedHeaders::as_borrowed);
    headers::all(all).any(|header| header.key == b"\xff" && header.value == Some(b"\xfe"))
}

/// Random text that a codec can hardly compress.
fn incompressible(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rand::random_range(b'#'..=b'[')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_key_that_is_not_utf_8_stops_no_worker_and_no_replay() {
    let world = World::new().await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    let (names, good) = (world.names(), World::transition(EventType::TaskCompleted).to_string());
    let record = |value, headers| Raw { value: Some(value), headers, ..Raw::default() };
    world.write_to(names.events(), record(good.as_bytes(), odd_header())).await;
    world.write_to(names.events(), record(b"poison", odd_header())).await;
    let retry = [odd_header(), World::retry_headers(webhook, "e1"), odd_header()].concat();
    world.write_to(&names.retry(1), record(b"{}", retry)).await;
    world.write_to(&names.retry(1), record(b"poison", odd_header())).await;
    world.write_to(&names.replays(), record(b"poison", odd_header())).await;
    world.receiver.delivered(2).await;
    let dead = world.dead_lettered(3).await;
    assert!(dead.iter().all(has_odd_header), "dead letters keep the header");
    world.settled().await;

    // The readers of dead letters accept them too: the API, and a replay that hands them to the decoder again.
    let (status, page) = worker.call("GET", "/api/dead-letters", None).await;
    assert_eq!((status, page["deadLetters"].as_array().unwrap().len()), (200, 3));
    let request = serde_json::json!({ "reason": "malformed", "all": true });
    let (status, answer) = worker.call("POST", "/api/dead-letters/replay", Some(request)).await;
    assert_eq!(status, 202, "{answer}");
    let dead = world.dead_lettered(6).await;
    assert!(dead.iter().all(has_odd_header), "a replay keeps the header");
    world.settled().await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_an_impossible_timestamp_is_delivered_and_reported() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let names = world.names();
    world.alter(names.events(), &[("message.timestamp.after.max.ms", "9223372036854775807")]).await;
    world.receiver.answer(|_| Reply::status(200).after(std::time::Duration::from_secs(2)));
    let mut worker = world.worker().await;
    let times = [1_742_983_954_000_000, i64::MAX, 253_402_300_800_000, 0, 1];
    for timestamp_ms in times {
        let value = World::transition(EventType::TaskCompleted).to_string();
        let raw = Raw { value: Some(value.as_bytes()), timestamp_ms: Some(timestamp_ms), ..Raw::default() };
        world.write_to(names.events(), raw).await;
    }
    // The report contains the timestamps while the records block the watermark.
    eventually("the status shows the latest possible time", async || {
        let (status, report) = worker.call("GET", "/api/status", None).await;
        (status == 200 && report.to_string().contains("9999-12-31")).then_some(())
    })
    .await;
    world.receiver.delivered(times.len()).await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_missing_or_odd_fields_is_still_delivered() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let worker = world.worker().await;
    for value in [
        &br#"{"taskId":"bare","toState":"completed"}"#[..],
        b"\xef\xbb\xbf{\"taskId\":\"marked\",\"toState\":\"completed\"}",
        br#"{"taskId":"cut","toState":"completed","task":{"title":"x\ud83d"}}"#,
        br#"{"taskId":"typed","toState":"completed","task":{"costUsd":0.84,"prNumber":"142","title":["no"]}}"#,
        br#"{"taskId":"first","taskId":"twice","toState":"completed"}"#,
        br#"{"toState":"running"}"#,
        br#"["e","array","completed",null,{"title":"x"}]"#,
    ] {
        world.write("k", Some(value)).await;
    }
    let requests = world.receiver.arrived(5).await;
    let dead = world.dead_lettered(1).await;
    world.settled().await;
    let body = |task: &str| requests.iter().map(|request| request.json()).find(|body| body["taskId"] == task).unwrap();
    assert!(body("bare")["task"]["title"].is_null() && body("marked")["event"] == "task.completed");
    assert_eq!(body("cut")["task"]["title"], "x\u{fffd}");
    assert_eq!((&body("typed")["task"]["costUsd"], &body("typed")["task"]["prNumber"]), (&"0.84".into(), &142.into()));
    assert_eq!(body("twice")["task"]["id"], "twice");
    assert_eq!((dead.len(), world.receiver.count()), (1, 5), "only the array is malformed");
    let metrics = worker.page("/metrics").await.unwrap().1;
    assert!(metrics.contains(r#"optio_webhooks_fields_not_understood_total{field="task.title"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"optio_webhooks_events_total{type="other_state"} 1"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_retry_records_are_delivered_or_dead_lettered() {
    // A record with a due time far in the future waits only as long as its tier allows.
    let world = World::with(&[("delivery.retry_after_max", "1s"), ("delivery.retry.max", "1s")]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    let mut written = 0;
    let year_2040 = "2224454400000";
    let (huge, long) = ("x".repeat(1 << 19), "x".repeat(2_000));
    let odd: Vec<(&str, Option<&str>)> = vec![
        ("optio-attempts", Some("4294967295")),
        ("optio-attempts", Some("4294967296")),
        ("optio-attempts", Some("-1")),
        ("optio-deferrals", Some("4294967295")),
        ("optio-replays", Some("4294967295")),
        ("optio-due-at", Some("-9223372036854775808")),
        ("optio-due-at", Some("9223372036854775807")),
        ("optio-due-at", Some(year_2040)),
        ("optio-due-at", Some("")),
        ("optio-due-at", None),
        ("optio-first-seen-at", Some("-9223372036854775808")),
        ("optio-first-seen-at", Some("9223372036854775807")),
        ("optio-first-seen-at", Some(year_2040)),
        ("optio-source-offset", Some("-9223372036854775808")),
        ("optio-source-partition", Some("2147483648")),
        ("optio-source-topic", Some(&long)),
        ("optio-event-id", Some(&huge)),
        ("optio-event-id", Some("")),
        ("optio-task-id", Some(&huge)),
        ("optio-event", Some("task.exploded")),
        ("optio-delivery-id", Some("none")),
        ("optio-webhook-id", None),
        ("optio-last-error", Some("none of ours")),
        ("optio-last-status", Some("99999")),
        ("traceparent", Some("a\r\nb: c")),
        ("optio-unknown", Some(&huge)),
        ("optio-replay-unread", Some("true")),
    ];
    for topic in [world.names().retry(1), world.names().replays()] {
        for (name, value) in &odd {
            for is_doubled in [true, false] {
                let mut headers = World::retry_headers(webhook, &format!("e{written}"));
                if !is_doubled {
                    headers.retain(|(key, _)| key != name.as_bytes());
                }
                headers.push((name.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec())));
                let raw = Raw { value: Some(b"{}"), headers, ..Raw::default() };
                world.write_to(&topic, raw).await;
                written += 1;
            }
        }
        for missing in 0..11 {
            let mut headers = World::retry_headers(webhook, &format!("e{written}"));
            headers.remove(missing);
            world.write_to(&topic, Raw { value: Some(b"{}"), headers, ..Raw::default() }).await;
            written += 1;
        }
        for value in [None, Some(&b""[..])] {
            let headers = World::retry_headers(webhook, &format!("e{written}"));
            world.write_to(&topic, Raw { value, headers, ..Raw::default() }).await;
            written += 1;
        }
    }
    world.settled().await;
    let (delivered, dead) = (world.receiver.count(), world.dead_letters().len());
    assert_eq!(delivered + dead, written, "{delivered} delivered, {dead} dead letters");
    assert!(delivered > 30 && dead > 50, "{delivered} delivered, {dead} dead letters");
    assert!(world.dead_letters().iter().all(|dead| header(dead, "optio-dead-detail").chars().count() <= 300));
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_too_large_for_its_topic_is_shortened() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    world.alter(&world.names().dead_letters(), &[("max.message.bytes", "6000")]).await;
    let long = incompressible(300_000);
    let value = Raw { key: Some(b"k"), value: Some(&long), headers: odd_header(), ..Raw::default() };
    let offset = world.write_to(world.names().events(), value).await;
    let headers = vec![(b"theirs".to_vec(), Some(incompressible(50_000)))];
    world.write_to(world.names().events(), Raw { value: Some(b"poison"), headers, ..Raw::default() }).await;
    let dead = world.dead_lettered(2).await;
    world.settled().await;
    let shortened = dead.iter().find(|dead| header(dead, "optio-shortened-from") == "300000").unwrap();
    assert_eq!((shortened.payload().unwrap().len(), shortened.key()), (4_096, Some(&b"k"[..])));
    assert!(has_odd_header(shortened) && header(shortened, "optio-source-offset") == offset.to_string());
    let detail = header(shortened, "optio-dead-detail");
    assert!(detail.contains(&format!("the original is at {}/0/{offset}", world.names().events())), "{detail}");
    assert!(
        dead.iter().any(|dead| header(dead, "optio-shortened-from") == "6"),
        "the headers of this record were too large"
    );
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_too_large_for_its_topic_becomes_a_dead_letter() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(500));
    let mut worker = world.worker().await;
    world.alter(&world.names().retry(1), &[("max.message.bytes", "5000")]).await;
    let mut large = World::transition(EventType::TaskCompleted);
    large["task"]["title"] = String::from_utf8(incompressible(20_000)).unwrap().into();
    world.write("k", Some(large.to_string().as_bytes())).await;
    world.emit(EventType::TaskCompleted, 20).await;
    let dead = world.dead_lettered(21).await;
    world.settled().await;
    let reasons: Vec<String> = dead.iter().map(|dead| header(dead, "optio-dead-reason")).collect();
    assert_eq!(
        reasons.iter().filter(|reason| *reason == "too_large").count(),
        1,
        "only the large one is not retried: {reasons:?}"
    );
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_written_blocks_only_its_own_offsets() {
    let world = World::with(&[("worker.in_flight_max", "40"), ("delivery.attempts_max", "3")]).await;
    world.webhook("/dead", &[EventType::TaskFailed]).await;
    world.webhook("/fine", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|request| {
        let fails = request.path == "/dead" || request.attempt() == 1;
        Reply::status(if fails { 500 } else { 200 })
    });
    let mut worker = world.worker().await;
    let dead_letters = world.names().dead_letters();
    world.delete(&dead_letters).await;
    // Together these are more than there are permits: records to dead-letter at once, and failing deliveries.
    for _ in 0..20 {
        world.write("k", Some(b"poison")).await;
    }
    world.emit(EventType::TaskFailed, 60).await;
    eventually("/readyz names the topic", async || {
        let (status, page) = worker.page("/readyz").await?;
        (status == 503 && page.contains(&dead_letters)).then_some(())
    })
    .await;
    world.emit(EventType::TaskCompleted, 200).await;
    let fine = async || {
        let requests = world.receiver.requests();
        let fine: HashSet<String> = requests
            .iter()
            .filter(|request| request.path == "/fine" && request.attempt() == 2)
            .map(|request| request.delivery())
            .collect();
        (fine.len() == 200).then_some(())
    };
    eventually("all retries of the other webhook arrive", fine).await;
    world.recreate_topics(1).await;
    world.dead_lettered(80).await;
    world.settled().await;
    worker.readiness(true).await;
    assert_eq!(world.dead_letters().len(), 80, "each dead letter is written once");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_check_refuses_a_topic_too_small_for_the_largest_record() {
    let world = World::new().await;
    let (tier, dead_letters) = (world.names().retry(2), world.names().dead_letters());
    for topic in [&tier, &dead_letters] {
        world.alter(topic, &[("max.message.bytes", "20000"), ("retention.ms", "-1")]).await;
    }
    let output = tokio::process::Command::new(crate::harness::worker::PROGRAM)
        .args(["topics", "check"])
        .envs(world.environment())
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{errors}");
    for topic in [&tier, &dead_letters] {
        assert!(errors.contains(&format!("topic {topic}: max.message.bytes = 20000 can't hold")), "{errors}");
    }
    let mut worker = world.worker().await;
    assert!(worker.log().contains("shortened"), "the worker starts with a warning, because nothing is lost");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_above_events_bytes_max_are_dead_lettered_from_every_topic_without_echoing_their_values() {
    let world = World::with(&[("events.bytes_max", "3000"), ("delivery.payload_max", "2000")]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    let names = world.names();
    let large = format!(r#"{{"taskId":"t","toState":"failed","x":"{}"}}"#, "hunter2".repeat(500));
    let record = |headers| Raw { value: Some(large.as_bytes()), headers, ..Raw::default() };
    let own: Headers = vec![
        (b"optio-replays".to_vec(), Some(b"7".to_vec())),
        (b"optio-shortened-from".to_vec(), Some(b"1".to_vec())),
        (b"optio-dead-detail".to_vec(), Some(b"hunter2".repeat(500))),
    ];
    world.write_to(names.events(), record(own.clone())).await;
    world.write_to(&names.retry(1), record(World::retry_headers(webhook, "e1"))).await;
    world.write_to(&names.replays(), record(World::retry_headers(webhook, "e2"))).await;
    // The name of the topic comes from outside as well.
    let mut long_topic = World::retry_headers(webhook, "e3");
    long_topic.push((b"optio-source-topic".to_vec(), Some(b"hunter2".repeat(140))));
    world.write_to(&names.retry(1), Raw { value: Some(b"{}"), headers: long_topic, ..Raw::default() }).await;
    let dead = world.dead_lettered(3).await;
    for letter in &dead {
        assert_eq!(
            (header(letter, "optio-dead-reason"), letter.payload()),
            ("too_large".to_owned(), Some(large.as_bytes()))
        );
        let detail = header(letter, "optio-dead-detail");
        assert!(detail.contains("3000 are allowed (events.bytes_max)"), "{detail}");
    }
    world.receiver.delivered(1).await;

    // The producer's headers with our names say nothing about the dead letter, so that it is shown and replayed as any
    // other.
    let (status, page) = worker.call("GET", "/api/dead-letters", None).await;
    assert_eq!(status, 200);
    assert!(page["deadLetters"].as_array().unwrap().iter().all(|letter| letter["replays"] == 0), "{page}");
    let request = serde_json::json!({ "reason": "too_large", "all": true });
    let (status, answer) = worker.call("POST", "/api/dead-letters/replay", Some(request)).await;
    assert_eq!(status, 202, "{answer}");
    let dead = world.dead_lettered(6).await;
    let kept = dead.iter().filter(|letter| {
        let all = letter.headers().map(rdkafka::message::OwnedHeaders::as_borrowed);
        own.iter().all(|(key, value)| headers::all(all).any(|is| is.key == key && is.value == value.as_deref()))
    });
    assert_eq!(kept.count(), 2, "the record keeps its own headers, also after the replay");
    assert!(!worker.log().contains(&"hunter2".repeat(10)), "{}", worker.log());
    assert!(worker.terminate().await.success());
}
