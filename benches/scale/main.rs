//! Whether workers add up: the rate of 1, 2 and 4 workers on 8 partitions, with endpoints that take 100 ms. The limit is
//! the number of deliveries in flight, not the processor.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench scale`.
//! Environment variables and their defaults: `ROUNDS` (3); `IN_FLIGHT`, `worker.in_flight_max` of each worker (128);
//! `SECONDS`, how long each run has work for (12).

#[path = "../rig/mod.rs"]
mod rig;

use std::time::{Duration, Instant};

use optio_webhooks::event::EventType;

use rig::process::Process;
use rig::world::World;
use rig::{figure, median, receiver, setting};

const WORKERS: [usize; 3] = [1, 2, 4];
const WEBHOOKS: usize = 8;
/// The time that the endpoints take, in seconds. `receiver` knows the path.
const TAKES: f64 = 0.1;

fn main() {
    rig::run(&[], measure());
}

async fn measure() {
    let (rounds, in_flight) = (setting("ROUNDS", 3), setting("IN_FLIGHT", 128));
    let bound = in_flight as f64 / TAKES;
    let mut rates = WORKERS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (at, workers) in WORKERS.into_iter().enumerate() {
            rates[at].push(rate(workers, in_flight).await);
        }
    }
    let medians = rates.map(|mut of_count| median(&mut of_count));
    let name = format!("rate of one worker, against {in_flight} in flight by 0.1 s");
    figure("scale", &name, medians[0] / bound, "");
    for (workers, rate) in WORKERS.into_iter().zip(medians) {
        let linear = workers as f64 * medians[0];
        println!("{workers} workers: {rate:.0}/s");
        figure("scale", &format!("rate of {workers} workers, against linear"), rate / linear, "");
    }
}

/// Deliveries per second in the middle of a run.
async fn rate(workers: usize, in_flight: usize) -> f64 {
    let in_flight_max = in_flight.to_string();
    let world = World::new(&[("topics.partitions", "8"), ("worker.in_flight_max", &in_flight_max)]).await;
    let at = receiver::free_address();
    let receiving = Process::role("receiver", &[at.to_string()]);
    let paths: Vec<String> = (0..WEBHOOKS).map(|number| format!("/100ms/{number}")).collect();
    world.webhooks(at, &paths, &[EventType::TaskCompleted]).await;
    let addresses: Vec<_> = (0..workers).map(|_| receiver::free_address()).collect();
    let mut running: Vec<Process> =
        addresses.iter().map(|address| world.worker_at(env!("CARGO_BIN_EXE_optio-webhooks"), *address)).collect();
    // A first event for each partition shows that all of them are assigned.
    while !addresses.iter().all(|address| receiver::answers_ok(*address, "/readyz")) {
        running.iter_mut().for_each(Process::assert_alive);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let bound = workers as f64 * in_flight as f64 / TAKES;
    let events = (bound * setting("SECONDS", 12) as f64) as usize / WEBHOOKS;
    let total = (events * WEBHOOKS) as u64;
    world.emit(EventType::TaskCompleted, events).await;
    let reached = async |part: f64| {
        let wanted = (total as f64 * part) as u64;
        loop {
            let count = receiver::total(at);
            if count >= wanted {
                return (count, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (first, began) = reached(0.25).await;
    let (last, ended) = reached(0.75).await;
    running.iter_mut().for_each(Process::assert_alive);
    drop((running, receiving));
    (last - first) as f64 / ended.duration_since(began).as_secs_f64()
}
