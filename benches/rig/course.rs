//! The course that every sender runs: it gets a number of events at once, and its time and processor time are measured
//! until all their deliveries have arrived.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use optio_webhooks::event::EventType;

use super::process::Process;
use super::receiver;
use super::world::World;

/// The webhooks of an event.
pub const WEBHOOKS: usize = 4;

/// The result of one run.
pub struct Figures {
    /// The processor time per delivery, in microseconds.
    pub processor_us: f64,
    /// Deliveries per second.
    pub rate: f64,
    /// The peak of the resident memory, in MiB.
    pub memory_mib: f64,
}

/// Measures a sender that reads the events from Kafka.
pub async fn run(events: usize, start: impl FnOnce(&World, SocketAddr) -> Process) -> Figures {
    run_from(async |world, count| world.emit(EventType::TaskCompleted, count).await, events, start).await
}

/// Measures a sender that gets its events from `emit`.
pub async fn run_from(
    emit: impl AsyncFn(&World, usize),
    events: usize,
    start: impl FnOnce(&World, SocketAddr) -> Process,
) -> Figures {
    let world = World::new(&[("kafka.properties.session_timeout_ms", "6000")]).await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    world.webhooks(at, &paths(), &[EventType::TaskCompleted]).await;
    // A first event is delivered before the measurement, so that it excludes the start and the join of the group.
    emit(&world, 1).await;
    let mut process = start(&world, at);
    until(at, WEBHOOKS as u64, &mut process).await;
    let load = events * WEBHOOKS;
    let (processor_before, began) = (process.processor_time(), Instant::now());
    emit(&world, events).await;
    until(at, (load + WEBHOOKS) as u64, &mut process).await;
    let took = began.elapsed();
    let processor = process.processor_time().saturating_sub(processor_before);
    Figures {
        processor_us: processor.as_micros() as f64 / load as f64,
        rate: load as f64 / took.as_secs_f64(),
        memory_mib: process.memory_peak_mib().expect("the sender runs"),
    }
}

/// The paths of the webhooks at the receiver.
pub fn paths() -> Vec<String> {
    (0..WEBHOOKS).map(|number| format!("/{number}")).collect()
}

/// Waits until `count` requests have arrived.
pub async fn until(at: SocketAddr, count: u64, process: &mut Process) {
    while receiver::total(at) < count {
        process.assert_alive();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
