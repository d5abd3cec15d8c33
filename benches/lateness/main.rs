//! The lateness of retries: the time from the answer of an attempt to the next attempt, minus the delay of the tier.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench lateness`.
//! Environment variables and their defaults: `EVENTS` (1000) and `PER_SECOND`, the rate of events (50).

#[path = "../rig/mod.rs"]
mod rig;

use std::time::Duration;

use optio_webhooks::event::EventType;

use rig::process::Process;
use rig::receiver;
use rig::world::World;

/// The delay of every tier. There is no jitter, so every longer wait counts as late.
const DELAY: Duration = Duration::from_secs(2);

fn main() {
    rig::run(&[], measure());
}

async fn measure() {
    let (events, per_second) = (rig::setting("EVENTS", 1_000), rig::setting("PER_SECOND", 50));
    let delay = format!("{}ms", DELAY.as_millis());
    let world = World::new(&[
        ("delivery.retry.initial", &delay),
        ("delivery.retry.multiplier", "1"),
        ("delivery.retry.jitter", "0"),
        // Every first attempt fails, and the circuit must stay closed.
        ("delivery.breaker.attempts_min", "100000"),
    ])
    .await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    world.webhooks(at, &["/third".to_owned()], &[EventType::TaskCompleted]).await;
    let mut worker = world.worker();
    world.emit(EventType::TaskCompleted, 1).await;
    until(at, 1, &mut worker).await;
    receiver::waits_ms(at);
    world.emit_evenly(EventType::TaskCompleted, events, per_second).await;
    until(at, events as u64 + 1, &mut worker).await;

    let late: Vec<i64> = receiver::waits_ms(at).into_iter().map(|wait| wait - DELAY.as_millis() as i64).collect();
    let at_share = |percent: usize| late[(late.len() * percent / 100).min(late.len() - 1)];
    println!("retries, two of each of {events} deliveries: {}", late.len());
    println!("early: {}", late.iter().filter(|late| **late < 0).count());
    for (name, share) in [("median", 50), ("p99", 99), ("most", 100)] {
        rig::figure("lateness", &format!("lateness of retries, {name}"), at_share(share) as f64, "ms");
    }
}

async fn until(at: std::net::SocketAddr, count: u64, worker: &mut Process) {
    while receiver::total(at) < count {
        worker.assert_alive();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
