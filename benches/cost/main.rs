//! The cost of a delivery: the worker against a bare consumer that posts the same signed bodies.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench cost`. Both take
//! turns in one run on the same events, and only the ratios matter. Environment variables and their defaults: `ROUNDS`
//! (7); `EVENTS` per round, each for four webhooks (10000); `WAITING`, the number of events of a backlog (1000000);
//! `EARLIER`, the path of another build of the program, which also takes turns and shows the cost of a change.

#[path = "../rig/mod.rs"]
mod rig;

mod backlog;

use rig::course::{WEBHOOKS, run};
use rig::world::World;
use rig::{figure, floor, median, setting};

/// The bare consumer uses the same allocator as the worker, so that only the work differs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    rig::run(&[("floor", floor::run)], compare());
}

async fn compare() {
    let (rounds, events) = (setting("ROUNDS", 7), setting("EVENTS", 10_000));
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
    println!();
    let spread = |values: &[f64]| format!("from {:.2} to {:.2}", values[0], values[values.len() - 1]);
    figure("cost", "processor time per delivery, against the bare consumer", median(&mut cost), "");
    println!("  in {rounds} rounds {}", spread(&cost));
    figure("cost", "rate, against the bare consumer", median(&mut rate), "");
    println!("  in {rounds} rounds {}", spread(&rate));
    let waiting = setting("WAITING", 1_000_000);
    let backlog = backlog::run(waiting, World::worker).await;
    figure("cost", &format!("peak memory with {waiting} events waiting"), backlog.peak_mib, "MiB");
    figure("cost", "resident memory at the end of this backlog, against its beginning", backlog.growth, "");
    figure("cost", "rate at the end of this backlog, against its beginning", backlog.last_rate, "");
    if let Some(program) = &earlier {
        let before = backlog::run(waiting, |world| world.worker_from(program)).await;
        println!();
        figure("cost", "processor time per delivery, against the earlier build", median(&mut cost_grown), "");
        figure("cost", "rate, against the earlier build", median(&mut rate_grown), "");
        figure("cost", "peak memory, against the earlier build", backlog.peak_mib / before.peak_mib, "");
    }
}
