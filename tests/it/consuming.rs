//! Consumption: compression codecs, poison messages, back-pressure and consumer groups.

use std::time::Duration;

use optio_webhooks::event::EventType;
use optio_webhooks::kafka::clients;
use rdkafka::Message as _;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::harness::worker::Worker;
use crate::harness::world::header;
use crate::harness::{Reply, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn records_of_every_compression_codec_are_read() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let producer: FutureProducer =
            clients::producer(&world.config()).set("compression.type", codec).create().unwrap();
        let mut transition = World::transition(EventType::TaskCompleted);
        // The producer compresses a record only if that makes it smaller, so the title is long and repetitive.
        transition["task"]["title"] = codec.repeat(500).into();
        let value = transition.to_string();
        let topic = world.config().kafka.topic;
        let record = FutureRecord::<str, str>::to(&topic).payload(&value);
        producer.send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error).unwrap();
    }
    world.receiver.arrived(codecs.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_message_is_dead_lettered_and_the_partition_goes_on() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    let config = world.config();
    let producer: FutureProducer = clients::producer(&config).create().unwrap();
    let poison: &[u8] = b"\xff\x00 not json {";
    let headers = OwnedHeaders::new().insert(Header { key: "theirs", value: Some(b"\xfe".as_slice()) });
    let record =
        FutureRecord::to(&config.kafka.topic).partition(0).key(b"\xfdkey".as_slice()).payload(poison).headers(headers);
    let at = producer.send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error).unwrap();
    let mut huge = World::transition(EventType::TaskFailed);
    huge["task"]["title"] = "x".repeat(300_000).into();
    world.write("k", Some(huge.to_string().as_bytes())).await;
    world.write("k", Some(br#"{"taskId": 7, "toState": "completed", "task": {}}"#)).await;
    world.write("k", None).await;
    world.write("k", Some(br#"{"taskId": "t", "toState": "queued", "task": {"title": "x"}}"#)).await;
    world.write("k", Some(World::transition(EventType::TaskCompleted).to_string().as_bytes())).await;

    world.receiver.arrived(1).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 1);
    let dead = world.dead_letters();
    assert_eq!(dead.len(), 3, "{:?}", dead.iter().map(|dead| header(dead, "optio-dead-detail")).collect::<Vec<_>>());
    let at_offset =
        |offset: i64| dead.iter().find(|dead| header(dead, "optio-source-offset") == offset.to_string()).unwrap();
    let untouched = at_offset(at.offset);
    assert_eq!((untouched.key(), untouched.payload()), (Some(b"\xfdkey".as_slice()), Some(poison)));
    let theirs = {
        use rdkafka::message::Headers as _;
        untouched.headers().unwrap().iter().find(|header| header.key == "theirs").unwrap().value.unwrap().to_vec()
    };
    assert_eq!(theirs, b"\xfe");
    assert_eq!(header(untouched, "optio-dead-reason"), "malformed");
    assert_eq!(header(untouched, "optio-source-partition"), "0");
    assert!(!header(untouched, "optio-dead-detail").is_empty() && !header(untouched, "optio-dead-at").is_empty());
    assert_eq!(header(at_offset(at.offset + 1), "optio-dead-reason"), "too_large");
    assert!(header(at_offset(at.offset + 2), "optio-dead-detail").contains("taskId"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_endpoint_pauses_consumption_without_leaving_the_group() {
    let mut world =
        World::with(&[("worker.in_flight_max", "4"), ("kafka.properties.max_poll_interval_ms", "6000")]).await;
    world.set("delivery.timeout", "20s");
    world.webhook("/", &EventType::TASKS).await;
    // Each delivery keeps its permit for longer than `max.poll.interval.ms`.
    world.receiver.answer(|_| Reply::status(200).after(Duration::from_secs(8)));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 500).await;
    world.receiver.arrived(8).await;
    assert!(world.receiver.count() <= 8, "no more than worker.in_flight_max at once, in two rounds");
    world.receiver.answer(|_| Reply::status(200));
    let deliveries = world.receiver.delivered(500).await;
    assert!(deliveries.values().all(|count| *count == 1));
    assert!(worker.terminate().await.success());
    assert_eq!(
        worker.log().matches("partition assigned").count(),
        2 + 8,
        "each partition is assigned once: 2 of events, 6 of three tiers, 2 of replays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_group_protocol_and_static_membership_can_be_configured() {
    for (key, value) in
        [("kafka.properties.group_protocol", "consumer"), ("kafka.properties.group_instance_id", "worker-1")]
    {
        let mut settings = vec![(key, value)];
        if value == "consumer" {
            settings.push(("kafka.properties.session_timeout_ms", "-"));
        }
        let world = World::with(&settings).await;
        world.webhook("/", &EventType::TASKS).await;
        world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
        let mut worker = world.worker().await;
        world.emit(EventType::TaskCompleted, 20).await;
        world.receiver.arrived(40).await;
        assert!(worker.terminate().await.success());
        world.settled().await;
        assert_eq!(world.receiver.count(), 40);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_members_have_every_partition_is_left_alone() {
    for protocol in ["classic", "consumer"] {
        let mut settings = vec![("kafka.properties.group_protocol", protocol), ("kafka.stall_after", "1s")];
        if protocol == "consumer" {
            settings.push(("kafka.properties.session_timeout_ms", "-"));
        }
        let world = World::with(&settings).await;
        let mut environment = world.environment();
        environment.push(("RUST_LOG".to_owned(), "optio_webhooks=debug".to_owned()));
        let mut worker = Worker::start(&environment);
        worker.readiness(true).await;
        eventually("both groups are looked at several times", async || {
            (worker.log().matches("looked for partitions without a member").count() >= 12).then_some(())
        })
        .await;
        assert!(!worker.log().contains("so it is replaced"), "{}", worker.log());
        assert!(worker.terminate().await.success());
    }
}
