//! Partial failures of Kafka: a worker removed from its group, refused requests, a producer with a fatal error.

use std::collections::HashSet;
use std::time::Duration;

use optio_webhooks::event::EventType;
use optio_webhooks::kafka::{admin, clients};
use optio_webhooks::topics::{MESSAGE_MAX, needed};
use rdkafka::admin::AdminClient;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::harness::service::Service;
use crate::harness::worker::Worker;
use crate::harness::{Reply, World, acl, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stood_still_repeats_at_most_in_flight_max_attempts() {
    let in_flight_max = 60;
    let world = World::with(&[("worker.in_flight_max", "60"), ("topics.partitions", "4")]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|request| {
        let fails = request.attempt() == 1 && request.body.len() % 2 == 0;
        Reply::status(if fails { 500 } else { 200 }).after(Duration::from_millis(100))
    });
    let mut frozen = world.worker().await;
    world.emit(EventType::TaskCompleted, 3_000).await;
    world.receiver.arrived(300).await;
    frozen.signal("-STOP");
    let mut other = world.worker().await;
    // The group assigns all partitions to the other worker after the session timeout of 6 s.
    let before = world.receiver.count();
    world.receiver.arrived(before + 500).await;
    frozen.signal("-CONT");
    world.receiver.delivered(3_000).await;
    world.settled().await;
    assert!(frozen.log().contains("stood still"), "the worker has noticed the standstill");
    let mut seen = HashSet::new();
    let repeated = world
        .receiver
        .requests()
        .into_iter()
        .filter(|request| !seen.insert((request.delivery(), request.attempt())))
        .count();
    assert!(repeated <= in_flight_max, "{repeated} attempts were repeated");
    assert!(world.dead_letters().is_empty());
    frozen.readiness(true).await;
    assert!(frozen.terminate().await.success(), "the worker has rejoined the group");
    assert!(other.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_standstill_its_group_did_not_notice_reads_every_partition_again() {
    let world = World::with(&[("topics.partitions", "4")]).await;
    world.webhook("/", &EventType::TASKS).await;
    // Each delivery goes through a retry topic, so both consumers are needed.
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 20).await;
    world.receiver.arrived(40).await;
    // Longer than a heartbeat may be late, and shorter than the session of 6 s.
    worker.signal("-STOP");
    tokio::time::sleep(Duration::from_secs(4)).await;
    worker.signal("-CONT");
    eventually("both consumers are replaced", async || {
        (worker.log().matches("given up after a standstill, so it is replaced").count() == 2).then_some(())
    })
    .await;
    world.emit(EventType::TaskCompleted, 200).await;
    world.receiver.arrived(440).await;
    world.settled().await;
    assert_eq!(world.receiver.count(), 440, "nothing was in flight, so nothing is repeated");
    assert!(worker.terminate().await.success());
}

/// Starts a worker on librdkafka's mock broker, whose answers can be made to fail.
async fn worker_on_mock(
    world: &mut World,
    mock: &MockCluster<'static, impl rdkafka::producer::ProducerContext>,
) -> Worker {
    for topic in needed(&world.config(), MESSAGE_MAX) {
        mock.create_topic(&topic.name, 1, 1).unwrap();
    }
    world.set("kafka.brokers", &mock.bootstrap_servers());
    world.set("topics.create", "false");
    let mut worker = Worker::start(&world.environment());
    worker.readiness(true).await;
    worker
}

async fn emit_to_mock(world: &World, count: usize) {
    let config = world.config();
    let producer: FutureProducer =
        clients::producer(&config).set("enable.idempotence", "false").set("partitioner", "random").create().unwrap();
    for _ in 0..count {
        let value = World::transition(EventType::TaskCompleted).to_string();
        let record = FutureRecord::<str, str>::to(&config.kafka.topic).payload(&value);
        producer.send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_of_the_producer_leads_to_a_new_one() {
    let mock = MockCluster::new(1).unwrap();
    let mut world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    // Each producer sends this request when it starts.
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    mock.request_errors(RDKafkaApiKey::InitProducerId, &[refused; 4]);
    let mut worker = worker_on_mock(&mut world, &mock).await;
    emit_to_mock(&world, 20).await;
    let second = async || {
        let requests = world.receiver.requests();
        (requests.iter().filter(|request| request.attempt() == 2).count() == 20).then_some(())
    };
    eventually("all second attempts arrive", second).await;
    assert!(worker.log().contains("had a fatal error and is replaced"), "{}", worker.log());
    worker.readiness(true).await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_reports_a_partition_that_makes_no_progress() {
    let mock = MockCluster::new(1).unwrap();
    let mut world = World::with(&[("kafka.stall_after", "2s")]).await;
    world.webhook("/", &EventType::TASKS).await;
    let mut worker = worker_on_mock(&mut world, &mock).await;
    emit_to_mock(&world, 1).await;
    world.receiver.arrived(1).await;
    mock.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 100_000]);
    let mut emitted = 1;
    eventually("/readyz reports the stalled partition", async || {
        emit_to_mock(&world, 1).await;
        emitted += 1;
        let (status, page) = worker.page("/readyz").await?;
        (status == 503 && page.contains("nothing is read although")).then_some(())
    })
    .await;
    // The client is replaced while the broker still refuses, and once more until it reads.
    eventually("the consumer is replaced", async || {
        emit_to_mock(&world, 1).await;
        emitted += 1;
        let page = worker.page("/metrics").await?.1;
        (!page.contains("optio_webhooks_consumers_renewed_total 0")).then_some(())
    })
    .await;
    assert!(worker.log().contains("the consumer reads nothing, so it is replaced"), "{}", worker.log());
    mock.clear_request_errors(RDKafkaApiKey::Fetch);
    let deliveries = world.receiver.delivered(emitted).await;
    assert!(deliveries.values().all(|times| *times == 1), "a new consumer repeats nothing: {deliveries:?}");
    worker.readiness(true).await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_describe_configs_stops_no_worker() {
    let kafka = Service::kafka_with_acls();
    let world = World::with(&[("kafka.brokers", &kafka.address)]).await;
    world.webhook("/", &EventType::TASKS).await;
    world.alter(&world.names().retry(1), &[("retention.ms", "1000")]).await;
    let admin: AdminClient<_> = clients::producer(&world.config()).create().unwrap();
    acl::deny(&admin, "task-events", acl::DESCRIBE_CONFIGS);
    let found = eventually("the broker refuses the settings of all topics", async || {
        let found = admin::Topics::new(&world.config()).unwrap().check().await.unwrap();
        found.iter().all(|found| found.unchecked.is_some()).then_some(found)
    })
    .await;
    let reason = found[0].unchecked.clone().unwrap();
    assert!(reason.contains("uthorization failed"), "the reason lacks the broker's error: {reason}");
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 10).await;
    world.receiver.arrived(10).await;
    assert!(worker.log().contains("can't be checked") && !worker.log().contains("kafka is away"), "{}", worker.log());
    let output = tokio::process::Command::new(crate::harness::worker::PROGRAM)
        .args(["topics", "check"])
        .envs(world.environment())
        .output()
        .await
        .unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("unchecked"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("uthorization failed"), "{output:?}");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn deferrals_that_their_topic_refuses_are_written_as_soon_as_it_takes_them() {
    let kafka = Service::kafka_with_acls();
    let settings = [("kafka.brokers", kafka.address.as_str()), ("delivery.breaker.attempts_min", "5")];
    let world = World::with(&settings).await;
    world.webhook("/dead", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply::status(500));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskFailed, 50).await;
    world.events_committed().await;
    let metrics = worker.page("/metrics").await.unwrap().1;
    let count =
        |line: &str| line.strip_prefix("optio_webhooks_deferrals_total{reason=\"circuit_open\"} ")?.parse::<u64>().ok();
    assert!(metrics.lines().find_map(count).is_some_and(|deferred| deferred > 0), "the circuit is open: {metrics}");
    let admin: AdminClient<_> = clients::producer(&world.config()).create().unwrap();
    let tiers = world.names().retry(1).trim_end_matches('1').to_owned();
    acl::deny(&admin, &tiers, acl::WRITE);
    world.emit(EventType::TaskFailed, 100).await;
    eventually("/readyz names the topic and the reason", async || {
        let (status, page) = worker.page("/readyz").await?;
        (status == 503 && page.contains(&tiers) && page.contains("authorization failed")).then_some(())
    })
    .await;
    acl::clear(&admin);
    world.events_committed().await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_may_not_be_written_blocks_no_other_webhook() {
    let kafka = Service::kafka_with_acls();
    let world = World::with(&[("kafka.brokers", &kafka.address), ("worker.in_flight_max", "20")]).await;
    world.webhook("/dead", &[EventType::TaskFailed]).await;
    world.webhook("/fine", &[EventType::TaskCompleted]).await;
    world.receiver.answer(|request| Reply::status(if request.path == "/dead" { 500 } else { 200 }));
    let mut worker = world.worker().await;
    let admin: AdminClient<_> = clients::producer(&world.config()).create().unwrap();
    let tier = world.names().retry(1);
    acl::deny(&admin, &tier, acl::WRITE);
    world.emit(EventType::TaskFailed, 50).await;
    eventually("/readyz names the topic and the reason", async || {
        let (status, page) = worker.page("/readyz").await?;
        (status == 503 && page.contains(&tier) && page.contains("authorization failed")).then_some(())
    })
    .await;
    world.emit(EventType::TaskCompleted, 200).await;
    eventually("all deliveries of the other webhook arrive", async || {
        let requests = world.receiver.requests();
        (requests.iter().filter(|request| request.path == "/fine").count() == 200).then_some(())
    })
    .await;
    // Failed hand-offs don't delay the drain. The next owner of the partition handles their offsets again.
    let began = std::time::Instant::now();
    assert!(worker.terminate().await.success());
    assert!(began.elapsed() < world.config().worker.drain_timeout, "{:?}", began.elapsed());
}
