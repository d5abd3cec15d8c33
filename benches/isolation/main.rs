//! The effect of a bad endpoint on the others: rounds with and without it take turns in one run, with the same load.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench isolation`.
//! Environment variables and their defaults: `ROUNDS` (3); `EVENTS`, the events of a burst, each for ten webhooks
//! (6000); `EVEN_SECONDS`, the duration of the even load (20); `WAITING`, the deliveries in the retry tiers (1000000);
//! `ONLY`, one part: `faults`, `backlog`, `growth` or `clients`; `SLOW`, the slow connections to the admin server (2000);
//! `FAULT`, one fault: `/hang`, `/500`, `/slow` or `refused`.

#[path = "../rig/mod.rs"]
mod rig;

mod backlog;
mod growth;
mod slow_clients;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use optio_webhooks::event::EventType;

use rig::process::Process;
use rig::receiver;
use rig::world::World;
use rig::{figure, median, setting};

/// The number of good endpoints. A tenth endpoint is bad in every second run.
const GOOD: usize = 9;
/// The events per second of the even load. This is about a third of what two cores can handle, so that the latency
/// doesn't measure queueing.
const EVEN_PER_SECOND: usize = 150;
const WARM_UP_S: usize = 3;

/// The rate and the latency of the deliveries to the nine good endpoints.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Deliveries per second during the burst.
    pub rate: f64,
    /// The time from the write of an event to its request during the even load.
    pub p99_ms: f64,
}

fn main() {
    rig::run(&[("slow", slow_clients::run)], all());
}

async fn all() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let parts = ["", "faults", "backlog", "growth", "clients"];
    assert!(parts.contains(&only.as_str()), "ONLY={only}: must be faults, backlog, growth or clients");
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
    if wanted("clients") {
        slow_clients::compare().await;
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
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..setting("ROUNDS", 3) {
            without.push(run("/good").await);
            with.push(run(bad).await);
        }
        report(name, &with, &without);
    }
}

/// Prints the ratios of the medians, and then the figures of each round.
pub fn report(name: &str, with: &[Figures], without: &[Figures]) {
    let of = |runs: &[Figures], figure: fn(&Figures) -> f64| median(&mut runs.iter().map(figure).collect::<Vec<_>>());
    let ratio = |figure| of(with, figure) / of(without, figure);
    figure("isolation", &format!("{name}: rate, against a run without it"), ratio(|run| run.rate), "");
    figure("isolation", &format!("{name}: p99 latency, against a run without it"), ratio(|run| run.p99_ms), "");
    for (with, without) in with.iter().zip(without) {
        println!(
            "  {:.0}/s against {:.0}/s, p99 {:.0} ms against {:.0} ms",
            with.rate, without.rate, with.p99_ms, without.p99_ms
        );
    }
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

/// Measures the latency under an even load, and then the throughput of a burst.
pub async fn measure(world: &World, at: SocketAddr, worker: &mut Process) -> Figures {
    // The warm-up doesn't count. After it, the consumer group is stable, and the broker has created its files.
    let warm_up = WARM_UP_S * EVEN_PER_SECOND;
    world.emit_evenly(EventType::TaskCompleted, warm_up, EVEN_PER_SECOND).await;
    until(at, warm_up * GOOD, worker).await;
    receiver::latencies_us(at);

    let even = setting("EVEN_SECONDS", 20) * EVEN_PER_SECOND;
    world.emit_evenly(EventType::TaskCompleted, even, EVEN_PER_SECOND).await;
    until(at, (warm_up + even) * GOOD, worker).await;
    let latencies = receiver::latencies_us(at);
    let p99_ms = latencies[latencies.len() * 99 / 100] as f64 / 1_000.0;

    let burst = setting("EVENTS", 6_000);
    let began = Instant::now();
    world.emit(EventType::TaskCompleted, burst).await;
    until(at, (warm_up + even + burst) * GOOD, worker).await;
    Figures { rate: (burst * GOOD) as f64 / began.elapsed().as_secs_f64(), p99_ms }
}

/// Waits until the nine good endpoints have received `count` requests in total.
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
