//! The cost of a delivery: the worker against a bare consumer that posts the same signed bodies.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench cost`. Both take
//! turns in one run on the same events, and only the ratios matter. Environment variables and their defaults: `ROUNDS`
//! (3); `EVENTS` per round, each for four webhooks (10000); `WAITING`, the number of waiting events while memory is
//! measured (500000); `EARLIER`, the path of another build of the program, which also takes turns and shows the cost of
//! a change.

#[path = "../rig/mod.rs"]
mod rig;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use optio_webhooks::event::EventType;

use rig::process::Process;
use rig::world::World;
use rig::{figure, floor, receiver};
use rig::{median, setting};

const WEBHOOKS: usize = 4;

/// The result of one run.
struct Figures {
    /// The processor time per delivery.
    processor_us: f64,
    /// Deliveries per second.
    rate: f64,
}

/// The bare consumer uses the same allocator as the worker, so that only the work differs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    rig::run(&[("floor", floor::run)], compare());
}

async fn compare() {
    let (rounds, events) = (setting("ROUNDS", 3), setting("EVENTS", 10_000));
    let (mut cost, mut rate) = (Vec::new(), Vec::new());
    let earlier = std::env::var_os("EARLIER");
    let (mut cost_grown, mut rate_grown) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let bare = run(events, |world, at| floor::start(&world.config, at, WEBHOOKS)).await;
        let before = async || match &earlier {
            Some(program) => Some(run(events, |world, _| world.worker_from(program)).await),
            None => None,
        };
        // The builds also take turns in going first, because a later run finds warmer caches and a fuller broker.
        let (before, worker) = if round % 2 == 0 {
            let before = before().await;
            (before, run(events, |world, _| world.worker()).await)
        } else {
            let worker = run(events, |world, _| world.worker()).await;
            (before().await, worker)
        };
        println!(
            "round {round}: processor time per delivery {:.0} us against {:.0} us, rate {:.0}/s against {:.0}/s",
            worker.processor_us, bare.processor_us, worker.rate, bare.rate
        );
        cost.push(worker.processor_us / bare.processor_us);
        rate.push(worker.rate / bare.rate);
        if let Some(before) = before {
            println!("         the earlier build: {:.0} us, {:.0}/s", before.processor_us, before.rate);
            cost_grown.push(worker.processor_us / before.processor_us);
            rate_grown.push(worker.rate / before.rate);
        }
    }
    let waiting = setting("WAITING", 500_000);
    let peak = memory(waiting, |world| world.worker()).await;
    println!();
    let spread = |values: &[f64]| format!("from {:.2} to {:.2}", values[0], values[values.len() - 1]);
    figure("cost", "processor time per delivery, against the bare consumer", median(&mut cost), "");
    println!("  in {rounds} rounds {}", spread(&cost));
    figure("cost", "rate, against the bare consumer", median(&mut rate), "");
    println!("  in {rounds} rounds {}", spread(&rate));
    figure("cost", &format!("peak memory with {waiting} events waiting"), peak, "MiB");
    if let Some(program) = &earlier {
        let before = memory(waiting, |world| world.worker_from(program)).await;
        println!();
        figure("cost", "processor time per delivery, against the earlier build", median(&mut cost_grown), "");
        figure("cost", "rate, against the earlier build", median(&mut rate_grown), "");
        figure("cost", "peak memory, against the earlier build", peak / before, "");
    }
}

fn paths() -> Vec<String> {
    (0..WEBHOOKS).map(|number| format!("/{number}")).collect()
}

/// Writes `events` events, and measures the time and the processor time until all their deliveries have arrived.
async fn run(events: usize, start: impl FnOnce(&World, SocketAddr) -> Process) -> Figures {
    let world = World::new(&[("kafka.properties.session_timeout_ms", "6000")]).await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    world.webhooks(at, &paths(), &[EventType::TaskCompleted]).await;
    // A first event is delivered before the measurement, so that it excludes the start and the join of the group.
    world.emit(EventType::TaskCompleted, 1).await;
    let mut process = start(&world, at);
    until(at, WEBHOOKS as u64, &mut process).await;
    let load = events * WEBHOOKS;
    let (processor_before, began) = (process.processor_time(), Instant::now());
    world.emit(EventType::TaskCompleted, events).await;
    until(at, (load + WEBHOOKS) as u64, &mut process).await;
    let took = began.elapsed();
    let processor = process.processor_time().saturating_sub(processor_before);
    Figures { processor_us: processor.as_micros() as f64 / load as f64, rate: load as f64 / took.as_secs_f64() }
}

async fn until(at: SocketAddr, count: u64, process: &mut Process) {
    while receiver::total(at) < count {
        process.assert_alive();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The worker's peak of memory while `waiting` events wait, after it has delivered a fifth of them.
async fn memory(waiting: usize, start: impl FnOnce(&World) -> Process) -> f64 {
    let world = World::new(&[]).await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    world.webhooks(at, &paths()[..1], &[EventType::TaskCompleted]).await;
    world.emit(EventType::TaskCompleted, waiting).await;
    let mut worker = start(&world);
    until(at, waiting as u64 / 5, &mut worker).await;
    worker.memory_peak_mib().expect("the worker runs")
}
