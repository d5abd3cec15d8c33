//! The cost of a replay: a dry run against a bare consumer of the same topic, the peak of memory, and the actual rate.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench replay`.
//! Environment variables and their defaults: `LETTERS`, the number of dead letters (1000000); `ROUNDS` (3); `RATE`, a
//! limit per second (2000); `RATED`, the number of dead letters that are replayed at this rate (20000).

#[path = "../rig/mod.rs"]
mod rig;

use std::sync::Arc;
use std::time::{Duration, Instant};

use optio_webhooks::clock::now_ms;
use optio_webhooks::delivery::{DeadReason, Delivery, DeliveryId, FailureCode};
use optio_webhooks::detail::Detail;
use optio_webhooks::event::{Decoded, EventType, Limits, decode, sample};
use optio_webhooks::kafka::clients;
use optio_webhooks::position::{RecordPosition, TimestampMs};
use optio_webhooks::record::{self, LastError};
use optio_webhooks::topics::Names;
use optio_webhooks::webhook::WebhookId;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use uuid::Uuid;

use rig::process::Process;
use rig::world::World;
use rig::{figure, median, receiver, setting};

const WEBHOOKS: usize = 10;

/// The bare consumer uses the same allocator as the worker, so that only the work differs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    rig::run(&[("floor", floor)], measure());
}

async fn measure() {
    let (letters, rounds) = (setting("LETTERS", 1_000_000), setting("ROUNDS", 3));
    let world = World::new(&[]).await;
    let at = receiver::free_address();
    let paths: Vec<String> = (0..WEBHOOKS).map(|number| format!("/{number}")).collect();
    let webhooks = world.webhooks(at, &paths, &[EventType::TaskFailed]).await;
    write(&world, &webhooks, letters).await;

    let (mut dry, mut bare, mut memory) = (Vec::new(), Vec::new(), 0.0_f64);
    let mut bare_with_headers = Vec::new();
    for _ in 0..rounds {
        let arguments = |what: &str| {
            [world.config.kafka.brokers.clone(), Names::new(&world.config).dead_letters(), what.to_owned()]
        };
        bare.push(letters as f64 / run(Process::role("floor", &arguments("records"))).0);
        bare_with_headers.push(letters as f64 / run(Process::role("floor", &arguments("headers"))).0);
        let (seconds, peak) = run(world.start(&["replay", "--all", "--dry-run", "--json"]));
        dry.push(letters as f64 / seconds);
        memory = memory.max(peak);
    }
    let name = format!("dry run over {letters}, against a bare consumer");
    figure("replay", &name, median(&mut dry) / median(&mut bare), "");
    println!("  {:.0}/s against {:.0}/s", median(&mut dry), median(&mut bare));
    let with_headers = median(&mut bare_with_headers);
    println!(
        "  against one that reads each record's reason: {:.2} ({with_headers:.0}/s)",
        median(&mut dry) / with_headers
    );

    let (rate, rated) = (setting("RATE", 2_000), setting("RATED", 20_000));
    let limits = [rate.to_string(), rated.to_string()];
    let began_ms = now_ms();
    let (_, peak) = run(world.start(&["replay", "--reason", "exhausted", "--rate", &limits[0], "--limit", &limits[1]]));
    let (first_ms, last_ms, written) = span(&world, began_ms);
    assert_eq!(written, rated as u64);
    // The time from the first batch to the last covers all batches but one. A batch is a tenth of a second.
    let held = (rated as f64 - rate as f64 / 10.0) / ((last_ms - first_ms) as f64 / 1_000.0);
    println!("rate asked for: {rate}/s, held: {held:.0}/s ({:.3})", held / rate as f64);
    figure("replay", &format!("peak memory with {letters} dead letters"), memory.max(peak), "MiB");

    let (seconds, peak) = run(world.start(&["replay", "--reason", "exhausted"]));
    println!("all of them replayed: {:.0}/s, peak memory {peak:.0} MiB", (letters - rated) as f64 / seconds);
    let (seconds, peak) = run(world.start(&["replay", "--all", "--dry-run", "--json"]));
    println!("a dry run when all are replayed: {:.0}/s, peak memory {peak:.0} MiB", letters as f64 / seconds);
}

/// Waits for the end of `process`. Returns its duration in seconds and its peak of memory in MiB.
fn run(mut process: Process) -> (f64, f64) {
    let began = Instant::now();
    let mut peak = 0.0;
    while !process.has_ended() {
        peak = process.memory_peak_mib().unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    (began.elapsed().as_secs_f64(), peak)
}

async fn write(world: &World, webhooks: &[WebhookId], count: usize) {
    let producer: FutureProducer =
        clients::producer(&world.config).set("linger.ms", "20").create().expect("the producer starts");
    let topic = Names::new(&world.config).dead_letters();
    let mut sent = Vec::new();
    let detail = Detail::new("after 8 attempts, the last: status 500");
    for number in 0..count {
        let (event_id, webhook_id) = (Uuid::now_v7().to_string(), webhooks[number % webhooks.len()]);
        let delivery = Delivery {
            id: DeliveryId::of(&event_id, webhook_id),
            webhook_id,
            event_type: EventType::TaskFailed,
            event_id: event_id.into(),
            task_id: Uuid::now_v7().to_string().into(),
            body: body(),
            attempts: 8,
            deferrals: 0,
            first_seen_at_ms: now_ms(),
            source: RecordPosition { topic: Arc::from("events"), partition: 0, offset: number as i64 },
            replays: 0,
            traceparent: None,
            by_hand: false,
        };
        let last = LastError { code: Some(FailureCode::Status), status: Some(500) };
        let headers = record::headers(&delivery, None, last);
        let headers = record::dead(headers, DeadReason::Exhausted, &detail, now_ms());
        let partition = (number / webhooks.len()) as i32 % world.config.topics.partitions;
        let record = FutureRecord::<[u8], [u8]>::to(&topic).payload(&delivery.body).headers(headers);
        let record = record.partition(partition);
        sent.push(producer.send_result(record).map_err(|(error, _)| error).expect("the queue has room"));
        if sent.len() == 20_000 || number + 1 == count {
            for sent in sent.drain(..) {
                sent.await.expect("the producer lives").map_err(|(error, _)| error).expect("the record is written");
            }
        }
    }
}

/// A body as a worker writes it. Only its ids compress badly.
fn body() -> bytes::Bytes {
    let value = sample::transition(EventType::TaskFailed, Uuid::now_v7(), "Fix login redirect", now_ms()).to_string();
    let at = RecordPosition { topic: "".into(), partition: 0, offset: 0 };
    match decode(Some(value.as_bytes()), &at, TimestampMs(0), Limits::NONE) {
        Ok(Decoded::Event(event)) => event.body,
        other => panic!("{other:?}"),
    }
}

/// The role `floor`: a consumer with librdkafka's default settings reads a topic to its end.
fn floor(arguments: &[String]) {
    let [brokers, topic, what] = arguments else { panic!("three arguments") };
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "floor")
        .set("enable.auto.commit", "false")
        .create()
        .expect("the consumer starts");
    let left = assign(&consumer, topic);
    let with_headers = what == "headers";
    read(&consumer, left, |record| {
        if with_headers {
            let headers = record.headers().expect("dead letters have headers");
            assert!((0..headers.count()).any(|at| headers.get(at).key == "optio-dead-reason"));
        }
    });
}

/// The timestamps of the first and the last record of the replay topic, and the number of records. All of them must be
/// later than `since_ms`.
fn span(world: &World, since_ms: i64) -> (i64, i64, u64) {
    let consumer: BaseConsumer =
        clients::consumer(&world.config, "bench-observer").create().expect("the consumer starts");
    let left = assign(&consumer, &Names::new(&world.config).replays());
    let (mut first, mut last, mut count) = (i64::MAX, i64::MIN, 0);
    read(&consumer, left, |record| {
        let at_ms = record.timestamp().to_millis().unwrap_or(0);
        assert!(at_ms >= since_ms);
        first = first.min(at_ms);
        last = last.max(at_ms);
        count += 1;
    });
    (first, last, count)
}

fn assign(consumer: &BaseConsumer, topic: &str) -> i64 {
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).expect("the broker answers");
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    for partition in metadata.topics()[0].partitions() {
        let (low, high) =
            consumer.fetch_watermarks(topic, partition.id(), Duration::from_secs(10)).expect("the broker answers");
        left += high - low;
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("the offset is valid");
    }
    consumer.assign(&assignment).expect("the assignment is valid");
    left
}

fn read(consumer: &BaseConsumer, mut left: i64, mut each: impl FnMut(&BorrowedMessage<'_>)) {
    while left > 0 {
        if let Some(record) = consumer.poll(Duration::from_secs(10)) {
            each(&record.expect("the consumer gets a record"));
            left -= 1;
        }
    }
}
