//! New events for nine good endpoints while very many deliveries wait for a dead one.
//!
//! The benchmark writes the waiting deliveries as a worker leaves them after an endpoint has been down for about twenty
//! minutes: deferred four times, and due over the next 27 minutes. They come due in real time during the run.

use std::sync::Arc;
use std::time::Duration;

use optio_webhooks::clock::now_ms;
use optio_webhooks::delivery::{Delivery, DeliveryId, FailureCode};
use optio_webhooks::event::EventType;
use optio_webhooks::kafka::clients;
use optio_webhooks::position::RecordPosition;
use optio_webhooks::record::{self, LastError};
use optio_webhooks::topics::Names;
use optio_webhooks::webhook::WebhookId;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use uuid::Uuid;

use crate::rig::process::Process;
use crate::rig::receiver;
use crate::rig::setting;
use crate::rig::world::World;
use crate::{Figures, good_paths, measure, report};

/// The tier whose delay is 18 minutes with the default settings.
const TIER: u32 = 4;
const SHORTEST_MS: i64 = 18 * 60_000;

pub async fn compare() {
    let waiting = setting("WAITING", 1_000_000);
    println!("{waiting} deliveries wait for a dead endpoint: the nine others, against a run in which none waits");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..setting("ROUNDS", 3) {
        without.push(run(0).await.0);
        let (figures, written, memory) = run(waiting).await;
        with.push(figures);
        println!("  {written} written again during the run, of {waiting}; peak memory {memory:.0} MiB");
    }
    report("backlog", &with, &without);
}

async fn run(waiting: usize) -> (Figures, i64, f64) {
    let world = World::new(&[]).await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    world.webhooks(at, &good_paths(), &[EventType::TaskCompleted]).await;
    let dead = world.webhooks(receiver::free_address(), &["/".to_owned()], &[EventType::TaskFailed]).await[0];
    write(&world, dead, waiting).await;
    let before = written(&world);
    let mut worker = world.worker();
    let figures = measure(&world, at, &mut worker).await;
    (figures, written(&world) - before, worker.memory_peak_mib().expect("the worker runs"))
}

/// Writes `count` deferred deliveries of `webhook`, as if a worker had written them evenly over the last 18 minutes.
async fn write(world: &World, webhook: WebhookId, count: usize) {
    let names = Names::new(&world.config);
    let producer: FutureProducer =
        clients::producer(&world.config).set("linger.ms", "20").create().expect("the producer starts");
    let now = now_ms();
    let (topic, key) = (names.retry(TIER), webhook.to_string());
    let mut sent = Vec::new();
    for number in 0..count {
        let event_id = Uuid::now_v7().to_string();
        let written_at_ms = now - SHORTEST_MS + SHORTEST_MS * number as i64 / count as i64;
        let delivery = Delivery {
            id: DeliveryId::of(&event_id, webhook),
            webhook_id: webhook,
            event_type: EventType::TaskFailed,
            event_id: event_id.into(),
            task_id: "task".into(),
            body: bytes::Bytes::from_static(br#"{"event":"task.failed"}"#),
            attempts: 1,
            deferrals: 4,
            first_seen_at_ms: now - 2 * SHORTEST_MS,
            source: RecordPosition { topic: Arc::from("events"), partition: 0, offset: number as i64 },
            replays: 0,
            traceparent: None,
            by_hand: false,
        };
        let due_at_ms = written_at_ms + SHORTEST_MS;
        let headers = record::headers(
            &delivery,
            Some(due_at_ms),
            LastError { code: Some(FailureCode::CircuitOpen), status: None },
        );
        let record = FutureRecord::<[u8], [u8]>::to(&topic)
            .payload(&delivery.body)
            .headers(headers)
            .timestamp(written_at_ms)
            .key(key.as_bytes());
        sent.push(producer.send_result(record).map_err(|(error, _)| error).expect("the queue has room"));
        if sent.len() == 20_000 {
            for sent in sent.drain(..) {
                sent.await.expect("the producer lives").map_err(|(error, _)| error).expect("the record is written");
            }
        }
    }
    for sent in sent {
        sent.await.expect("the producer lives").map_err(|(error, _)| error).expect("the record is written");
    }
}

/// The number of records ever written to all retry tiers.
fn written(world: &World) -> i64 {
    let names = Names::new(&world.config);
    let consumer: BaseConsumer =
        clients::consumer(&world.config, "bench-observer").create().expect("the consumer starts");
    let tiers = (1..world.config.delivery.attempts_max).map(|tier| names.retry(tier));
    tiers
        .flat_map(|topic| (0..world.config.topics.partitions).map(move |partition| (topic.clone(), partition)))
        .map(|(topic, partition)| end_offset(&consumer, &topic, partition))
        .sum()
}

/// The end offset of a partition. A topic that has just been created may not have a leader yet, so this tries again.
fn end_offset(consumer: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    for _ in 0..100 {
        if let Ok((_, end)) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)) {
            return end;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{topic} still has no leader")
}
