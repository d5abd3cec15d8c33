//! What a bad endpoint costs the others: the same load with and without it, in turns, in one run.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench isolation`.
//! Environment variables: `ROUNDS` (1), `EVENTS` of a burst (6000; ten webhooks each), `EVEN_SECONDS` of an even load
//! (10), `WAITING` deliveries in the retry tiers (1000000), `ONLY` one part: `faults`, `backlog`, `growth`;
//! `FAULT` one fault: `/hang`, `/500`, `/slow`, `refused`.

#[path = "../rig/mod.rs"]
mod rig;

mod backlog;
mod growth;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use optio_webhooks::event::EventType;

use rig::process::Process;
use rig::receiver;
use rig::world::World;

/// Endpoints that work, beside the one that may not.
const GOOD: usize = 9;
/// Events a second of the even load: about a third of what two cores can do, so that latency is not queueing.
const EVEN_PER_SECOND: usize = 150;

/// What the nine got.
#[derive(Clone, Copy)]
pub struct Figures {
    pub rate: f64,
    pub p99_ms: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("role=receiver") => receiver::run(arguments[1].parse().expect("an address")),
        _ => tokio::runtime::Runtime::new().expect("a runtime").block_on(all()),
    }
}

pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

async fn all() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only == part;
    if wanted("faults") {
        faults().await;
    }
    if wanted("backlog") {
        backlog::compare().await;
    }
    if wanted("growth") {
        growth::compare().await;
    }
}

async fn faults() {
    println!("ten endpoints, one of them bad: what the nine others get, against a run in which it is good");
    for (name, bad) in [
        ("never answers", "/hang"),
        ("answers 500", "/500"),
        ("answers after 9 s", "/slow"),
        ("refuses connections", "refused"),
    ] {
        if std::env::var("FAULT").is_ok_and(|only| only != bad) {
            continue;
        }
        let (mut rate, mut p99) = (Vec::new(), Vec::new());
        for _ in 0..setting("ROUNDS", 1) {
            let without = run("/good").await;
            let with = run(bad).await;
            rate.push(with.rate / without.rate);
            p99.push(with.p99_ms / without.p99_ms);
            println!(
                "  {name}: rate {:.0}/s against {:.0}/s, p99 {:.0} ms against {:.0} ms",
                with.rate, without.rate, with.p99_ms, without.p99_ms
            );
        }
        println!("{name}: rate {:.2}, p99 latency {:.2}", median(&mut rate), median(&mut p99));
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn good_paths() -> Vec<String> {
    (0..GOOD).map(|number| format!("/{number}")).collect()
}

async fn run(tenth: &str) -> Figures {
    let world = World::new(&[]).await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    world.webhooks(at, &good_paths(), &[EventType::TaskCompleted]).await;
    if tenth == "refused" {
        world.webhooks(receiver::free_address(), &["/".to_owned()], &[EventType::TaskCompleted]).await;
    } else {
        world.webhooks(at, &[tenth.to_owned()], &[EventType::TaskCompleted]).await;
    }
    let mut worker = world.worker();
    measure(&world, at, &mut worker).await
}

/// First an even load, for latency; then a burst, for throughput.
pub async fn measure(world: &World, at: SocketAddr, worker: &mut Process) -> Figures {
    // A first one, so that start-up and group membership are over when the clock starts.
    world.emit(EventType::TaskCompleted, 1).await;
    until(at, GOOD, worker).await;
    receiver::latencies_ms(at);

    let even = setting("EVEN_SECONDS", 10) * EVEN_PER_SECOND;
    world.emit_evenly(EventType::TaskCompleted, even, EVEN_PER_SECOND).await;
    until(at, (even + 1) * GOOD, worker).await;
    let latencies = receiver::latencies_ms(at);
    let p99_ms = latencies[latencies.len() * 99 / 100] as f64;

    let burst = setting("EVENTS", 6_000);
    let began = Instant::now();
    world.emit(EventType::TaskCompleted, burst).await;
    until(at, (even + 1 + burst) * GOOD, worker).await;
    Figures { rate: (burst * GOOD) as f64 / began.elapsed().as_secs_f64(), p99_ms }
}

/// Waits until the nine have got so many together.
pub async fn until(at: SocketAddr, count: usize, worker: &mut Process) {
    let good = good_paths();
    let arrived = || {
        receiver::counts(at)
            .iter()
            .filter(|(path, _)| good.contains(path))
            .map(|(_, count)| *count as usize)
            .sum::<usize>()
    };
    while arrived() < count {
        worker.assert_alive();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
